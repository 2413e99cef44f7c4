"""Features of many images, in a file: of a set of any size, no more is in memory than is computed with at a time."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float, Int

FEATURE = np.dtype(np.float32)


@dataclasses.dataclass(frozen=True)
class FeatureFile:
    """Vectors [n, d] of float32 in a `.npy` file, of which rows are read when they are asked for, as of an array."""

    path: Path
    shape: tuple[int, int]
    offset: int  # bytes before the first row

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | Int[np.ndarray, "m"]) -> Float[np.ndarray, "m d"]:
        """Some rows: those of a slice without a step, or those of these numbers."""
        width = self.shape[1]
        with self.path.open("rb") as file:
            if isinstance(rows, slice):
                start, stop, _ = rows.indices(len(self))
                file.seek(self.offset + start * width * FEATURE.itemsize)
                return np.fromfile(file, FEATURE, (stop - start) * width).reshape(stop - start, width)
            found = np.empty((len(rows), width), FEATURE)
            for place in np.argsort(rows):  # in the order of the file
                file.seek(self.offset + int(rows[place]) * width * FEATURE.itemsize)
                found[place] = np.fromfile(file, FEATURE, width)
            return found


def open_features(path: Path, count: int) -> FeatureFile | None:
    """The features of `count` images; None if there is no such file, or if it is another or was cut."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                return None
            shape, in_columns, dtype = np.lib.format.read_array_header_1_0(file)
            found = FeatureFile(path, shape, file.tell())
            whole = found.offset + int(np.prod(shape)) * FEATURE.itemsize == os.fstat(file.fileno()).st_size
    except (OSError, ValueError, EOFError):
        return None
    fits = len(shape) == 2 and shape[0] == count and not in_columns and dtype == FEATURE
    return found if fits and whole else None


@contextlib.contextmanager
def writing_features(path: Path) -> Iterator[Callable[[Float[np.ndarray, "_ d"]], None]]:
    """What is called with features, part after part. The file is there when the block has ended without an error.

    Raises:
      OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, shape = path.with_name(f".{path.name}.{os.getpid()}"), [0, 0]
    try:
        with unfinished.open("wb") as file:

            def write(part: np.ndarray) -> None:
                if not shape[0]:
                    shape[1] = part.shape[1]
                    _write_header(file, shape)  # which leaves room for the number of rows
                file.write(np.ascontiguousarray(part, FEATURE).data)
                shape[0] += len(part)

            yield write
            file.seek(0)
            _write_header(file, shape)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write_header(file: IO[bytes], shape: Sequence[int]) -> None:
    header = {"descr": FEATURE.str, "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)


def write_features(path: Path, parts: Iterable[Float[np.ndarray, "_ d"]], count: int) -> FeatureFile:
    """Writes the features of `count` images, part after part; the file is there when all of them are.

    Raises:
      ValueError: there are more or fewer.
      OSError: it cannot be written.
    """
    written = 0
    with writing_features(path) as write:
        for part in parts:
            write(part)
            written += len(part)
        if written != count:
            raise ValueError(f"{written} features of {count} images")
    return open_features(path, count)
