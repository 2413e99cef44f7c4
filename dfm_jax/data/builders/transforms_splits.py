"""What a `transforms.json` says about which of its frames are trained on.

    "train_filenames": [...], "val_filenames": [...], "test_filenames": [...]       as nerfstudio has them

Frames of the last two are held out. Frames that are in no list are trained on if there is no list of training frames,
are held out if there is no other list, and otherwise belong to nothing: they are rejected. Names need not be written as
those of the frames are: folders before them and suffixes may be lacking or be others, if only one frame is meant.
"""

import dataclasses
import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from dfm_jax.data.builders.source_files import SUFFIXES
from dfm_jax.errors import Rejected

TRAIN = "train_filenames"
HELD_OUT = {"val_filenames": "validation", "test_filenames": "test"}
NAMED = 3  # of several names in a warning


@dataclasses.dataclass(frozen=True)
class Splits:
    held_out: Mapping[str, bool]  # by frame; of the frames of a file without lists there is none
    unused: Mapping[str, str] = dataclasses.field(default_factory=dict)  # frames of no split, with reasons
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: Sequence[str] = ()


def frame_name(path: str) -> str:
    """A path as frames are named by it, also if it was written on Windows."""
    return os.path.normpath(path.replace("\\", "/"))


def read(content: Mapping[str, Any], frames: Sequence[str]) -> Splits:
    """The splits of frames of these names.

    Raises:
      Rejected: a list holds anything but names.
    """
    keys = [key for key in (TRAIN, *HELD_OUT) if content.get(key) is not None]
    if not keys:
        return Splits({})
    index, warnings, members = _index(frames), [], {}
    for key in keys:
        members[key], unknown = _members(content[key], key, index)
        if unknown:
            warnings.append(f"{key} has {len(unknown)} names that are of no one frame: {some(unknown)}")
    trained, compared = members.get(TRAIN), set().union(*(members[key] for key in keys if key != TRAIN))
    both = sorted((trained or set()) & compared)
    if trained and len(both) == len(trained):
        return Splits({}, warnings=[*warnings, f"all of {TRAIN} are also held out by other lists: none counts"])
    if both:
        warnings.append(f"{len(both)} of {TRAIN} are also in another list, and held out: {some(both)}")
    lists, held_out, unused = " nor ".join(keys), {}, {}
    for frame in frames:
        if frame in compared or trained is None or frame in trained:
            held_out[frame] = frame in compared
        elif len(keys) == 1:
            held_out[frame] = True
        else:
            unused[frame] = f"frame is neither in {lists}"
    by_split = {split: sorted(members[key]) for key, split in HELD_OUT.items() if key in members}
    return Splits(held_out, unused, {"held_out_by": ", ".join(keys), "file_splits": by_split}, warnings)


def _members(listed: Any, key: str, index: Mapping[str, Sequence[str]]) -> tuple[set[str], list[str]]:
    """Frames that are listed, and names that are of no one frame."""
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise Rejected(f"{key} is no list of names")
    members, unknown = set(), []
    for name in map(frame_name, listed):
        parts = _parts(name)
        alike = [frame for frame in index.get(parts[-1], ()) if _end_alike(_parts(frame), parts)]
        alike = [frame for frame in alike if frame == name] or [f for f in alike if _parts(f) == parts] or alike
        if len(set(alike)) == 1:
            members.add(alike[0])
        else:
            unknown.append(name)
    return members, unknown


def _index(frames: Sequence[str]) -> dict[str, list[str]]:
    """Frames by the last part of their names."""
    index: dict[str, list[str]] = {}
    for frame in frames:
        index.setdefault(_parts(frame)[-1], []).append(frame)
    return index


def _parts(name: str) -> tuple[str, ...]:
    """Of a path, however its letters are composed and cased, without the suffix of a picture."""
    *folders, last = unicodedata.normalize("NFC", name).casefold().split("/")
    stem, suffix = os.path.splitext(last)
    return (*folders, stem if suffix in SUFFIXES else last)


def _end_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    length = min(len(a), len(b))
    return a[-length:] == b[-length:]


def some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
