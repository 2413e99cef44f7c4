"""Of every forward model that `build.py` knows a small one, for its laws.

Of a model `NAME` that is `configs/NAME.py` (`:tiny`, if there is such a variant).
"""

import dataclasses
import functools
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config import Config
from dfm_jax.config.command_line import read_config
from dfm_jax.denoiser import cache_context, denoise, guided_denoise
from dfm_jax.diffusion.guidance import Guidance
from dfm_jax.forward_models.build import MODELS, make_model
from dfm_jax.forward_models.protocol import ForwardModel, Params, frozen_groups, parameter_shapes
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.runs.train_state import create
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.setup import TrainSetup, make_train_setup
from tests.tiny import jit, on_device

ROOT = pathlib.Path(__file__).resolve().parents[1]
OF_SCENES = {
    "radiance_field": "toy.py:tiny",
    "partial_views": "toy.py:tiny,masked",
    "pixelnerf": "toy.py:tiny,pixelnerf",
}
# Two context views, which the toy has not; and all as small as it goes.
SMALL_SCENES = {
    "image_size": 8,
    "data.view_sampling.max_context": 2,
    "model.encoder.depth": 1,
    "model.encoder.width": 16,
    "model.encoder.num_heads": 2,
    "model.encoder.features": 8,
    "model.scene_field.width": 16,
    "model.scene_field.view_blocks": 1,
    "model.rendered_features": 4,
    "model.ray_marching.num_coarse": 4,
    "loss.patch_size": 2,
}
OF_ESTIMATE = {
    "model.conditioning_field.width": 16,
    "model.conditioning_field.view_blocks": 1,
    "model.estimate_size": 4,
    "model.ray_marching.num_conditioning": 4,
}
TRAINING = {
    "train.num_steps": 4,
    "train.batch_size": 4,
    "train.checkpoint_every": 2,
    "train.log_every": 1,
    "train.sample_every": 0,
    "train.optimizer.warmup_steps": 1,
}
BATCH = 4


def config_of(name: str) -> Config:
    small = {}
    if name in OF_SCENES:
        file, small = OF_SCENES[name], SMALL_SCENES | ({} if name == "pixelnerf" else OF_ESTIMATE)
    else:
        variants = getattr(importlib.import_module(f"configs.{name}"), "VARIANTS", ())
        file = f"{name}.py:tiny" if any("tiny" in choice for choice in variants) else f"{name}.py"
    overrides = [f"--config.{setting}={value}" for setting, value in (small | TRAINING).items()]
    return read_config(str(ROOT / "configs" / file), overrides)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, parameters of ordinary size, and what it is asked about."""

    config: Config
    model: ForwardModel
    params: Params
    example: Any
    x_t: jax.Array
    timestep: jax.Array

    @functools.cached_property
    def _program(self) -> Any:
        model = self.model

        @jit
        def run(params, example, x_t, timestep):
            """Predictions, the same guided by 1, and the same of what is not cached."""
            both = cache_context(params, model, example, guided=True, cache_bytes=2**30)
            plain = denoise(params, model, x_t, timestep, both.conditional(BATCH))
            guided = guided_denoise(params, model, x_t, timestep, both, Guidance(1.0), jnp.zeros_like(x_t))[0]
            uncached = denoise(params, model, x_t, timestep, cache_context(params, model, example))
            return {"plain": plain.x0, "guided": guided.x0, "uncached": uncached.x0}

        return run

    def predictions(self, **changes: Any) -> dict[str, np.ndarray]:
        given = {name: changes.get(name, getattr(self, name)) for name in ("params", "example", "x_t", "timestep")}
        return jax.device_get(self._program(*given.values()))


def random_params(model: ForwardModel) -> Params:
    """None of them zero: new ones may close every gate."""
    shapes, rng = parameter_shapes(model), np.random.default_rng(0)
    scale = lambda shape: 1 / np.sqrt(np.prod(shape[-4:-1])) if len(shape) > 1 else 0.1
    return jax.tree.map(lambda x: on_device(rng.normal(0, scale(x.shape), x.shape)), shapes)


@functools.cache
def case_of(name: str) -> Case:
    config = config_of(name)
    model, example = make_model(config), synthetic_example(config, BATCH)
    shape = jax.eval_shape(model.target, example)[0].shape
    x_t = on_device(np.random.default_rng(1).normal(size=shape))
    levels = np.array([0, 300, 600, 999], np.int32) * config.diffusion.num_timesteps // 1000
    return Case(config, model, random_params(model), example, x_t, jax.device_put(levels))


def made_up_start(config: Config) -> TrainSetup:
    """What a training run computes, but for the parameters that it starts from: a model's own take longer to compile
    than a training step."""
    model = make_model(config)
    params = jax.device_get(random_params(model))  # constants of the program
    state = lambda _: create(
        jax.tree.map(jnp.asarray, params), make_optimizer(config.train.optimizer), frozen_groups(model)
    )
    return dataclasses.replace(make_train_setup(config), init=state)


@functools.cache
def setup_of(name: str) -> TrainSetup:
    """One for all who train the model: its step is traced and compiled once."""
    return made_up_start(config_of(name))


# What compiles programs many times is slow of these. Those of partial views are the radiance field's but for what
# cameras record; those of pixelNeRF are half of them, and `test_resume.py` resumes it.
LONG = ("partial_views", "pixelnerf")
QUICK = tuple(name for name in MODELS if name not in LONG)
EVERY = (*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG))
