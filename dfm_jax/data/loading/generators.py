"""The procedural data sets, by the names that `config.data.name` and `prepare --format=` know them by."""

import dataclasses
from collections.abc import Callable, Mapping

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


GENERATORS: Mapping[str, Generator] = {
    "shapes": Generator(
        shapes_scenes.ShapesScenes, shapes_scenes.intrinsics, shapes_scenes.NEAR, shapes_scenes.FAR, image_size=48
    ),
    "toy": Generator(toy_scenes.ToyScenes, toy_scenes.intrinsics, toy_scenes.NEAR, toy_scenes.FAR, image_size=24),
}
