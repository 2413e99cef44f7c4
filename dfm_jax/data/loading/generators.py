"""The procedural data sets, by the names that `config.data.name` and `prepare --format=` know them by."""

import dataclasses
from collections.abc import Callable, Mapping
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


GENERATORS: Mapping[str, Generator] = {
    "shapes": Generator(
        shapes_scenes.ShapesScenes,
        shapes_scenes.intrinsics,
        shapes_scenes.NEAR,
        shapes_scenes.FAR,
        image_size=48,
        attributes=frozenset(shapes_scenes.ATTRIBUTES),
        depth=shapes_scenes.view_depth,
    ),
    "toy": Generator(
        toy_scenes.ToyScenes,
        toy_scenes.intrinsics,
        toy_scenes.NEAR,
        toy_scenes.FAR,
        image_size=24,
        attributes=frozenset(toy_scenes.ATTRIBUTES),
        depth=toy_scenes.view_depth,
    ),
}


def generator_of(attributes: Mapping[str, Any]) -> Generator | None:
    """What made a scene, whatever its data set is called, by the `attributes` of its record; None: it is no procedural
    one."""
    made = (generator for generator in GENERATORS.values() if generator.attributes <= attributes.keys())
    return next(made, None)
