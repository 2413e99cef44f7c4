"""Diffusion with Forward Models in JAX: whole scenes from one photograph.

>>> import dfm_jax
>>> sampler = dfm_jax.load("toy")  # the model that comes with the package; or a run's workdir, an export, a bucket
>>> scenes = sampler.sample(dfm_jax.example_photo("toy"), num_samples=2, seed=0)  # or a file, arrays, Views, an Example
>>> scenes[0].render(scenes.target_camera, height=48, width=64).rgb.shape
(48, 64, 3)

Nothing else is imported until it is used.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

# Python is about to run a module of this package as a command: argv has its path once that is found.
if sys.argv[:1] == ["-m"] and any(word.startswith(f"{__name__}.") for word in sys.orig_argv):
    from dfm_jax import interrupts

    interrupts.end_commands_in_one_line()

if TYPE_CHECKING:
    from dfm_jax.data.loading.example_photo import example_photo
    from dfm_jax.errors import UserError
    from dfm_jax.sampling.load import load, load_scenes
    from dfm_jax.sampling.sampler import Sampler
    from dfm_jax.sampling.scenes import SampledScene, Scenes
    from dfm_jax.structs import Camera, Example, RenderedViews, Views

_HOMES = {
    "Camera": "dfm_jax.structs",
    "Example": "dfm_jax.structs",
    "RenderedViews": "dfm_jax.structs",
    "SampledScene": "dfm_jax.sampling.scenes",
    "Sampler": "dfm_jax.sampling.sampler",
    "Scenes": "dfm_jax.sampling.scenes",
    "UserError": "dfm_jax.errors",
    "Views": "dfm_jax.structs",
    "example_photo": "dfm_jax.data.loading.example_photo",
    "load": "dfm_jax.sampling.load",
    "load_scenes": "dfm_jax.sampling.load",
}

__all__ = [
    "Camera",
    "Example",
    "RenderedViews",
    "SampledScene",
    "Sampler",
    "Scenes",
    "UserError",
    "Views",
    "example_photo",
    "load",
    "load_scenes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
