"""Features of many images, in a file: of a set of any size, no more is read at a time than is computed with."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Float

FEATURE = np.dtype(np.float32)


def open_features(path: Path, count: int) -> Float[np.ndarray, "n d"] | None:
    """The features of `count` images, mapped into memory: what is not read is not there. None if there is no such file,
    or if it is another or was cut."""
    try:
        found = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    fits = found.ndim == 2 and len(found) == count and found.flags.c_contiguous and found.dtype == FEATURE
    return found if fits else None


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


def write_features(path: Path, parts: Iterable[Float[np.ndarray, "_ d"]], count: int) -> Float[np.ndarray, "n d"]:
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
