"""Record3D's recordings, as the app exports them (an unpacked .r3d, or 'EXR + RGB'), one or many:

    .../<recording>/metadata, or metadata.json      the cameras of all pictures
    .../<recording>/rgbd/0.jpg, or rgb/0.jpg        the pictures, by their numbers

The metadata hold `poses`, [qx, qy, qz, qw, x, y, z] each: camera-to-world in ARKit's world (y up), with OpenGL axes;
`K`, column by column, or `perFrameIntrinsicCoeffs`, [fx, fy, cx, cy] each, in pixels of a picture of `w` times `h`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.posed_photos import OPENCV_FROM_OPENGL
from dfm_jax.data.builders.transforms_cameras import number, vector
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.errors import Rejected

METADATA, PICTURES = ("metadata", "metadata.json"), ("rgbd", "rgb")


class Record3DSource(posed_photos.Captures):
    wanted = "unpacked recording (metadata and rgbd; a .r3d file is a zip archive: unpack it)"

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        return any(name in names for name in METADATA) and any((folder / place).is_dir() for place in PICTURES)

    def _read(self, name: str, folder: Path) -> SourceScene:
        place = next((place for place in PICTURES if source_files.pictures_in(folder / place)), PICTURES[0])
        pictures = source_files.pictures_in(folder / place)
        try:
            metadata = source_files.read_object(folder / next(n for n in METADATA if (folder / n).exists()))
            poses, size = _list(metadata, "poses"), (number(metadata.get("w"), "w"), number(metadata.get("h"), "h"))
        except Rejected as reason:
            raise refused(str(reason), (), pictures) from reason

        def photo(name: str, stem: str) -> Photo:
            path = source_files.find_picture(self._root, folder / place, name)
            index = int(stem) if stem.isdecimal() else len(poses)
            if index >= len(poses):
                raise Rejected(f"metadata has no pose for it, only {len(poses)}")
            lens = posed_photos.lens_from_pixels(_matrix(metadata, index), size)
            return Photo(name, path, _pose(poses[index]), lens, size)

        frames = source_files.views_of(pictures, map(str, range(len(poses))), ".jpg")
        photos, rejected = posed_photos.read_each(frames, photo)
        return captures.make_scene(name, photos, rejected, {}, self._background, listed=list(frames))


def _list(metadata: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(metadata.get(key), list):
        raise Rejected(f"metadata has no list of {key}")
    return metadata[key]


def _matrix(metadata: Mapping[str, Any], index: int) -> np.ndarray:
    """K [3, 3] of a picture; its own, where the focus moved."""
    own = metadata.get("perFrameIntrinsicCoeffs")
    if isinstance(own, list) and index < len(own):
        fx, fy, cx, cy = vector(own[index], 4, "perFrameIntrinsicCoeffs")
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return vector(metadata.get("K"), 9, "K").reshape(3, 3).T


def _pose(values: Any) -> np.ndarray:
    x, y, z, w, *position = vector(values, 7, "pose")
    rotation = posed_photos.from_quaternion(np.array([w, x, y, z]))
    return posed_photos.rigid(np.column_stack([rotation, position])) @ OPENCV_FROM_OPENGL
