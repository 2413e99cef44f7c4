"""`transforms.json`, as instant-ngp, nerfstudio and Blender's NeRF scenes have it, one capture or many:

    .../<capture>/transforms.json                       one split: train
    .../<capture>/transforms_{train,val,test}.json      Blender: a split each
    .../<capture>/<file_path>                           the pictures; file_path may lack its suffix, and of `images`
                                                        there may only be reduced copies, `images_2`, `_4` or `_8`

A file lists frames of `file_path` and `transform_matrix`: camera-to-world with OpenGL axes (x right, y up, z back).
Intrinsics are those of the frame or else of the file: `fl_x fl_y cx cy w h` in pixels, a 3x3 matrix `K`, or
`camera_angle_x` and `camera_angle_y` in radians, and a lens: `k1 k2 k3 k4 p1 p2`, `camera_model`, `is_fisheye`. What
nerfstudio did to the poses (`applied_transform`, `applied_scale`) is undone. The file may say which frames are trained
on, see `transforms_splits`. Masks (`mask_path`) are read where they are asked for; depth maps are not.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import captures, masks, point_clouds, source_files, transforms_cameras, transforms_splits
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.posed_photos import OPENCV_FROM_OPENGL
from dfm_jax.data.loading import text_files
from dfm_jax.data.loading.source_frames import TO_SOURCE, is_similarity
from dfm_jax.data.pictures import pictures
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.errors import Rejected, UserError

WHOLE = "transforms.json"
Captures = dict[str, dict[str, Path]]  # files by split, by capture
FILES = {
    WHOLE: "train",
    "transforms_train.json": "train",
    "transforms_val.json": "validation",
    "transforms_test.json": "test",
}


class TransformsSource:
    def __init__(
        self,
        root: Path,
        background: pictures.Colour | None,
        masked: bool = False,
        find: Callable[[Path], Captures] | None = None,
    ):
        """
        Args:
          root: a folder, or one such file.
          masked: masks are read, and needed where there is a background.
          find: gives the captures at or below a root; None: whatever has such a file.
        """
        self._root, self._background, self._masked, self._find = root, background, masked, find or find_captures

    def splits(self) -> Mapping[str, Sequence[str]]:
        splits: dict[str, list[str]] = {}
        for name, files in self._captures.items():
            for split in files:
                splits.setdefault(split, []).append(name)
        return splits

    def read(self, split: str, name: str) -> SourceScene:
        files = self._captures[name]
        content = source_files.read_object(files[split])
        photos, rejected, listed = self._photos(files[split], content)
        others, names = [], set(listed)
        for other in sorted(files.keys() - {split}):
            try:
                others_photos, _, others_listed = self._photos(files[other], source_files.read_object(files[other]))
            except Rejected:  # reported as the scene of its own split
                continue
            others += others_photos
            names.update(others_listed)
        try:
            splits = transforms_splits.read(content if split == "train" else {}, listed)
        except Rejected as reason:
            raise refused(str(reason), rejected, (photo.name for photo in photos)) from reason
        rejected += [(photo.name, splits.unused[photo.name]) for photo in photos if photo.name in splits.unused]
        cloud, problems = self._cloud(files[split].parent, content)
        scene = captures.make_scene(
            name,
            [photo for photo in photos if photo.name not in splits.unused],
            rejected,
            {"file": files[split].name, **splits.attributes},
            self._background,
            object_alone=bool(photos) and pictures.stands_alone(photos[0].path),
            others=others,
            listed=listed,
            cloud=cloud,
        )
        held_out = {text_files.as_text(name): held_out for name, held_out in splits.held_out.items()}
        return dataclasses.replace(
            scene,
            scale=scene.scale / _applied_scale(content),
            attributes={**scene.attributes, **_to_file(content, scene.scale)},
            frames=[dataclasses.replace(frame, held_out=held_out.get(frame.name)) for frame in scene.frames],
            warnings=[
                *scene.warnings,
                *splits.warnings,
                *transforms_cameras.contradictions(content),
                *problems,
                *point_clouds.unused(cloud, scene),
                *_unread(files[split], names),
            ],
        )

    def _photos(self, file: Path, content: Mapping[str, Any]) -> tuple[list[Photo], list[tuple[str, str]], list[str]]:
        """The photos of a file, the frames that are none with reasons, and the names of all in the file's order."""
        photos, rejected, listed = [], [], []
        frames = content.get("frames")
        if not isinstance(frames, list):
            raise Rejected(f"{file.name} has no list of frames")
        try:
            undo = _undo_applied(content)
        except Rejected as reason:
            raise refused(str(reason), [], map(_name, frames, range(len(frames)))) from reason
        masks_in = file.parent if self._masked and any(map(has_mask, frames)) else None
        for number, frame in enumerate(frames):
            name = _name(frame, number)
            try:
                needed = self._background is not None
                photo = read_photo(self._folder, file.parent, frame, content, masks_in, needed)
                photos.append(dataclasses.replace(photo, camera_to_world=undo(photo.camera_to_world)))
            except Rejected as reason:
                rejected.append((name, str(reason)))
            listed.append(name)
        return photos, rejected, listed

    def _cloud(self, folder: Path, content: Mapping[str, Any]) -> tuple[np.ndarray | None, list[str]]:
        """Sparse points [p, 3] in the world in which the capture was reconstructed, and what is wrong with them."""
        named = content.get("ply_file_path")
        if isinstance(named, str) and named:
            path = Path(os.path.normpath(folder.absolute() / transforms_splits.frame_name(named)))
            if Path(os.path.normpath(self._folder.absolute())) not in path.parents:
                return None, ["the bounds are without sparse points: ply_file_path leads out of the source"]
            cloud, problems = point_clouds.read_or_warn(path)
        else:
            cloud, problems = point_clouds.beside(folder)
        if cloud is None:
            return None, problems
        to_source, scale = np.linalg.inv(_applied(content)), _applied_scale(content)
        return cloud / scale @ to_source[:3, :3].T + to_source[:3, 3], problems

    @property
    def _folder(self) -> Path:
        return self._root.parent if self._root.is_file() else self._root

    @functools.cached_property
    def _captures(self) -> Captures:
        if self._root.is_file():
            return {
                source_files.scene_name(self._folder, self._folder): {FILES.get(self._root.name, "train"): self._root}
            }
        return self._find(self._root)


def find_captures(root: Path) -> Captures:
    found: list[tuple[str, dict[str, Path]]] = []
    for folder, names in source_files.folders(root):
        files = {split: folder / name for name, split in FILES.items() if name in names}
        if files:
            found.append((source_files.scene_name(root, folder), files))
    if not found:
        raise UserError(f"no {', '.join(FILES)} was found at or below --source={root}")
    return source_files.distinct(found)


def read_photo(
    root: Path,
    folder: Path,
    frame: Any,
    content: Mapping[str, Any],
    masks_in: Path | None = None,
    mask_needed: bool = True,
) -> Photo:
    """A frame of a file, in the file's world.

    Args:
      folder: what `file_path` starts from; below `root`.
      masks_in: what `mask_path` starts from; None: masks are not read.
      mask_needed: whether a frame without one is none.

    Raises:
      Rejected: its picture is missing, or it has no camera.
    """
    if not _has_name(frame):
        raise Rejected("frame has no file_path")
    name = transforms_splits.frame_name(frame["file_path"])
    path, reduced = source_files.find_scaled_picture(root, folder, name)
    pose = transforms_cameras.matrix(frame.get("transform_matrix"), "transform_matrix") @ OPENCV_FROM_OPENGL
    lens, size = transforms_cameras.lens_of(frame, content, path, reduced)
    mask = None
    if masks_in is not None and has_mask(frame):
        mask = masks.find(root, masks_in, transforms_splits.frame_name(frame["mask_path"]), mask_needed)
    elif masks_in is not None and mask_needed:
        raise Rejected("frame has no mask_path, where others have one")
    return Photo(name, path, pose, lens, size, mask=mask)


def has_mask(frame: Any) -> bool:
    return isinstance(frame, Mapping) and isinstance(frame.get("mask_path"), str)


def _unread(file: Path, names: Collection[str]) -> list[str]:
    """A warning, if beside a file of one split lies one of all frames that lists others than these."""
    whole = file.with_name(WHOLE)
    if file.name not in FILES or file.name == WHOLE or not whole.is_file():
        return []
    try:
        frames = source_files.read_object(whole).get("frames")
    except Rejected as reason:
        return [f"{WHOLE} is not read, since there are files of splits beside it: {reason}"]
    listed = [_name(frame, i) for i, frame in enumerate(frames)] if isinstance(frames, list) else []
    more = [name for name in listed if name not in names]
    some = f"{WHOLE} is not read, since there are files of splits beside it; it has {len(more)} frames more"
    return [f"{some}: {transforms_splits.some(more)}"] if more else []


def _has_name(frame: Any) -> bool:
    return isinstance(frame, Mapping) and isinstance(frame.get("file_path"), str)


def _name(frame: Any, number: int) -> str:
    return transforms_splits.frame_name(frame["file_path"]) if _has_name(frame) else f"frame {number}"


def _undo_applied(content: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """What takes a pose [4, 4] of the file back to the world in which it was reconstructed."""
    scale, inverse = _applied_scale(content), np.linalg.inv(_applied(content))

    def undo(pose: np.ndarray) -> np.ndarray:
        unscaled = pose.copy()
        unscaled[:3, 3] /= scale
        return inverse @ unscaled

    return undo


def _to_file(content: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """What takes a world that was reconstructed, undone and then made `scale` times as large back to the file's, where
    that is more than a scale."""
    applied = _applied(content)
    if np.array_equal(applied, np.eye(4)):
        return {}
    undone = applied @ np.diag([1 / scale, 1 / scale, 1 / scale, 1.0])
    undone[:3] *= _applied_scale(content)
    return {TO_SOURCE: undone.tolist() if is_similarity(undone) else None}


def _applied(content: Mapping[str, Any]) -> np.ndarray:
    applied = transforms_cameras.matrix(content.get("applied_transform", np.eye(4).tolist()), "applied_transform")
    if not (np.isfinite(applied).all() and abs(np.linalg.det(applied)) > 1e-9):
        raise Rejected("applied_transform cannot be undone")
    return applied


def _applied_scale(content: Mapping[str, Any]) -> float:
    scale = transforms_cameras.number(content.get("applied_scale", 1), "applied_scale")
    if not 0 < scale < math.inf:
        raise Rejected(f"applied_scale is {scale:g}")
    return scale
