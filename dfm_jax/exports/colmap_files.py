"""COLMAP's binary files of a sparse model: `data/builders/colmap_model.py` and pycolmap read them.

Images are world-to-camera with OpenCV axes. The first pixel's centre is (0.5, 0.5).
"""

import dataclasses
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.exports.points import Points

PINHOLE = 1  # the number of that camera model: fx, fy, cx, cy
NO_ERROR = -1.0  # of reprojection: it was not computed


@dataclasses.dataclass(frozen=True)
class Image:
    name: str
    camera_to_world: np.ndarray  # [4, 4]
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in pixels
    places: np.ndarray  # [n, 2] pixels at which it sees points
    points: np.ndarray  # [n] which points these are


def write_model(folder: Path, images: Sequence[Image], side: int, points: Points) -> None:
    """Writes cameras.bin, images.bin and points3D.bin: a camera for each image of `side` pixels a side."""
    cameras = struct.pack("<Q", len(images))
    views = struct.pack("<Q", len(images))
    for number, image in enumerate(images, start=1):
        cameras += struct.pack("<iiQQ4d", number, PINHOLE, side, side, *image.intrinsics)
        world_to_camera = np.linalg.inv(image.camera_to_world)
        w, x, y, z = Rotation.from_matrix(world_to_camera[:3, :3]).as_quat(canonical=True, scalar_first=True)
        views += struct.pack("<I7dI", number, w, x, y, z, *world_to_camera[:3, 3], number)
        views += image.name.encode() + b"\0" + struct.pack("<Q", len(image.points)) + _observations(image)
    (folder / "cameras.bin").write_bytes(cameras)
    (folder / "images.bin").write_bytes(views)
    (folder / "points3D.bin").write_bytes(_points(images, points))


def _observations(image: Image) -> bytes:
    rows = np.empty(len(image.points), [("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
    rows["x"], rows["y"], rows["point"] = *image.places.T, image.points + 1
    return rows.tobytes()


def _points(images: Sequence[Image], points: Points) -> bytes:
    """Each with its track: (image, which of its observations)."""
    tracks: list[list[int]] = [[] for _ in range(len(points))]
    for number, image in enumerate(images, start=1):
        for observation, point in enumerate(image.points.tolist()):
            tracks[point] += [number, observation]
    colours = np.round(255 * points.colours.clip(0, 1)).astype(np.uint8).tolist()
    parts = [struct.pack("<Q", len(points))]
    for i, (position, colour, track) in enumerate(zip(points.positions.tolist(), colours, tracks, strict=True)):
        parts.append(struct.pack("<Q3d3Bd", i + 1, *position, *colour, NO_ERROR))
        parts.append(struct.pack(f"<Q{len(track)}I", len(track) // 2, *track))
    return b"".join(parts)
