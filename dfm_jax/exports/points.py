"""Points on the surfaces that a scene's renderings agree on, and `.ply` files of them.

Letters: `n` samples, `k` cameras, `h w` pixels, `p` points.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import plyfile

from dfm_jax.exports.protocol import Frame
from dfm_jax.exports.renderings import SOLID, NothingOpaque, SceneViews, agreements, back_projected
from dfm_jax.runs.output_folders import writing_file

UNCERTAINTY, DEPTH_UNCERTAINTY = "uncertainty", "depth_uncertainty"  # properties in files, beside the usual ones
MOST = 200_000  # points of a file; more are merged
GROWTH = 1.1  # of voxels, in which points are merged, until few enough are left


@dataclasses.dataclass(frozen=True)
class Points:
    """In the coordinates of a scene or, once `in_source`, of its source."""

    positions: np.ndarray  # [p, 3]
    normals: np.ndarray  # [p, 3] unit length, towards the cameras that see them
    colours: np.ndarray  # [p, 3] in [0, 1]
    # Over the samples of the scene, at the pixels that show the points; 0 where there is one sample.
    uncertainty: np.ndarray  # [p] standard deviation of the colour, in [0, 1]
    depth_uncertainty: np.ndarray  # [p] standard deviation of the distance

    def __len__(self) -> int:
        return len(self.positions)

    def in_source(self, frame: Frame) -> "Points":
        turn = frame.to_source[:3, :3]
        return dataclasses.replace(
            self,
            positions=self.positions @ turn.T + frame.to_source[:3, 3],
            normals=self.normals @ (turn / frame.scale).T,
            depth_uncertainty=self.depth_uncertainty * frame.scale,
        )


def surface_points(views: SceneViews, over_samples: bool) -> Points:
    """One point a pixel that is opaque and whose surface another camera sees as well; those that are closer to each
    other than pixels are merged. Where no two cameras agree, all opaque pixels have points.

    Args:
      over_samples: whether to render all samples of the scene, for uncertainties; 0 if not.
    """
    images, cameras = views.images, views.cameras
    positions = back_projected(np.asarray(images.surface_depth(), np.float64), cameras)
    solid = images.opacity > SOLID
    seen = agreements(positions[solid], images, cameras).sum(0) > 1  # by the camera that it was made of, too
    kept = solid.copy()
    if seen.any():
        kept[solid] = seen
    spread, depth_spread = _over_samples(views) if over_samples else np.zeros((2, *solid.shape))
    columns = [positions, _normals(positions, cameras.camera_to_world), images.rgb]
    flat = np.concatenate([*columns, spread[..., None], depth_spread[..., None]], axis=-1)[kept]
    if len(flat):
        flat, _ = merged(flat, float(np.median(pixel_widths(views)[kept])), MOST)
    lengths = np.linalg.norm(flat[:, 3:6], axis=-1, keepdims=True)
    return Points(flat[:, :3], flat[:, 3:6] / lengths.clip(1e-9), flat[:, 6:9], flat[:, 9], flat[:, 10])


def write(views: SceneViews, path: Path) -> dict[str, Any]:
    """Writes a `.ply` in the coordinates of the source; returns how many points it has, and their mean uncertainty.

    Raises:
      UserError: nothing in the scene is opaque, or the file cannot be written.
    """
    points = surface_points(views, over_samples=True).in_source(views.scene.frame)
    if not len(points):
        raise NothingOpaque(f"{path.name} was not written: nothing in the scene is opaque, so it has no points")
    with writing_file(path) as unfinished:
        write_ply(points, views.scene.frame, unfinished)
    return {"points": len(points), "samples": max(1, len(views.samples)), UNCERTAINTY: float(points.uncertainty.mean())}


def write_ply(points: Points, frame: Frame, path: Path) -> None:
    """Writes points in the coordinates of the source."""
    columns = {axis: points.positions[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"n{axis}": points.normals[:, i] for i, axis in enumerate("xyz")}
    bytes_ = np.round(255 * points.colours.clip(0, 1)).astype(np.uint8)
    columns |= {colour: bytes_[:, i] for i, colour in enumerate(("red", "green", "blue"))}
    columns |= {UNCERTAINTY: points.uncertainty, DEPTH_UNCERTAINTY: points.depth_uncertainty}
    kind = [(name, "u1" if column.dtype == np.uint8 else "f4") for name, column in columns.items()]
    vertices = np.empty(len(points), kind)
    for name, column in columns.items():
        vertices[name] = column
    comments = [f"dfm_jax: frame {frame.name}, {frame.scale:.9g} of its units in one of the model"]
    plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], comments=comments).write(str(path))


def _over_samples(views: SceneViews) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations [k, h, w] of colours (root mean square of the three) and of distances over the samples."""
    images = [sample.images for sample in views.samples or [views]]
    colours = np.stack([each.rgb for each in images]).std(0)
    distances = np.stack([each.depth_before(views.scene.bounds[1]) for each in images]).std(0)
    return np.sqrt((colours**2).mean(-1)), distances


def _normals(positions: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Of the surface through points [k, h, w, 3] that neighbouring pixels show; 0 where these are alone."""
    normals = np.cross(_to_nearer_neighbour(positions, 1), _to_nearer_neighbour(positions, 2))
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True).clip(1e-12)
    towards = poses[:, None, None, :3, 3] - positions
    return normals * np.where((normals * towards).sum(-1, keepdims=True) < 0, -1.0, 1.0)


def _to_nearer_neighbour(positions: np.ndarray, axis: int) -> np.ndarray:
    """The step [k, h, w, 3] from each pixel's point along an axis of the picture: to the next pixel's or from the last
    one's, whichever is shorter, since the other may be on another surface."""
    steps = np.diff(positions, axis=axis)
    ends = [(0, 0)] * 4
    ends[axis] = (1, 1)
    steps = np.pad(steps, ends, constant_values=np.inf)
    before, after = (np.take(steps, range(first, first + positions.shape[axis]), axis) for first in (0, 1))
    lengths = [(step**2).sum(-1, keepdims=True) for step in (before, after)]
    return np.where(np.isfinite(np.minimum(*lengths)), np.where(lengths[0] < lengths[1], before, after), 0.0)


def pixel_widths(views: SceneViews) -> np.ndarray:
    """[k, h, w] how wide a pixel is on the surface that it shows."""
    return np.asarray(views.images.surface_depth()) / (views.cameras.intrinsics[:, 0, 0, None, None] * views.side)


def merged(rows: np.ndarray, width: float, most: int) -> tuple[np.ndarray, float]:
    """Means of rows [p, c], which start with positions, over voxels of a `width` or, while there are more than `most`,
    of wider ones; and the width that these have."""
    lowest = rows[:, :3].min(0)
    while True:
        cells = np.floor((rows[:, :3] - lowest) / width).astype(np.int64)
        _, index, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
        if len(count) <= most:
            break
        width *= GROWTH
    sums = np.stack([np.bincount(index.reshape(-1), column) for column in rows.T], axis=-1)
    return sums / count[:, None], width
