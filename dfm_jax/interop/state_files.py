"""Files of arrays that others wrote (`.pt`, `.pth`, `.safetensors`, `.npz`), and writing the first and the third.

Such files are untrusted: none runs code when it is read. Of a `.pt` torch unpickles tensors and plain values only; an
`.npz` is read without pickles. `.pt` needs torch (the extra `convert`); the others do not.

Numbers stored with half the bits (float16, bfloat16) are read as float32.
"""

import logging
import os
import pathlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.runs.array_files import read_arrays
from dfm_jax.runs.output_folders import writing_file

Tree = Mapping[str, Any]  # arrays, plain values, and mappings of such
TORCH = (".pt", ".pth")
SAFETENSORS = ".safetensors"
NPZ = ".npz"
SUFFIXES = (*TORCH, SAFETENSORS, NPZ)
HALF = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16), np.dtype("V2"))
WRAPPERS = ("module", "_orig_mod")

logger = logging.getLogger(__name__)


class StateFileError(UserError):
    """A file that cannot be read as what its name says it is, or that is refused."""


def read_tree(path: str | os.PathLike) -> dict[str, Any]:
    """All that a file holds.

    Of a `.pt`, dicts stay dicts, tensors become numpy arrays (backed by the file where it allows it) and plain values
    stay. In an `.npz`, a name 'a/b' means 'b' in a dict 'a'.

    Raises:
      StateFileError: there is no such file, it is damaged or of another kind than its name says, it holds what could
        run code, or torch is needed and not installed.
    """
    path = pathlib.Path(path).expanduser()
    readers = dict.fromkeys(TORCH, _read_torch) | {SAFETENSORS: _read_safetensors, NPZ: _read_npz}
    if path.suffix not in SUFFIXES:
        raise StateFileError(f"{path}: files of arrays that can be read are {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise StateFileError(f"there is no file {path}")
    tree = readers[path.suffix](path)
    if not isinstance(tree, Mapping) or not tree:
        raise StateFileError(f"{path} holds no arrays by name")
    return _widened(tree)


def _widened(tree: Any) -> Any:
    """With every array of float16 or bfloat16 as float32. An `.npz` stores bfloat16 as two bytes without a meaning."""
    if isinstance(tree, Mapping):
        return {name: _widened(value) for name, value in tree.items()}
    if not isinstance(tree, np.ndarray) or tree.dtype not in HALF:
        return tree
    return (tree.view(ml_dtypes.bfloat16) if tree.dtype.kind == "V" else tree).astype(np.float32)


def precision(array: np.ndarray) -> float:
    """Largest relative error of the numbers of a float array by the way they were stored: of those that all have a
    value in float16 or bfloat16, that of the type; else 0."""
    wide = np.asarray(array, np.float32)
    with np.errstate(over="ignore"):
        stored_as = [t for t in (ml_dtypes.bfloat16, np.float16) if np.array_equal(wide, wide.astype(t).astype("f4"))]
    return float(ml_dtypes.finfo(stored_as[0]).eps) if stored_as else 0.0


def without_wrappers(state: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Arrays by their names without the parts that torch adds to those of a wrapped model: 'module.' where it was
    trained on several devices, '_orig_mod.' where it was compiled. What is taken off is said.

    Raises:
      StateFileError: two names would be the same.
    """
    kept = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in state}
    if len(set(kept.values())) < len(kept):
        raise StateFileError(f"{where} has arrays whose names differ by {' or '.join(WRAPPERS)} only: which are meant?")
    found = [f"'{part}.'" for part in WRAPPERS if any(part in name.split(".") for name in state)]
    if found:
        logger.warning("%s: %s is taken off the names of its arrays", where, " and ".join(found))
    return {kept[name]: value for name, value in state.items()}


def read_state(path: str | os.PathLike, part: str = "") -> dict[str, np.ndarray]:
    """The arrays of a file by name: of one that holds nothing else, or of its dict `part`.

    Raises:
      StateFileError: as `read_tree`; or the part is not there; or there is more than arrays by name.
    """
    tree = read_tree(path)
    if part:
        if not isinstance(tree.get(part), Mapping):
            raise StateFileError(f"{path} has no part '{part}', only: {', '.join(map(str, tree))}")
        tree = dict(tree[part])
    others = [str(name) for name, value in tree.items() if not isinstance(value, np.ndarray)]
    if others:
        raise StateFileError(f"{path} was to hold arrays by name, and also has: {', '.join(others)}")
    return without_wrappers({str(name): array for name, array in tree.items()}, str(path))


def write_tree(path: str | os.PathLike, tree: Tree) -> None:
    """Writes a `.pt` (nested dicts of arrays and plain values) or a `.safetensors` (arrays by name), whole or not at
    all. An array that occurs more than once is stored once in a `.pt`.

    Raises:
      UserError: the file exists or cannot be written, its kind is not one of these, or torch is needed and not
        installed.
    """
    path = pathlib.Path(path)
    writers = dict.fromkeys(TORCH, _write_torch) | {SAFETENSORS: _write_safetensors}
    if path.suffix not in writers:
        raise StateFileError(f"{path}: files of arrays that can be written are {', '.join(writers)}")
    if path.exists():
        raise StateFileError(f"{path} exists already: remove it, or choose another name")
    with writing_file(path) as unfinished:
        writers[path.suffix](unfinished, tree)


# --- .pt


def _torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise StateFileError(
            f"reading {path} needs the library torch: pip install -e '.[convert]' (.safetensors does without)"
        ) from error
    return torch


def _read_torch(path: pathlib.Path) -> Any:
    torch = _torch(path)
    zipped = zipfile.is_zipfile(path)  # since torch 1.6
    try:
        if zipped:
            _check_sums(path)  # torch itself does not
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        return _from_torch(torch, loaded, path.stat().st_size)
    except pickle.UnpicklingError as error:
        # Torch's own text advises to read the file unsafely.
        found = re.search(r"GLOBAL (\S+)", str(error))
        if found:
            raise StateFileError(
                f"{path} is refused: beside arrays and plain values it has a call of '{found[1]}', made when it is read"
            ) from error
        raise StateFileError(f"{path} is damaged, or holds more than arrays and plain values: not read") from error
    except StateFileError:
        raise
    except Exception as error:  # a damaged file makes torch raise nearly anything
        raise _damaged(path, error) from error


def _check_sums(path: pathlib.Path) -> None:
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise zipfile.BadZipFile(f"wrong checksum of '{damaged}'")


def _from_torch(torch: Any, value: Any, file_size: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _from_torch(torch, item, file_size) for name, item in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if value.nbytes > file_size:  # by a stride of 0: nothing to be copied by accident
        raise ValueError(f"a tensor of shape {tuple(value.shape)} in a file of {file_size} bytes")
    value = value.detach()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()  # numpy itself has no bfloat16


def _write_torch(path: pathlib.Path, tree: Tree) -> None:
    torch = _torch(path)
    tensors = {}

    def convert(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: convert(item) for name, item in value.items()}
        if isinstance(value, np.ndarray):
            return tensors.setdefault(id(value), torch.from_numpy(value))
        return value

    torch.save(convert(tree), path)


# --- .safetensors


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error


def _write_safetensors(path: pathlib.Path, tree: Tree) -> None:
    import safetensors.numpy

    safetensors.numpy.save_file(dict(tree), path)


# --- .npz


def _read_npz(path: pathlib.Path) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    try:
        arrays = read_arrays(path)
    except UserError as error:
        raise StateFileError(str(error)) from error
    try:
        for name, array in arrays.items():
            *parents, last = name.split("/")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            if isinstance(place, np.ndarray) or last in place:
                raise ValueError(f"'{name}' is there twice")
            place[last] = array
    except (ValueError, AttributeError) as error:
        raise _damaged(path, error) from error
    return tree


def _damaged(path: pathlib.Path, error: Exception) -> StateFileError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return StateFileError(f"{path} is damaged, or is no {path.suffix} file: {reason}")
