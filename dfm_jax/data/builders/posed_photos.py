"""What importers share whose sources state a camera for each picture: reading one frame after the other, and the usual
ways to write poses and lenses."""

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from dfm_jax.data.builders import source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.pictures.pictures import Colour
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # camera axes; x right, y up, z back are those of OpenGL

T = TypeVar("T")


def read_each(frames: Mapping[str, T], make: Callable[[str, T], Photo]) -> tuple[list[Photo], list[tuple[str, str]]]:
    """The photos that can be made of frames, by name, and names of the others with reasons."""
    photos, rejected = [], []
    for name, frame in frames.items():
        try:
            photos.append(make(name, frame))
        except Rejected as reason:
            rejected.append((name, str(reason)))
    return photos, rejected


def numbers(words: Iterable[str], count: int, what: str) -> np.ndarray:
    """[count] float64.

    Raises:
      Rejected: they are not as many numbers.
    """
    words = list(words)
    if len(words) != count:
        raise Rejected(f"{what} has {len(words)} numbers, not {count}")
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise Rejected(f"{what}: {error}") from error


def rigid(matrix: np.ndarray) -> np.ndarray:
    """[4, 4] from a pose of three or four rows.

    Raises:
      Rejected: a fourth row is not 0 0 0 1.
    """
    last = np.array([[0.0, 0.0, 0.0, 1.0]])
    if len(matrix) == 4 and not np.array_equal(matrix[3:], last):
        raise Rejected("last row of the pose is not 0 0 0 1")
    return np.concatenate([matrix[:3], last])


def from_world_to_camera(matrix: np.ndarray) -> np.ndarray:
    """The camera-to-world pose [4, 4] of a world-to-camera one [3 or 4, 4] that turns and moves: whether it does, is
    checked with the other cameras."""
    inverse = rigid(matrix)
    inverse[:3, 3] = -inverse[:3, :3].T @ inverse[:3, 3]
    inverse[:3, :3] = inverse[:3, :3].T
    return inverse


def lens_from_pixels(k: np.ndarray, size: Sequence[float]) -> Lens:
    """Of a matrix K [3, 3], in pixels of a picture of a `size` (width, height).

    Raises:
      Rejected: it is no camera's.
    """
    width, height = size
    if not (width >= 1 and height >= 1):
        raise Rejected(f"camera is for {width:g}x{height:g} pixels")
    if (k[2] != [0, 0, 1]).any() or k[1, 0]:
        raise Rejected("K is not upper triangular with a last row of 0 0 1")
    return Lens((k[0, 0] / width, k[1, 1] / height), (k[0, 2] / width, k[1, 2] / height), skew=k[0, 1] / width)


def from_quaternion(wxyz: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] of a quaternion of any length, its real part first; not finite where that is 0."""
    with np.errstate(all="ignore"):
        w, x, y, z = wxyz / np.linalg.norm(wxyz)
        return np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )


def read_array(path: Path, mapped: bool = False) -> np.ndarray:
    """The array of numbers in a .npy file; `mapped`: left on disk, and read where it is looked at.

    Raises:
      Rejected: it is missing or damaged, or holds anything else.
    """
    if not os.path.isfile(path):
        raise Rejected(f"{path.name} is missing, or no file")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)  # so that no damaged size asks for memory
    except Exception as error:  # of as many kinds as there are damages
        raise Rejected(f"{path.name} cannot be read ({str(error)[:200] or type(error).__name__})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise Rejected(f"{path.name} holds no array of numbers")
    return array if mapped else array.astype(np.float64)


class Captures:
    """A source of captures that are a folder each, all of them training scenes."""

    wanted: str  # what is looked for, for a person

    def __init__(self, root: Path, background: Colour | None):
        self._root, self._background = root, background

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {"train": list(self._scenes)}

    def read(self, split: str, name: str) -> SourceScene:
        del split  # there is one
        return self._read(name, self._scenes[name])

    @functools.cached_property
    def _scenes(self) -> dict[str, Path]:
        return source_files.scenes_in(self._root, self._is_capture, self.wanted)

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        """Whether a folder, with files of these names, is one."""
        raise NotImplementedError

    def _read(self, name: str, folder: Path) -> SourceScene:
        raise NotImplementedError
