"""Results of one method as a file, so that a study that was interrupted goes on where it ended.

A file in `results/` has the pictures, 8 bits, and a record of numbers and of what they were made from. Each study names
its own: of methods by target, method, and numbers of evaluations and results; of causes by the family of the method and
a fingerprint of what it is made from; of unlike pictures by their kind, the method and its number of evaluations.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.runs.array_files import read_arrays
from dfm_jax.runs.output_folders import writing_file

FOLDER = "results"
RECORD, PICTURES = "record", "pictures"


def kept_or_made(
    path: Path, source: Mapping[str, Any], make: Callable[[], tuple[dict[str, Any], np.ndarray | None]]
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The numbers and the pictures in the file, if they were made from `source`; else those that `make` returns, which
    the file holds then.

    Args:
      source: what JSON can hold.
    """
    source = json.loads(json.dumps(source))
    found = _read(path)
    if found is not None and found[0]["made_from"] == source:
        return found[0]["numbers"], found[1]
    numbers, pictures = make()
    pictures = None if pictures is None else np.rint(255 * np.clip(pictures, 0, 1)).astype(np.uint8)
    text = json.dumps({"numbers": numbers, "made_from": source})
    arrays = {RECORD: np.frombuffer(text.encode(), np.uint8)} | ({} if pictures is None else {PICTURES: pictures})
    with writing_file(path) as unfinished, unfinished.open("wb") as opened:
        np.savez_compressed(opened, **arrays)
    return numbers, pictures


def _read(path: Path) -> tuple[dict[str, Any], np.ndarray | None] | None:
    """None where there is nothing that can be read: it is made again."""
    try:
        arrays = read_arrays(path)
        record = json.loads(arrays[RECORD].tobytes())
        return {name: record[name] for name in ("numbers", "made_from")}, arrays.get(PICTURES)
    except (UserError, KeyError, ValueError, TypeError):
        return None
