"""What exports need of a scene, and how its coordinates lie in those of its source."""

import dataclasses
from typing import Any, Literal, Protocol

import numpy as np

from dfm_jax.structs import Camera, RenderedViews


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where a scene's coordinates lie in those that its source had before it became a data set.

    Attributes:
      name: 'source': `to_source` undoes what preparing did; 'dataset': what it did is not known, and exports lie in the
        coordinates of the data set; 'first_camera': of a photograph, its camera is the origin, with OpenCV axes.
      to_source: [4, 4] a similarity: from the scene's coordinates (those that `render` takes cameras in).
    """

    name: Literal["source", "first_camera", "dataset"] = "dataset"
    to_source: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(4))

    @property
    def scale(self) -> float:
        """Source units in one unit of the scene."""
        return float(np.cbrt(np.linalg.det(self.to_source[:3, :3])))


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

    def render(self, camera: Camera, height: Any = None, width: Any = None) -> RenderedViews: ...
