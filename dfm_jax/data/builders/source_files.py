"""Finding pictures and other files of a source, and naming what is found."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfm_jax.data.builders.source import Rejected
from dfm_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def read_file(path: Path) -> bytes:
    """Raises:
    Rejected: it cannot be read, or is no ordinary file: reading a pipe might never end.
    """
    if not os.path.isfile(path):
        raise Rejected(f"{path.name} is missing, or no file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read ({error})") from error


def find_picture(root: Path, folder: Path, name: str) -> Path:
    """The file that a source calls `name`, relative to `folder`, with or without its suffix.

    Raises:
      Rejected: it is missing, or not below `root`: what a file lists must not reach the rest of the disk.
    """
    path = Path(os.path.normpath(folder.absolute() / name))
    if Path(os.path.normpath(root.absolute())) not in path.parents:
        raise Rejected("image path leads out of the source")
    for candidate in (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)):
        if os.path.isfile(candidate):  # False, too, for names that no file can have
            return candidate
    raise Rejected("image is missing")


def natural_key(name: str) -> list[Any]:
    """Sorts r_2 before r_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at or below `root` with its files' names; sorted, following links but not in circles.

    Raises:
      UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"--source={root} is not a folder")
    seen = set()
    for parent, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort(key=natural_key)
        yield Path(parent), sorted(files)


def scene_name(root: Path, folder: Path) -> str:
    """'a-b' for root/a/b, and the root's own name for itself."""
    parts = folder.relative_to(root).parts or (root.resolve().name,)
    return as_text("-".join(parts))


def as_text(name: str) -> str:
    """A name on disk, which need not be text."""
    return name.encode("utf-8", "replace").decode()
