"""What browsers have written: below one folder, never over anything that is there."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from dfm_jax.errors import UserError
from dfm_jax.runs.output_folders import check_room, reporting_write_errors

MAX_FILES = 1000  # in the folder


def written(folder: Path, name: str, write: Callable[[Path], object]) -> Path:
    """Has `write` make a file (or folder) of this name, whole or not at all, and returns where it is: in `folder`, with
    a number where there is one of this name already.

    Raises:
      UserError: it cannot be written, or there are too many files.
    """
    check_room(folder)
    if len(os.listdir(folder)) >= MAX_FILES:
        raise UserError(f"there are {MAX_FILES} files in {folder}: move some away")
    with (
        reporting_write_errors(folder, "what was there stays"),
        tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as made,
    ):
        unfinished = Path(made) / name
        write(unfinished)
        path = free_path(folder, name)
        unfinished.rename(path)
    return path


def free_path(folder: Path, name: str) -> Path:
    """Where nothing is yet: `name`, or `name-2`, ..."""
    path, number = folder / name, 1
    while path.exists():
        number += 1
        path = folder / f"{Path(name).stem}-{number}{Path(name).suffix}"
    return path
