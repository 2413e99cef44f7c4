"""What procedural data sets have in common: scenes by name, cameras on an orbit, frames by number.

`GENERATORS` in `generators.py` has all of them.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from jaxtyping import Float

MIN_TEST_SCENES = 16
TEST_FRACTION = 1 / 16  # of the number of training scenes
NUM_AZIMUTHS = 12  # frames behind the front view, one in each equal part of the circle

Geometry = TypeVar("Geometry")


@dataclasses.dataclass(frozen=True)
class GeneratedScene:
    """A scene as it was generated."""

    attributes: dict[str, Any]  # what its record knows of it
    camera_to_world: np.ndarray  # [v, 4, 4]; frame 0 is the front view
    images: np.ndarray  # [v, s, s, 3] uint8


class ProceduralScenes(abc.ABC, Generic[Geometry]):
    """Generates `num_scenes` training scenes and some more for testing, pictures of `image_size` pixels. Scenes that
    have a geometry in common lie side by side."""

    max_geometries: ClassVar[int]

    def __init__(self, num_scenes: int, image_size: int, seed: int):
        self._sizes = {"train": num_scenes, "test": max(MIN_TEST_SCENES, round(num_scenes * TEST_FRACTION))}
        self._image_size = image_size
        self._seed = seed
        self._last: tuple[tuple[str, int], Geometry] | None = None  # all that need be kept

    def splits(self) -> Mapping[str, Sequence[str]]:
        """Names of the scenes of each split."""
        return {split: [f"{split}-{i:06d}" for i in range(size)] for split, size in self._sizes.items()}

    def scene(self, split: str, name: str) -> GeneratedScene:
        number, size = int(name.rpartition("-")[2]), self._sizes[split]
        of = split, number * min(size, self.max_geometries) // size
        if self._last is None or self._last[0] != of:
            rng = np.random.default_rng((self._seed, split == "test", 0, of[1]))
            self._last = of, self._make_geometry(rng)
        rng = np.random.default_rng((self._seed, split == "test", 1, number))
        return self._make_scene(self._last[1], rng)

    @abc.abstractmethod
    def _make_geometry(self, rng: np.random.Generator) -> Geometry:
        """What some scenes have in common, their cameras among it."""

    @abc.abstractmethod
    def _make_scene(self, geometry: Geometry, rng: np.random.Generator) -> GeneratedScene:
        """One of them."""


def frame_name(frame: int) -> str:
    return f"{frame:02d}"


def random_azimuths(rng: np.random.Generator) -> Float[np.ndarray, "v"]:
    """Of the frames of a scene, radians; frame 0 looks at the front."""
    part = 2 * np.pi / NUM_AZIMUTHS
    return np.append(0.0, part * (np.arange(NUM_AZIMUTHS) + rng.uniform(0, 1, NUM_AZIMUTHS)))


def orbit_pose(
    azimuth: float | np.ndarray, elevation: float, radius: float, look_at: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "*azimuths 4 4"]:
    """`camera_to_world` of cameras at azimuths [...] in radians around a point; 0 is at its -y side."""
    azimuth = np.asarray(azimuth, np.float64)
    cos, sin = np.cos(azimuth), np.sin(azimuth)
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    backwards = np.stack(
        [np.cos(elevation) * sin, -np.cos(elevation) * cos, np.sin(elevation) * one], axis=-1
    )  # from the point looked at towards the camera
    right = np.stack([cos, sin, zero], axis=-1)
    pose = np.zeros((*azimuth.shape, 4, 4))
    pose[..., :3, 0] = right
    pose[..., :3, 1] = np.cross(-backwards, right)  # down = forwards x right
    pose[..., :3, 2] = -backwards
    pose[..., :3, 3] = look_at + radius * backwards
    pose[..., 3, 3] = 1
    return pose


def pixel_of_rays(views: int, size: int, rays: int) -> np.ndarray:
    """The number of the pixel, over all views, that each of the rays [v, (size * rays)^2] lies in."""
    row = np.arange(size * rays) // rays
    return (row[:, None] * size + row).ravel() + size**2 * np.arange(views)[:, None]
