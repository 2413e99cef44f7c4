"""LLFF's captures (Fern, Flower, ..., and what its scripts made of one's own), one or many:

    .../<capture>/poses_bounds.npy       [pictures, 17]: a 3x5 matrix row by row, then the nearest and farthest depth
    .../<capture>/images/...             the pictures in the order of their names; or scaled copies in images_2, _4, _8

The matrix holds camera-to-world with axes down, right and back, and a column of height, width and focal length, in
pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.source_files import REDUCED
from dfm_jax.data.loading.text_files import as_text
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.errors import Rejected

CAMERAS = "poses_bounds.npy"
OPENCV_FROM_LLFF = np.array([[0.0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]])  # from axes down, right, back


class LLFFSource(posed_photos.Captures):
    wanted = CAMERAS

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        return CAMERAS in names

    def _read(self, name: str, folder: Path) -> SourceScene:
        pictures = _pictures(folder)
        try:
            cameras = posed_photos.read_array(folder / CAMERAS)
            pictures = _pictures(folder, len(cameras) if cameras.ndim else 0)
            _check(folder, cameras, len(pictures))
        except Rejected as reason:
            raise refused(str(reason), (), pictures) from reason

        def photo(name: str, camera: np.ndarray) -> Photo:
            matrix, (near, far) = camera[:15].reshape(3, 5), camera[15:]
            height, width, focal = matrix[:, 4]
            k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
            return Photo(
                name,
                source_files.find_picture(self._root, folder, name),
                posed_photos.rigid(matrix[:, :4]) @ OPENCV_FROM_LLFF,
                posed_photos.lens_from_pixels(k, (width, height)),
                (width, height),
                depths=(near, far),
            )

        photos, rejected = posed_photos.read_each(dict(zip(pictures, cameras, strict=True)), photo)
        return captures.make_scene(name, photos, rejected, {}, self._background, listed=pictures)


def _pictures(folder: Path, count: int | None = None) -> list[str]:
    """Of the largest of the folders that there are, in the order of the cameras; one with `count` pictures, where there
    is one."""
    places = ("images", *(f"images_{factor}" for factor in REDUCED))
    found = [[f"{place}/{name}" for name in source_files.pictures_in(folder / place)] for place in places]
    there = list(filter(None, found)) or [[]]
    return next((names for names in there if len(names) == count), there[0])


def _check(folder: Path, cameras: np.ndarray, pictures: int) -> None:
    """
    Raises:
      Rejected: the cameras are not [pictures, 17], one a picture.
    """
    if cameras.ndim != 2 or cameras.shape[1] != 17:
        raise Rejected(f"{CAMERAS} has shape {list(cameras.shape)}, not [pictures, 17]")
    if len(cameras) != pictures:
        raise Rejected(
            f"{CAMERAS} has {len(cameras)} cameras and the pictures of {as_text(folder.name)} are {pictures}: which "
            "belong together cannot be told"
        )
