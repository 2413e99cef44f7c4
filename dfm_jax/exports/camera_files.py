"""Folders of posed pictures that other programs train on: nerfstudio's `transforms.json`, and COLMAP's sparse model.

    images/view_000.png ...   of the context's camera, the target's, and others around what these look at
    frame.json                in which coordinates and units that is, and what each camera stands for

`transforms`: `transforms.json` with cameras of OpenGL axes, `points3D.ply`, and `depths/view_000.npy` in thousandths of
a unit, which is what nerfstudio takes depths to be in. `colmap`: `sparse/0/{cameras,images,points3D}.bin`.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.exports.colmap_files import Image, write_model
from dfm_jax.exports.points import surface_points, write_ply
from dfm_jax.exports.renderings import SOLID, SceneViews, agreements, back_projected, seen_at
from dfm_jax.runs.output_folders import check_ours, replacing
from dfm_jax.visualization.pictures import to_uint8, write_png

MARK = "frame.json"
TRANSFORMS = ("images", "depths", "points3D.ply", "transforms.json", MARK)
COLMAP = ("images", "sparse", MARK)
OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
MILLI = 1000.0  # of a unit, in which depths are


def write_transforms(views: SceneViews, folder: Path) -> dict[str, Any]:
    """Writes the folder that nerfstudio, splatfacto and `prepare --format=transforms` open; returns what is in it.

    Raises:
      UserError: something else is there, or it cannot be written.
    """
    frame, points = views.scene.frame, surface_points(views, over_samples=False)
    poses = frame.pose_in_source(views.cameras.camera_to_world) @ OPENCV_FROM_OPENGL
    with _replacing(folder, TRANSFORMS) as building:
        names = _write_pictures(views, building)
        content: dict[str, Any] = {"camera_model": "OPENCV", "w": views.side, "h": views.side}
        if len(points):
            write_ply(points.in_source(frame), frame, building / "points3D.ply")
            content["ply_file_path"] = "points3D.ply"
        content["frames"] = []
        (building / "depths").mkdir()
        for i, depth in enumerate(_depths_ahead(views)):
            depth_file = f"depths/{Path(names[i]).stem}.npy"
            np.save(building / depth_file, (MILLI * depth).astype(np.float32))
            intrinsics = dict(zip(("fl_x", "fl_y", "cx", "cy"), _in_pixels(views, i), strict=True))
            paths = {"file_path": f"images/{names[i]}", "depth_file_path": depth_file}
            content["frames"].append(paths | intrinsics | {"transform_matrix": poses[i].tolist()})
        _write_json(building / "transforms.json", content)
    return {"views": len(names), "points": len(points)}


def write_colmap(views: SceneViews, folder: Path) -> dict[str, Any]:
    """Writes the folder that COLMAP, 3DGS, gsplat and `prepare --format=colmap` open; returns what is in it.

    Raises:
      UserError: something else is there, or it cannot be written.
    """
    frame, points = views.scene.frame, surface_points(views, over_samples=False)
    seen = agreements(points.positions, views.images, views.cameras)
    poses = frame.pose_in_source(views.cameras.camera_to_world)
    with _replacing(folder, COLMAP) as building:
        names, images = _write_pictures(views, building), []
        for i, name in enumerate(names):
            camera = views.cameras.camera_to_world[i], views.cameras.intrinsics[i]
            _, places, _ = seen_at(points.positions[seen[i]], *camera, views.side)
            images.append(Image(name, poses[i], _in_pixels(views, i), places, np.flatnonzero(seen[i])))
        (building / "sparse" / "0").mkdir(parents=True)
        write_model(building / "sparse" / "0", images, views.side, points.in_source(frame))
    return {"views": len(names), "points": len(points)}


@contextlib.contextmanager
def _replacing(folder: Path, ours: Sequence[str]) -> Iterator[Path]:
    check_ours(folder, ours, MARK)
    with replacing(folder, ours, "exporting") as building:
        yield building


def _write_pictures(views: SceneViews, building: Path) -> list[str]:
    """Writes the pictures and `frame.json`; returns the names of the former."""
    (building / "images").mkdir()
    names = [f"view_{i:03d}.png" for i in range(len(views.images.rgb))]
    for name, image in zip(names, views.images.rgb, strict=True):
        write_png(building / "images" / name, to_uint8(image))
    frame, roles = views.scene.frame, ["context", "target", *["around"] * len(names)]
    about = frame.to_json() | {"scale": frame.scale, "bounds": [frame.scale * x for x in views.scene.bounds]}
    _write_json(building / MARK, about | {"views": dict(zip(names, roles, strict=False))})
    return names


def _depths_ahead(views: SceneViews) -> np.ndarray:
    """[k, h, w] distances along the optical axes, in units of the source; 0 where nothing opaque is."""
    distances = np.asarray(views.images.surface_depth(), np.float64)
    poses = views.cameras.camera_to_world
    rays = back_projected(distances, views.cameras) - poses[:, None, None, :3, 3]
    ahead = np.einsum("khwi,ki->khw", rays, poses[:, :3, 2])
    return np.where(views.images.opacity > SOLID, views.scene.frame.scale * ahead, 0.0)


def _in_pixels(views: SceneViews, i: int) -> tuple[float, float, float, float]:
    """Focal lengths and principal point of camera i; the first pixel's centre is (0.5, 0.5)."""
    return tuple((views.side * views.cameras.intrinsics[i][[0, 1, 0, 1], [0, 1, 2, 2]]).tolist())


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
