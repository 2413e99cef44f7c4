"""Reads COLMAP's sparse models, binary and text: `cameras`, `images` and, where there are any, `points3D`.

Files come from anywhere, cut off and damaged too: no count is believed before the file is seen to hold as much, and
whatever does not read is one `Rejected` with the file's name.

Poses are world-to-camera with OpenCV axes, as a unit quaternion (w x y z) and a translation. The centre of the first
pixel is (0.5, 0.5).
"""

import dataclasses
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from dfm_jax.data.builders.source_files import read_file
from dfm_jax.data.loading import text_files
from dfm_jax.errors import Rejected

# By number in binary files: name, and how many parameters follow.
CAMERA_MODELS = (
    ("SIMPLE_PINHOLE", 3),
    ("PINHOLE", 4),
    ("SIMPLE_RADIAL", 4),
    ("RADIAL", 5),
    ("OPENCV", 8),
    ("OPENCV_FISHEYE", 8),
    ("FULL_OPENCV", 12),
    ("FOV", 5),
    ("SIMPLE_RADIAL_FISHEYE", 4),
    ("RADIAL_FISHEYE", 5),
    ("THIN_PRISM_FISHEYE", 12),
    ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
    ("SIMPLE_DIVISION", 4),
    ("DIVISION", 5),
    ("SIMPLE_FISHEYE", 3),
    ("FISHEYE", 4),
    ("EUCM", 6),
    ("EQUIRECTANGULAR", 2),
)
OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
NO_POINT = -1


@dataclasses.dataclass(frozen=True)
class Camera:
    model: str
    width: int
    height: int
    params: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Image:
    name: str  # path below the folder of images
    camera: int
    quaternion: tuple[float, ...]  # w x y z
    translation: tuple[float, ...]
    points: np.ndarray  # [n] int64 ids of the points that it saw


@dataclasses.dataclass(frozen=True)
class Model:
    cameras: dict[int, Camera]
    images: list[Image]
    point_ids: np.ndarray  # [p] int64, ascending
    points: np.ndarray  # [p, 3]

    def seen_by(self, image: Image) -> np.ndarray:
        """The points [n, 3] that an image saw, of those that the model has."""
        if not len(self.point_ids):
            return np.empty((0, 3))
        place = np.searchsorted(self.point_ids, image.points).clip(max=len(self.point_ids) - 1)
        return self.points[place[self.point_ids[place] == image.points]]


def bends(camera: Camera) -> bool:
    """Whether straight lines are bent in its pictures."""
    num_pinhole = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4, "SIMPLE_RADIAL": 3, "RADIAL": 3}.get(camera.model, 4)
    return "FISHEYE" in camera.model or any(camera.params[num_pinhole:])


def is_model(names: list[str]) -> bool:
    """Whether a folder with files of these names holds a model."""
    return any({f"cameras{suffix}", f"images{suffix}"} <= set(names) for suffix in (".bin", ".txt"))


def read_model(folder: Path) -> Model:
    """The model in a folder; of both, the binary one.

    Raises:
      Rejected: a file of it is damaged.
    """
    suffix = ".bin" if (folder / "cameras.bin").is_file() and (folder / "images.bin").is_file() else ".txt"
    readers = BINARY if suffix == ".bin" else TEXT
    cameras = dict(_read(folder / f"cameras{suffix}", readers["cameras"]))
    images = list(_read(folder / f"images{suffix}", readers["images"]))
    path = folder / f"points3D{suffix}"
    points = dict(_read(path, readers["points3D"])) if path.is_file() else {}
    ids = np.array(sorted(points), np.int64)
    return Model(cameras, images, ids, np.array([points[i] for i in ids.tolist()], np.float64).reshape(-1, 3))


def _read(path: Path, reader: Callable[[bytes], Iterator]) -> list:
    content = read_file(path)
    try:
        return list(reader(content))
    except (ValueError, IndexError, OverflowError, struct.error) as error:
        raise Rejected(f"{path.name} cannot be read: {error}") from error


class _Bytes:
    """A binary file, read from front to back, never beyond its end."""

    def __init__(self, content: bytes):
        self._data = content
        self._at = 0

    def take(self, layout: str) -> tuple:
        return struct.unpack_from(f"<{layout}", self._data, self._advance(struct.calcsize(f"<{layout}")))

    def count(self, least: int) -> int:
        """A count of things that take `least` bytes or more each."""
        (count,) = self.take("Q")
        if count * least > len(self._data) - self._at:
            raise ValueError(f"{count} entries are announced at byte {self._at - 8} of {len(self._data)}")
        return count

    def array(self, count: int, kind: np.dtype) -> np.ndarray:
        return np.frombuffer(self._data, kind, count, self._advance(count * kind.itemsize))

    def text(self) -> str:
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ValueError(f"a name at byte {self._at} does not end")
        start = self._advance(end + 1 - self._at)
        return self._data[start:end].decode("utf-8", "surrogateescape")

    def finish(self) -> None:
        if self._at < len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes are left over")

    def _advance(self, size: int) -> int:
        start, end = self._at, self._at + size
        if end > len(self._data):
            raise ValueError(f"it ends at byte {len(self._data)}, in the middle of an entry")
        self._at = end
        return start


def _binary_cameras(content: bytes) -> Iterator[tuple[int, Camera]]:
    file = _Bytes(content)
    for _ in range(file.count(24)):
        number, model, width, height = file.take("iiQQ")
        if not 0 <= model < len(CAMERA_MODELS):
            raise ValueError(f"camera model number {model} is not known")
        name, num_params = CAMERA_MODELS[model]
        yield number, Camera(name, width, height, file.take(f"{num_params}d"))
    file.finish()


def _binary_images(content: bytes) -> Iterator[Image]:
    file = _Bytes(content)
    for _ in range(file.count(73)):
        _, *pose, camera = file.take("I7dI")
        name = file.text()
        points = file.array(file.count(OBSERVATION.itemsize), OBSERVATION)["point"]
        yield Image(name, camera, tuple(pose[:4]), tuple(pose[4:]), points[points != NO_POINT])
    file.finish()


def _binary_points(content: bytes) -> Iterator[tuple[int, tuple[float, ...]]]:
    file = _Bytes(content)
    for _ in range(file.count(51)):
        number, *position = file.take("q3d3x8x")
        file.take(f"{8 * file.count(8)}x")
        yield number, tuple(position)
    file.finish()


def _lines(content: bytes) -> Iterator[str]:
    """Lines without comments. Empty ones count: an image without points has one."""
    for line in text_files.lines(content, "surrogateescape"):
        if not line.startswith("#"):
            yield line.strip()


def _text_cameras(content: bytes) -> Iterator[tuple[int, Camera]]:
    for line in filter(None, _lines(content)):
        number, model, width, height, *params = line.split()
        if dict(CAMERA_MODELS).get(model, len(params)) != len(params):
            raise ValueError(f"camera {number} has {len(params)} parameters, unlike a {model}")
        size = int(np.uint64(int(width))), int(np.uint64(int(height)))  # as large as in a binary file
        yield int(number), Camera(model, *size, tuple(map(float, params)))


def _text_images(content: bytes) -> Iterator[Image]:
    lines = _lines(content)
    for line in lines:
        if not line:
            continue
        _, *pose, camera, name = line.split(maxsplit=9)
        numbers = tuple(map(float, pose))
        seen = next(lines, "").split()
        if len(numbers) != 7 or len(seen) % 3:
            raise ValueError(f"image {name} is incomplete")
        points = np.array([int(point) for point in seen[2::3]], np.int64)
        yield Image(name, int(camera), numbers[:4], numbers[4:], points[points != NO_POINT])


def _text_points(content: bytes) -> Iterator[tuple[int, tuple[float, ...]]]:
    for line in filter(None, _lines(content)):
        number, x, y, z, _ = line.split(maxsplit=4)
        yield int(np.int64(int(number))), (float(x), float(y), float(z))  # as large as in a binary file


BINARY = {"cameras": _binary_cameras, "images": _binary_images, "points3D": _binary_points}
TEXT = {"cameras": _text_cameras, "images": _text_images, "points3D": _text_points}
