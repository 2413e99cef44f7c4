"""Tells whether a source was changed since an interrupted conversion of it.

Pictures are many, and looking at each takes long on a network: they count by their folder, which changes when one is
added, removed or renamed. All other files count by their own size and time.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from dfm_jax.data.pictures.picture_kinds import SUFFIXES


def source_fingerprint(source: Path, data_dir: Path) -> str:
    """Of a file, or of all below a folder but what is hidden and, if it lies there, what a conversion to `data_dir`
    writes."""
    digest = hashlib.sha256()
    for name, *state in _states(source, data_dir.resolve()):
        digest.update(os.fsencode(f"{name}\0{state}\n"))
    return digest.hexdigest()


def _states(source: Path, data_dir: Path) -> Iterator[tuple[str, int, int]]:
    if source.is_file():
        yield _state(str(source), source)
    seen = set()
    for parent, folders, files in os.walk(source, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        if Path(real) == data_dir:
            continue
        yield _state(parent, Path(parent))
        for file in sorted(files):
            if not file.lower().endswith(SUFFIXES):
                yield _state(os.path.join(parent, file), Path(parent, file))


def _state(name: str, path: Path) -> tuple[str, int, int]:
    try:
        stat = path.stat()
    except OSError:  # a link to nowhere
        return name, 0, 0
    return name, stat.st_mtime_ns, 0 if path.is_dir() else stat.st_size
