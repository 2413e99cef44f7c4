"""How far away a scene is: its typical depth, and the distances between which rays are worth following.

From what the source knows, best first:

- `points`: sparse points with the cameras that saw them (structure from motion). The typical depth is the median over
  cameras of the median distance; `near` and `far` are percentiles of all distances, with a margin.
- `stated`: each camera's nearest and farthest distance, where the source says them. The typical depth is the median of
  their geometric means.
- `focus`: cameras that look at one place. The typical depth is the median distance to it; `near` and `far` are fixed
  multiples of the smallest and the largest one, tighter for an object without surroundings.
- `extent`: cameras that look at nothing in common, for instance side by side. Their depth cannot be known from their
  poses; it is taken to be a fixed multiple of how far they spread.

Distances run along unit rays, in the units of the poses.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from dfm_jax.data.preparing import outliers
from dfm_jax.errors import Rejected

TYPICAL_DEPTH = 4.0  # what every capture's typical depth is scaled to

POINT_PERCENTILES, CAMERA_PERCENTILES = (2, 98), (5, 95)  # of a camera's points, then of those among the cameras
POINT_MARGINS = (0.8, 1.2)
STATED_MARGINS = (0.9, 1.1)
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
CAMERA_FACTOR, POINT_FACTOR = 2.0, 3.0  # beyond what is usual, from which a distance is an outlier
MAX_STRAY = 0.02  # share of a camera's points, or one of them, that can be mistakes
ROBUST_STEPS, LEAST_OFFSET = 20, 1e-3  # of the focus that outliers do not move; of the depth, below which an axis hits
BEHIND = "most of the sparse points that it is said to have seen lie behind the camera"


@dataclasses.dataclass(frozen=True)
class Bounds:
    depth: float  # typical distance of what is seen
    near: float
    far: float
    rule: str  # 'points', 'stated', 'focus' or 'extent'
    outliers: Mapping[int, str] = dataclasses.field(default_factory=dict)  # cameras that had no say in it; why
    blind: frozenset[int] = frozenset()  # those outliers for which the scene lies before `near` or beyond `far`


@dataclasses.dataclass(frozen=True)
class _Outliers:
    """Cameras that are left out, `found` [v], for being at odd `distances` [v] from what is seen."""

    found: np.ndarray
    distances: np.ndarray
    reasons: Sequence[str]  # [v]


def scene_bounds(
    camera_to_world: np.ndarray, seen: Sequence[np.ndarray] | None = None, object_alone: bool = False
) -> Bounds:
    """Bounds of the scene that cameras with poses [v, 4, 4] see. Few cameras far from where most are have no say.

    Args:
      seen: for each camera the points [p, 3] that it saw; None if the source has no points.
      object_alone: whether there is nothing around what the cameras look at.

    Raises:
      Rejected: the cameras do not move, or the points contradict them.
    """
    positions = camera_to_world[:, :3, 3]
    far_off = _isolated(positions)
    if not _moves(positions[~far_off.found]) and not _moves(positions):
        raise Rejected("all cameras are at one place: nothing can be told about depth")
    if seen is not None:
        distances = [_distances(*camera) for camera in zip(camera_to_world, seen, strict=True)]
        if 2 * sum(d is None or len(d) >= MIN_POINTS for d in distances) > len(camera_to_world):
            return _from_points(distances, far_off)
    for candidates in (~far_off.found, np.ones(len(positions), bool)):
        off_focus = _focus_outliers(camera_to_world, candidates)
        to_focus = focus_distances(camera_to_world[~off_focus.found])
        if to_focus is not None:
            depth, margins = float(np.median(to_focus)), OBJECT_MARGINS if object_alone else FOCUS_MARGINS
            near, far = margins[0] * to_focus.min(), margins[1] * to_focus.max()
            return _limited(depth, near, far, "focus", off_focus)
    depth = EXTENT_DEPTH * _spread(positions[~far_off.found])
    return _limited(depth, EXTENT_MARGINS[0] * depth, EXTENT_MARGINS[1] * depth, "extent", far_off)


def stated_bounds(distances: Sequence[tuple[float, float]]) -> Bounds | None:
    """Bounds of the scene of cameras of which a source says how near and how far things are; those of which it says
    what cannot be do not count. None where no camera is left."""
    stated = np.array([pair for pair in distances if 0 < pair[0] < pair[1] < np.inf]).reshape(-1, 2)
    if not len(stated):
        return None
    near, far = np.percentile(stated[:, 0], CAMERA_PERCENTILES[0]), np.percentile(stated[:, 1], CAMERA_PERCENTILES[1])
    none = _Outliers(np.zeros(0, bool), np.zeros(0), [])
    depth = float(np.median(np.sqrt(stated.prod(-1))))
    return _limited(depth, STATED_MARGINS[0] * near, STATED_MARGINS[1] * far, "stated", none)


def _moves(positions: np.ndarray) -> bool:
    size = max(1e-300, np.abs(positions).max())
    return bool(MIN_SPREAD * size < _spread(positions) < np.inf)


def _isolated(positions: np.ndarray) -> _Outliers:
    """Cameras far from all others."""
    away = np.abs(positions - np.median(positions, axis=0)).max(-1)
    found = outliers.isolated(positions)
    farthest = max(away[~found].max(initial=0), 1e-300)
    reasons = [f"camera is {d / farthest:.3g} times as far from the middle of all cameras as the others" for d in away]
    return _Outliers(found, away, reasons)


def _focus_outliers(camera_to_world: np.ndarray, candidates: np.ndarray) -> _Outliers:
    """Cameras much farther from what `candidates` [v] look at than most, or much nearer to it."""
    focus = _robust_focus(camera_to_world[candidates])
    if focus is None:
        return _Outliers(~candidates, np.full(len(candidates), np.inf), [""] * len(candidates))
    to_focus = np.linalg.norm(camera_to_world[:, :3, 3] - focus, axis=-1)
    found = outliers.outlying(to_focus, CAMERA_FACTOR)
    usual = np.median(to_focus[~found])
    reasons = [f"camera is {d / usual:.3g} times as far from what the cameras look at as most" for d in to_focus]
    return _Outliers(found, to_focus, reasons)


def _robust_focus(camera_to_world: np.ndarray) -> np.ndarray | None:
    """The point [3] with the smallest sum of distances, not of their squares, from the optical axes."""
    weights = np.ones(len(camera_to_world))
    for _ in range(ROBUST_STEPS):
        focus = nearest_to_axes(camera_to_world, weights)
        if focus is None:
            return None
        towards = focus - camera_to_world[:, :3, 3]
        along = (towards * camera_to_world[:, :3, 2]).sum(-1, keepdims=True)
        offsets = np.linalg.norm(towards - along * camera_to_world[:, :3, 2], axis=-1)
        weights = 1 / np.maximum(offsets, LEAST_OFFSET * max(np.median(np.abs(along)), 1e-300))
    return focus


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


def nearest_to_axes(camera_to_world: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray | None:
    """The point [3] nearest to all optical axes of poses [v, 4, 4], before or behind the cameras, in the sense of least
    squares, with weights [v]; None where the axes are about parallel."""
    positions, axes = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]  # projects onto the plane that an axis is normal to
    if np.linalg.eigvalsh(across.mean(0))[0] < MIN_CONVERGENCE:
        return None
    if weights is not None:
        across = across * (weights / weights.mean())[:, None, None]
    return np.linalg.solve(across.mean(0), np.einsum("vij,vj->i", across, positions) / len(positions))


def _distances(pose: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """Of the points in front of a camera, without a few that lie nowhere near; None if most are behind it."""
    rays = points[np.isfinite(points).all(-1)] - pose[:3, 3]
    ahead = rays @ pose[:3, 2] > 0
    if len(rays) >= MIN_POINTS and ahead.mean() < 0.5:
        return None
    distances = np.linalg.norm(rays[ahead], axis=-1)
    distances = distances[np.isfinite(distances)]
    stray = outliers.outlying(distances, POINT_FACTOR)
    return distances[~stray] if stray.sum() <= max(1, MAX_STRAY * len(distances)) else distances


def _from_points(distances: Sequence[np.ndarray | None], far_off: _Outliers) -> Bounds:
    """From the distances [p] of what each camera saw. A camera that saw too little is judged by its place alone."""
    behind = np.array([d is None for d in distances])
    if behind.mean() > outliers.MAX_SHARE:
        raise Rejected("most sparse points lie behind the cameras that are said to have seen them")
    counted = np.array([d is not None and len(d) >= MIN_POINTS for d in distances])
    medians = np.array([np.median(d) if of_use else np.nan for d, of_use in zip(distances, counted, strict=True)])
    found = far_off.found & ~counted | behind
    found[counted] = outliers.outlying(medians[counted], CAMERA_FACTOR)
    kept = [distances[i] for i in np.flatnonzero(counted & ~found)]
    depth = float(np.median([np.median(d) for d in kept]))
    reasons = [
        f"what the camera saw is {medians[i] / depth:.3g} times as far away as for most"
        if counted[i]
        else BEHIND * bool(behind[i]) or far_off.reasons[i]
        for i in range(len(distances))
    ]
    # Camera by camera, so that one with many points does not outvote the others.
    limits = np.array([np.percentile(d, POINT_PERCENTILES) for d in kept])
    near, far = (np.percentile(limit, p) for limit, p in zip(limits.T, CAMERA_PERCENTILES, strict=True))
    measured = np.where(counted, medians, np.where(behind, np.inf, far_off.distances))
    odd = _Outliers(found, measured, reasons)
    return _limited(depth, POINT_MARGINS[0] * near, POINT_MARGINS[1] * far, "points", odd)


def _limited(depth: float, near: float, far: float, rule: str, odd: _Outliers) -> Bounds:
    near, far = max(float(near), LEAST_NEAR * depth), min(float(far), MOST_FAR * depth)
    if not (np.isfinite(far) and 0 < near < far):
        raise Rejected(f"no sensible bounds: near {near:.3g}, far {far:.3g}")
    found = np.flatnonzero(odd.found).tolist()
    blind = frozenset(i for i in found if not near <= odd.distances[i] <= far)
    return Bounds(depth, near, far, rule, {i: odd.reasons[i] for i in found}, blind)


def _spread(positions: np.ndarray) -> float:
    """Root mean square distance of positions [v, 3] from their mean."""
    return float(np.sqrt(((positions - positions.mean(0)) ** 2).sum(-1).mean()))
