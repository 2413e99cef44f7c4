"""MVSNet's captures, as DTU's test scenes, BlendedMVS and Tanks and Temples are handed round, one or many:

    .../<capture>/cams/00000000_cam.txt       a camera; also in cams_1
    .../<capture>/images/00000000.jpg         its picture; or in blended_images, whose *_masked.jpg are passed over

A camera file holds `extrinsic` and the 4x4 world-to-camera pose with OpenCV axes, `intrinsic` and the 3x3 matrix K in
pixels of the picture, and a line of the nearest depth, the step between depths and, in some, their number and the
farthest depth; or of the nearest and the farthest depth.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.pictures.pictures import read_header
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.errors import Rejected

FOLDERS, PICTURES = ("cams", "cams_1"), ("images", "blended_images", "image")
SUFFIX, MASKED = "_cam.txt", "_masked"


class MVSNetSource(posed_photos.Captures):
    wanted = f"folder cams with *{SUFFIX}"

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        return any(_cameras(folder / place) for place in FOLDERS)

    def _read(self, name: str, folder: Path) -> SourceScene:
        cameras = next(filter(_cameras, (folder / place for place in FOLDERS)))
        pictures = next((place for place in PICTURES if source_files.pictures_in(folder / place)), PICTURES[0])

        def photo(name: str, stem: str) -> Photo:
            path = source_files.find_picture(self._root, folder, f"{pictures}/{name}")
            pose, k, depths = _camera(cameras / f"{stem}{SUFFIX}")
            size = read_header(path).size
            return Photo(name, path, pose, posed_photos.lens_from_pixels(k, size), size, depths=depths)

        frames = _frames(cameras, folder / pictures)
        photos, rejected = posed_photos.read_each(frames, photo)
        attributes = {"pictures": pictures}
        return captures.make_scene(name, photos, rejected, attributes, self._background, listed=list(frames))


def _cameras(folder: Path) -> list[str]:
    """Stems of the cameras in a folder."""
    return source_files.stems_in(folder, SUFFIX)


def _frames(cameras: Path, pictures: Path) -> dict[str, str]:
    names = (name for name in source_files.pictures_in(pictures) if not Path(name).stem.endswith(MASKED))
    return source_files.views_of(names, _cameras(cameras), ".jpg")


def _camera(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[float, float] | None]:
    """Camera-to-world [4, 4], K [3, 3], and the nearest and farthest depth, if they are stated."""
    words = source_files.read_words(path)
    if words[:1] != ["extrinsic"] or words[17:18] != ["intrinsic"]:
        raise Rejected(f"{path.name} is not 'extrinsic' and 16 numbers, then 'intrinsic' and 9")
    pose = posed_photos.from_world_to_camera(posed_photos.numbers(words[1:17], 16, path.name).reshape(4, 4))
    k = posed_photos.numbers(words[18:27], 9, path.name).reshape(3, 3)
    return pose, k, _depths(posed_photos.numbers(words[27:], len(words[27:]), path.name))


def _depths(stated: np.ndarray) -> tuple[float, float] | None:
    """From the nearest depth, the step, and perhaps the number of steps and the farthest depth; or the nearest and the
    farthest: no step is as large as the nearest depth."""
    if len(stated) < 2 or (len(stated) == 2 and stated[1] <= stated[0]):
        return None
    near, step = stated[:2]
    far = near + step * (stated[2] - 1) if len(stated) == 3 else stated[-1]
    return (near, far) if math.isfinite(near + far) else None
