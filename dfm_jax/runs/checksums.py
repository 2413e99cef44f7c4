"""Checksums of a checkpoint's files, saved beside them: what has changed since is found before it is used.

The file `checksums.json` of a checkpoint holds `{path: [bytes, CRC-32]}` of all files that hold arrays or settings. It
is written before the checkpoint becomes complete, and part of it.
"""

import json
import pathlib
import zlib
from collections.abc import Collection, Iterator

FILE = "checksums.json"
CHUNK = 2**20  # bytes read at once


def write(folder: pathlib.Path) -> None:
    """Adds the checksums of all items (folders) of a checkpoint."""
    sums = {path.relative_to(folder).as_posix(): _sum(path) for path in _files(folder)}
    (folder / FILE).write_text(json.dumps(sums, indent=0, sort_keys=True))


def problem(folder: pathlib.Path, items: Collection[str] | None = None) -> str | None:
    """What is wrong with a checkpoint, or with some of its items; None: nothing that can be told.

    Checkpoints without checksums (imported, or of earlier versions) cannot be told anything of.
    """
    try:
        if not (folder / FILE).exists():
            return None
        sums = json.loads((folder / FILE).read_text())
        for name, (size, checksum) in sums.items():
            if items is not None and name.split("/")[0] not in items:
                continue
            path = folder / name
            if not path.exists():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} bytes, not {size}"
            if _sum(path)[1] != checksum:
                return f"{name} has changed since it was saved (its checksum differs)"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return f"{folder / FILE} cannot be read ({error})"
    return None


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    items = (item for item in sorted(folder.iterdir()) if item.is_dir())
    return (path for item in items for path in sorted(item.rglob("*")) if path.is_file())


def _sum(path: pathlib.Path) -> tuple[int, int]:
    size, checksum = 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            size, checksum = size + len(chunk), zlib.crc32(chunk, checksum)
    return size, checksum
