"""What exports need of a scene, and how its coordinates lie in those of its source."""

import dataclasses
from typing import Any, Literal, Protocol

import numpy as np

from dfm_jax.structs import Camera, RenderedViews

NUM_VIEWS = 24  # of a scene, that exports are made of


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """Where a scene's coordinates lie in those that its source had before it became a data set.

    Attributes:
      name: 'source': `to_source` undoes what preparing did; 'dataset': what it did is not known, and exports lie in the
        coordinates of the data set; 'first_camera': the first photograph's camera is the origin, with OpenCV axes.
      to_source: [4, 4] a similarity: from the scene's coordinates (those that `render` takes cameras in).
    """

    name: Literal["source", "first_camera", "dataset"] = "dataset"
    to_source: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))

    @property
    def scale(self) -> float:
        """Source units in one unit of the scene."""
        return float(np.linalg.norm(self.to_source[:3, 0]))

    def pose_in_source(self, camera_to_world: np.ndarray) -> np.ndarray:
        """Poses [..., 4, 4] in the source's coordinates and units; their rotations stay rotations."""
        pose = self.to_source @ camera_to_world
        pose[..., :3, :3] /= self.scale
        return pose

    def __eq__(self, other: object) -> bool:
        same_name = isinstance(other, Frame) and self.name == other.name
        return same_name and np.array_equal(self.to_source, other.to_source)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "to_source": self.to_source.tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Frame":
        return cls(values["name"], np.array(values["to_source"], np.float64).reshape(4, 4))


class RenderableScene(Protocol):
    """Anything that renders: `dfm_jax.sampling.scenes.SampledScene`, or a made-up one in tests."""

    @property
    def context_camera(self) -> Camera: ...

    @property
    def target_camera(self) -> Camera: ...

    @property
    def bounds(self) -> tuple[float, float]: ...

    @property
    def frame(self) -> Frame: ...

    @property
    def pixel_grid(self) -> str: ...

    @property
    def image_size(self) -> int: ...

    @property
    def background(self) -> float | np.ndarray: ...

    @property
    def context_image(self) -> np.ndarray: ...

    def render(self, camera: Camera, height: Any = None, width: Any = None) -> RenderedViews: ...
