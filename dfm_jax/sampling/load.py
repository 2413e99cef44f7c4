"""Trained models and sampled scenes, from where they lie."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfm_jax import platforms
from dfm_jax.config import Config
from dfm_jax.config.changes import with_sampling
from dfm_jax.config.reading import from_dict
from dfm_jax.data.loading.abstract import abstract_example
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import require_scenes
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.scene_files import read_scenes
from dfm_jax.sampling.scenes import Sampled, Scenes
from dfm_jax.sampling.trained import restore_trained


def load(model: str | os.PathLike, **settings: Any) -> Sampler:
    """A trained model: that of a run's workdir, here or in a bucket (`gs://...`), or of an export of one; or one that
    comes with the package, by its name. A name stands for a workdir where `./<name>/checkpoints` is one.

    >>> dfm_jax.load("toy", steps=8, guidance=1.5)
    Sampler(toy, step 6000: scenes from photographs of 24 x 24 pixels, dpm-solver++ in 8 steps)

    Args:
      settings: how it is sampled, where not as in its config: any setting of `config.sample` (`steps` is short for
        `num_steps`), and `seed`.

    Raises:
      UserError: there is no checkpoint; no such setting, or one that cannot have this value; or jax does not start.
    """
    config = with_sampling(from_dict(saved_settings(model)), settings)
    platforms.start()
    return restore_trained(config, model)


def load_scenes(path: str | os.PathLike, sampler: Sampler) -> Scenes:
    """Scenes that were saved (`Scenes.save`), to be rendered by the model that sampled them, bit for bit as before.

    >>> scenes.save(folder / "scenes.npz")
    >>> len(dfm_jax.load_scenes(folder / "scenes.npz", sampler))
    2

    Raises:
      UserError: the file is missing, damaged or something else, or they are of another model.
    """
    if not isinstance(sampler, Sampler):
        raise UserError(f"scenes are rendered by the sampler that made them, dfm_jax.load(...), not by {sampler!r}")
    require_scenes(sampler.config, "dfm_jax.load_scenes")
    diffusion = sampler.diffusion()
    trees, frames, made_from = read_scenes(Path(path), _template(sampler), sampler.params)
    return Scenes(diffusion.on_devices(len(trees["x0"])), Sampled(**trees, frames=frames), made_from)


def _template(sampler: Sampler) -> dict[str, Any]:
    """The arrays of `Sampled`, of one scene, as shapes."""
    size = sampler.config.image_size
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    world, example = jax.ShapeDtypeStruct((1, 4, 4), np.float64), abstract_example(sampler.config, 1)
    signal = signal_shapes(sampler.config, sampler.params)
    return {"signal": signal, "x0": image, "estimate": image, "example": example, "world": world}


def signal_shapes(config: Config, params: Any) -> Any:
    """The arrays that one sampled scene is, as shapes; `params` may be shapes, too."""

    def infer(diffusion: DiffusionSampler, example: Any, x0: Any) -> Any:
        return diffusion.scene(Samples(x0, diffusion.cache_context(example).conditional(1).context))[0]

    image = jax.ShapeDtypeStruct((1, config.image_size, config.image_size, 3), np.float32)
    settings = dataclasses.replace(config.sample, sampler="ddim")  # all samplers make the same
    sampler = DiffusionSampler.from_config(config, params, settings)
    return jax.eval_shape(infer, sampler, abstract_example(config, 1), image)
