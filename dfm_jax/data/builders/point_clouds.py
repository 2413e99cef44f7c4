"""Sparse points whose source does not say which cameras saw them: read from .ply files, and seen by their places."""

import os
from pathlib import Path

import numpy as np
import plyfile

from dfm_jax.data.preparing.bounds import MIN_POINTS
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.errors import Rejected

FILES = ("points3D.ply", "sparse_pc.ply", "points.ply")  # what tools call them, beside cameras
MOST = 50_000  # points that are looked at: enough for percentiles
CELLS = 32  # on each side of a picture, in which near points hide far ones
NEAREST, HIDDEN = 0.1, 1.25  # share of a cell that counts as nearest, and the factor beyond which that hides others
MARGIN = 0.25  # of the picture, by which a lens sees more than its pinhole camera


def read(path: Path) -> np.ndarray:
    """The points [p, 3] of a .ply file.

    Raises:
      Rejected: it is missing or damaged, or holds no points.
    """
    if not os.path.isfile(path):
        raise Rejected(f"{path.name} is missing")
    try:
        vertices = plyfile.PlyData.read(str(path))["vertex"]
        points = np.stack([np.asarray(vertices[axis], np.float64) for axis in "xyz"], axis=-1)
    except Exception as error:  # whatever the reader raises
        raise Rejected(f"{path.name} cannot be read ({str(error)[:200] or type(error).__name__})") from error
    if points.ndim != 2:
        raise Rejected(f"{path.name} has points of shape {points.shape[1:]}")
    return points


def thinned(points: np.ndarray) -> np.ndarray:
    """The finite ones of points [p, 3], or an even choice of MOST of them."""
    points = points[np.isfinite(points).all(-1)]
    return points[:: -(-len(points) // MOST) or 1]


def beside(folder: Path) -> tuple[np.ndarray | None, list[str]]:
    """Points of a file that lies in a folder of cameras, if there is one, and warnings about it."""
    for path in (folder / name for name in FILES):
        if os.path.isfile(path):
            return read_or_warn(path)
    return None, []


def read_or_warn(path: Path) -> tuple[np.ndarray | None, list[str]]:
    try:
        return read(path), []
    except Rejected as reason:
        return None, [f"the bounds are without sparse points: {reason}"]


def unused(cloud: np.ndarray | None, scene: SourceScene) -> list[str]:
    """A warning, where there are points, but too few in view to tell the bounds."""
    if cloud is None or len(cloud) < MIN_POINTS or scene.attributes["bounds"] == "points":
        return []
    return [f"too few of its {len(cloud)} sparse points are in view of its cameras: they do not count for the bounds"]


def in_view(points: np.ndarray, camera_to_world: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    """Those of points [p, 3] that a pinhole camera sees: within its picture, and not far behind what is in front."""
    ahead, places, distances = _project(points, camera_to_world, intrinsics)
    inside = ahead & ((places >= 0) & (places < 1)).all(-1)
    points, distances = points[inside], distances[inside]
    column, row = (CELLS * places[inside]).astype(int).T
    cells = CELLS * row + column
    order = np.lexsort((distances, cells))
    _, first, count = np.unique(cells[order], return_index=True, return_counts=True)
    nearest = distances[order][first + (NEAREST * count).astype(int)]
    return points[order][distances[order] <= np.repeat(HIDDEN * nearest, count)]


def are_its_own(points: np.ndarray, camera_to_world: np.ndarray, intrinsics: np.ndarray) -> bool:
    """Whether a camera can have seen points [p, 3] that it is said to have seen."""
    ahead, places, _ = _project(points, camera_to_world, intrinsics)
    inside = ahead & ((places > -MARGIN) & (places < 1 + MARGIN)).all(-1)
    return len(points) >= MIN_POINTS and bool(inside.mean() >= 0.5)


def _project(
    points: np.ndarray, camera_to_world: np.ndarray, intrinsics: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of points [p, 3] lie ahead, their places [p, 2] in the picture from 0 to 1, and their distances [p]."""
    with np.errstate(all="ignore"):  # absurd points lie nowhere
        rays = points - camera_to_world[:3, 3]
        in_camera = rays @ camera_to_world[:3, :3]
        ahead = in_camera[:, 2] > 0
        homogeneous = in_camera @ intrinsics.T
        places = homogeneous[:, :2] / np.where(ahead, homogeneous[:, 2], np.nan)[:, None]
        return ahead & np.isfinite(places).all(-1), places, np.linalg.norm(rays, axis=-1)
