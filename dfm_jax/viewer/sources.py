"""What the viewer samples behind: a scene of a data set, or photographs."""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from dfm_jax.exports.protocol import Frame
from dfm_jax.structs import Camera, Example


@dataclasses.dataclass(frozen=True)
class Source:
    """One scene as a model is given it.

    Attributes:
      name: for people.
      example: [s=1], in numpy.
      world: [1, 4, 4] pose of the first context view in the coordinates of the source.
      frame: how these lie in those of its files.
      known: whether the images of the target views are.
    """

    name: str
    example: Example
    world: np.ndarray
    frame: Frame
    known: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """Distances at which rays start and end."""
        return float(self.example.near[0]), float(self.example.far[0])

    @property
    def context(self) -> tuple[Camera, np.ndarray]:
        """Cameras [v] of the context views in the coordinates of the source, and their images [v, h, w, 3]."""
        return self._views("context")

    @property
    def targets(self) -> tuple[Camera, np.ndarray]:
        """The same of the target views [t]; the first is the one that is sampled."""
        return self._views("target")

    @property
    def first_context(self) -> Camera:
        return _first(self.context[0])

    @property
    def first_target(self) -> Camera:
        return _first(self.targets[0])

    def _views(self, kind: str) -> tuple[Camera, np.ndarray]:
        views = jax.tree.map(lambda x: np.asarray(x)[0], getattr(self.example, kind))
        valid = views.valid.astype(bool)
        poses = self.world[0] @ np.asarray(views.camera.camera_to_world, np.float64)[valid]
        return Camera(poses, np.asarray(views.camera.intrinsics, np.float64)[valid]), views.images[valid]


def scenes_of_data_set(
    example: Example, names: Sequence[str], world: np.ndarray, frames: Sequence[Frame]
) -> list[Source]:
    """The scenes of an evaluation example [s], with their `world` [s, 4, 4] and `frame` each."""
    part = lambda i: jax.tree.map(lambda x: np.asarray(x)[i : i + 1], example)
    return [
        Source(f"{i + 1}: {name}", part(i), world[i : i + 1], frames[i], known=True) for i, name in enumerate(names)
    ]


def joined(*cameras: Camera) -> Camera:
    """Cameras [k] of several groups of them."""
    parts = [(each.camera_to_world, each.intrinsics) for each in cameras]
    return Camera(*(np.concatenate(x) for x in zip(*parts, strict=True)))


def _first(cameras: Camera) -> Camera:
    return Camera(cameras.camera_to_world[0], cameras.intrinsics[0])
