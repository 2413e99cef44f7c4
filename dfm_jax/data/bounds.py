"""How far away a scene is: its typical depth, and the distances between which rays are worth following.

From what the source knows, best first:

- `points`: sparse points with the cameras that saw them (structure from motion). The typical depth is the median over
  cameras of the median distance; `near` and `far` are percentiles of all distances, with a margin.
- `focus`: cameras that look at one place. The typical depth is the median distance to it; `near` and `far` are fixed
  multiples of the smallest and the largest one, tighter for an object without surroundings.
- `extent`: cameras that look at nothing in common, for instance side by side. Their depth cannot be known from their
  poses; it is taken to be a fixed multiple of how far they spread.

Distances run along unit rays, in the units of the poses.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dfm_jax.data.builders.source import Rejected

TYPICAL_DEPTH = 4.0  # what every capture's typical depth is scaled to

POINT_PERCENTILES, CAMERA_PERCENTILES = (2, 98), (5, 95)  # of a camera's points, then of those among the cameras
POINT_MARGINS = (0.8, 1.2)
FOCUS_MARGINS = (0.3, 2.5)  # of a place with surroundings
OBJECT_MARGINS = (0.5, 1.5)  # of an object alone: the usual bounds of synthetic captures
EXTENT_DEPTH = 5.0  # spreads of the cameras
EXTENT_MARGINS = (0.2, 4.0)  # of the typical depth
LEAST_NEAR, MOST_FAR = 0.02, 12.0  # typical depths: samples on a ray are few, and a far mountain would take them all

MIN_POINTS = 10  # of a camera that counts
MIN_CONVERGENCE = np.sin(np.deg2rad(2)) ** 2  # mean squared sine between axes below which they count as parallel
MAX_MISS = np.deg2rad(25)  # median angle between an axis and the focus above which it is none
MIN_FACING = 0.9  # share of the cameras that must have the focus in front of them
MIN_SPREAD = 1e-9  # of camera positions, relative to their size


@dataclasses.dataclass(frozen=True)
class Bounds:
    depth: float  # typical distance of what is seen
    near: float
    far: float
    rule: str  # 'points', 'focus' or 'extent'


def scene_bounds(
    camera_to_world: np.ndarray, seen: Sequence[np.ndarray] | None = None, object_alone: bool = False
) -> Bounds:
    """Bounds of the scene that cameras with poses [v, 4, 4] see.

    Args:
      seen: for each camera the points [p, 3] that it saw; None if the source has no points.
      object_alone: whether there is nothing around what the cameras look at.

    Raises:
      Rejected: the cameras do not move, or the points contradict them.
    """
    positions = camera_to_world[:, :3, 3]
    size = max(1e-300, np.abs(positions).max())
    spread = _spread(positions)
    if not spread > MIN_SPREAD * size or not np.isfinite(spread):
        raise Rejected("all cameras are at one place: nothing can be told about depth")
    if seen is not None:
        distances = [_distances(*camera) for camera in zip(camera_to_world, seen, strict=True)]
        distances = [d for d in distances if len(d) >= MIN_POINTS]
        if 2 * len(distances) > len(camera_to_world):
            return _from_points(distances)
    to_focus = focus_distances(camera_to_world)
    if to_focus is not None:
        depth, margins = float(np.median(to_focus)), OBJECT_MARGINS if object_alone else FOCUS_MARGINS
        near, far = margins[0] * to_focus.min(), margins[1] * to_focus.max()
        return _limited(depth, near, far, "focus")
    depth = EXTENT_DEPTH * spread
    return Bounds(depth, EXTENT_MARGINS[0] * depth, EXTENT_MARGINS[1] * depth, "extent")


def focus_distances(camera_to_world: np.ndarray) -> np.ndarray | None:
    """Distances [v] to the place that cameras with poses [v, 4, 4] look at; None where they look at no one place."""
    positions, axes = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    focus = nearest_to_axes(camera_to_world)
    if focus is None:
        return None
    towards = focus - positions
    distance = np.linalg.norm(towards, axis=-1)
    ahead = (towards * axes).sum(-1)
    if (ahead > 0).mean() < MIN_FACING:
        return None
    miss = np.arccos(np.clip(ahead / np.maximum(distance, 1e-300), -1, 1))
    return distance if np.median(miss) < MAX_MISS else None


def nearest_to_axes(camera_to_world: np.ndarray) -> np.ndarray | None:
    """The point [3] nearest to all optical axes of poses [v, 4, 4], before or behind the cameras, in the sense of least
    squares; None where the axes are about parallel."""
    positions, axes = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # projects onto the plane that an axis is normal to
    normal = across.mean(0)
    if np.linalg.eigvalsh(normal)[0] < MIN_CONVERGENCE:
        return None
    return np.linalg.solve(normal, np.einsum("vij,vj->i", across, positions) / len(positions))


def _distances(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Of the points in front of a camera, which must be most of them."""
    rays = points - pose[:3, 3]
    ahead = rays @ pose[:3, 2] > 0
    if len(points) >= MIN_POINTS and ahead.mean() < 0.5:
        raise Rejected("most sparse points lie behind the cameras that are said to have seen them")
    return np.linalg.norm(rays[ahead], axis=-1)


def _from_points(distances: Sequence[np.ndarray]) -> Bounds:
    depth = float(np.median([np.median(d) for d in distances]))
    # Camera by camera, so that one with many points does not outvote the others.
    limits = np.array([np.percentile(d, POINT_PERCENTILES) for d in distances])
    near, far = (np.percentile(limit, p) for limit, p in zip(limits.T, CAMERA_PERCENTILES, strict=True))
    return _limited(depth, POINT_MARGINS[0] * near, POINT_MARGINS[1] * far, "points")


def _limited(depth: float, near: float, far: float, rule: str) -> Bounds:
    bounds = Bounds(depth, max(float(near), LEAST_NEAR * depth), min(float(far), MOST_FAR * depth), rule)
    if not (np.isfinite(bounds.far) and 0 < bounds.near < bounds.far):
        raise Rejected(f"no sensible bounds: near {bounds.near:.3g}, far {bounds.far:.3g}")
    return bounds


def _spread(positions: np.ndarray) -> float:
    """Root mean square distance of positions [v, 3] from their mean."""
    return float(np.sqrt(((positions - positions.mean(0)) ** 2).sum(-1).mean()))
