"""State dicts of the published form with made-up numbers, for several tests."""

import pathlib

import numpy as np

from dfm_jax.config import Config
from dfm_jax.config.command_line import read_config
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.interop.published_names import LABEL_EMBEDDING, derived_arrays, taken_shapes, unused_shapes

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
HEADS = 2
SMALL = {
    "image_size": 16,
    "loss.patch_size": 16,
    "model.pixel_grid": "corners",
    "model.estimate_size": 16,
    "model.rendered_features": 4,
    "model.encoder.depth": 2,
    "model.encoder.width": 16,
    "model.encoder.num_heads": HEADS,
    "model.encoder.features": 8,
    "model.scene_field.width": 16,
    "model.conditioning_field.width": 12,
}


def small_config(name: str = "co3d", **changes: object) -> Config:
    """The recipe `name` with a model of a few thousand numbers. `changes`, by dotted names, come on top."""
    settings = SMALL | changes
    return read_config(f"{CONFIGS / name}.py:64", [f"--config.{key}={value}" for key, value in settings.items()])


def model_of(config: Config) -> RadianceFieldModel:
    return RadianceFieldModel.from_config(config)


def made_up_state(model: RadianceFieldModel, seed: int = 0) -> dict[str, np.ndarray]:
    """A whole published state dict; only what is fixed there is not random."""
    rng = np.random.default_rng(seed)
    shapes = taken_shapes(model)
    shapes |= unused_shapes(model.config, shapes) | {LABEL_EMBEDDING: (1001, model.config.encoder.width)}
    state = {name: 0.1 * rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    return state | derived_arrays(model.config, model.image_size // 4)
