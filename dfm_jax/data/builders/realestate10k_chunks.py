"""RealEstate10K as it is shared for pixelSplat and its successors: some hundred files of some dozen clips each.

    <split>/<number>.torch   a list of {key, url, timestamps [n], cameras [n, 18], images: n tensors of JPEG bytes}
    <split>/index.json       {key: file}; without it every file is read once more, to see what is in it

Cameras are the columns of a camera file but for the timestamp. Reading them needs PyTorch, whose loader is told to
accept nothing but tensors and plain containers: a file cannot make it run code.
"""

import dataclasses
import functools
import importlib.util
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import realestate10k_cameras
from dfm_jax.data.builders.realestate10k_cameras import MISSING
from dfm_jax.data.builders.source_files import is_hidden
from dfm_jax.data.loading import text_files
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.errors import Rejected, UserError

INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class ChunkClip:
    folder: Path
    chunk: str  # a file's name
    key: str
    named: tuple[str, ...] = ()  # of the first clip of a chunk: all that the index names of it


def list_clips(folder: Path) -> list[ChunkClip]:
    """Clips of the chunks in a folder, in a fixed order, those of a chunk side by side.

    A chunk that cannot be read gives one clip that stands for it.

    Raises:
      UserError: PyTorch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(f"reading the .torch files of {folder} needs PyTorch: pip install 'dfm_jax[convert]'")
    keys = _read_index(folder)
    for file in sorted(path for path in folder.glob("*.torch") if not is_hidden(path.name)):
        if file.name not in keys:
            entries = _entries(file)
            keys[file.name] = [file.stem] if isinstance(entries, str) else list(entries)
    clips = []
    for file in sorted(keys):
        first, *others = named = sorted(keys[file])
        clips += [ChunkClip(folder, file, first, tuple(named)), *(ChunkClip(folder, file, key) for key in others)]
    return clips


def read(clip: ChunkClip, name: str) -> SourceScene:
    """One clip, as the scene of that name.

    Raises:
      Rejected: the chunk cannot be read, or is not as its index says.
    """
    if Path(clip.chunk).name != clip.chunk or not os.path.isfile(clip.folder / clip.chunk):
        raise Rejected(f"no file {clip.chunk[:100]} beside {INDEX}, which names it", counted_as=MISSING)
    entries = _entries(clip.folder / clip.chunk)
    if isinstance(entries, str):
        raise Rejected(entries)
    if clip.key not in entries:
        raise Rejected(f"{clip.chunk} has no clip {clip.key}, although {INDEX} says so")
    timestamps, cameras, images = _columns(entries[clip.key])
    rows = np.concatenate([timestamps[:, None], cameras], axis=1)
    accepted, rejected, listed = [], [], []
    for i in np.argsort(timestamps, kind="stable").tolist():
        try:
            realestate10k_cameras.check(rows[i])
        except ValueError as reason:
            rejected.append((f"frame {i}", f"camera {reason}"))
            listed.append((i, f"frame {i}"))
        else:
            accepted.append(realestate10k_cameras.frame(rows[i], functools.partial(_load, images[i]), number=i))
            listed.append((i, accepted[-1].name))
    if clip.named:  # what no clip asks for has to be listed somewhere
        rejected += _unnamed(entries, clip.named)
    attributes = {"url": str(entries[clip.key].get("url", "")), "chunk": clip.chunk}
    return SourceScene(name, accepted, rejected, attributes, listed=listed)


def _unnamed(entries: dict[str, dict[str, Any]], named: Sequence[str]) -> list[tuple[str, str]]:
    """Frames of the clips of a chunk that its index does not name, with the reason that they are not taken."""
    rejected = []
    for key in sorted(entries.keys() - set(named)):
        try:
            count = len(_columns(entries[key])[2])
        except Rejected:
            count = 1
        rejected += [(f"{key} frame {i}", f"{INDEX} does not name its clip") for i in range(count)]
    return rejected


def _columns(entry: Any) -> tuple[np.ndarray, np.ndarray, Sequence[Any]]:
    """Timestamps [n], cameras [n, 18] and n images of a clip."""
    try:
        cameras, timestamps = np.asarray(entry["cameras"], np.float64), np.asarray(entry["timestamps"], np.float64)
        images = entry["images"]
        shapes = timestamps.shape, cameras.shape, (len(images),)
    except KeyError as error:
        raise Rejected(f"clip lacks {error}") from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise Rejected(f"clip cannot be understood ({error})") from error
    frames = len(timestamps) if timestamps.ndim == 1 else 0
    if shapes != ((frames,), (frames, realestate10k_cameras.COLUMNS - 1), (frames,)):
        raise Rejected("clip's timestamps, cameras and images have shapes " + ", ".join(map(str, shapes)))
    return timestamps, cameras, images


def _load(image: Any) -> bytes:
    try:
        return np.asarray(image, np.uint8).tobytes()
    except (TypeError, ValueError, RuntimeError) as error:
        raise Rejected(f"image is no tensor of bytes ({error})") from error


def _read_index(folder: Path) -> dict[str, list[str]]:
    """Keys by the name of their file, as a folder's index has them; empty where there is no index of use."""
    try:
        index = text_files.parse_json((folder / INDEX).read_bytes())
        keys: dict[str, list[str]] = {}
        for key, file in index.items():
            keys.setdefault(str(file), []).append(key)
    except (OSError, ValueError, AttributeError):
        return {}
    return keys


def _entries(file: Path) -> dict[str, dict[str, Any]] | str:
    """Clips of a chunk by key; or why there are none."""
    stat = file.stat()
    return _load_chunk(file, (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=1)  # a chunk takes some hundred megabytes
def _load_chunk(file: Path, version: tuple[int, int]) -> dict[str, dict[str, Any]] | str:
    del version  # another makes it another file
    import torch  # an extra, and slow to import

    try:
        clips = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # its text advises to run what is in the file
        return f"{file.name} cannot be read (it is damaged, or holds more than tensors)"
    except Exception as error:  # of many kinds, depending on where the file ends
        return (
            f"{file.name} cannot be read ({str(error).splitlines()[0][:200] if str(error) else type(error).__name__})"
        )
    if not isinstance(clips, list):
        return f"{file.name} is not a list of clips"
    entries = {}
    for i, clip in enumerate(clips):
        key = clip.get("key") if isinstance(clip, dict) else None
        entries[key if isinstance(key, str) else f"{file.stem}-{i}"] = clip
    return entries
