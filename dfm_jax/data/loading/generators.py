"""The procedural data sets, by the names that `config.data.name` and `prepare --format=` know them by."""

import dataclasses
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from dfm_jax.data.loading import shapes_scenes, toy_scenes
from dfm_jax.data.loading.procedural import ProceduralScenes


@dataclasses.dataclass(frozen=True)
class Generator:
    scenes: Callable[[int, int, int], ProceduralScenes]  # of a number of training scenes, an image size and a seed
    intrinsics: Callable[[], np.ndarray]  # [3, 3] of every camera, normalised
    near: float
    far: float
    image_size: int  # of its config
    attributes: frozenset[str]  # what a scene's record knows of it
    # Of these, a pose [4, 4], intrinsics [3, 3] and a size, distances [size, size]; infinite where a ray meets nothing.
    depth: Callable[[Mapping[str, Any], np.ndarray, np.ndarray, int], np.ndarray]


def _generator(module: ModuleType, scenes: Callable[[int, int, int], ProceduralScenes], image_size: int) -> Generator:
    attributes = frozenset(module.ATTRIBUTES)
    return Generator(
        scenes, module.intrinsics, module.NEAR, module.FAR, image_size, attributes, depth=module.view_depth
    )


GENERATORS: Mapping[str, Generator] = {
    "shapes": _generator(shapes_scenes, shapes_scenes.ShapesScenes, image_size=32),
    "toy": _generator(toy_scenes, toy_scenes.ToyScenes, image_size=24),
}


def generator_of(attributes: Mapping[str, Any]) -> Generator | None:
    """What made a scene, whatever its data set is called, by the `attributes` of its record; None: it is no procedural
    one."""
    made = (generator for generator in GENERATORS.values() if generator.attributes <= attributes.keys())
    return next(made, None)
