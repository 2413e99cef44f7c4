"""Fingerprints of what a result was made from: parameters, files and data sets.

What lies on disk from before is continued, or compared, only if its fingerprints are those of now: names, places and
training steps may be the same of things that are not.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

DIGITS = 16  # of a fingerprint, hexadecimal: enough to tell apart what nobody forges
LONGEST_VALUE = 40  # letters of a setting in a message
UNKNOWN = "(unknown)"


def of_arrays(tree: Any) -> str:
    """Of a tree of arrays: their paths, types, shapes and every bit of them, whatever devices they lie on.

    Arrays are fetched one at a time; of those that several processes hold parts of, none can be.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(jax.device_get(leaf))
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        digest.update(f"{name}\0{array.dtype}\0{np.shape(leaf)}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8))
    return digest.hexdigest()[:DIGITS]


def of_file(path: str | os.PathLike) -> str:
    """Of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def of_json(value: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]


def of_split(index: Mapping[str, Any], split: str) -> dict[str, Any]:
    """Of one split of a data set, by the content of its index file: cheap, no picture is read. JSON can hold it.

    `index` stands for the names of the scenes and their numbers of frames, `files` for the bytes of all files of the
    split (by their stored checksums); None where the data set was made before there were checksums. Where the data set
    lies and what it is called does not count.
    """
    entry, files = index["splits"][split], None
    if "files" in index:
        files = of_json({path: file for path, file in index["files"].items() if _split_of(path) == split})
    return {
        "scenes": len(entry["names"]),
        "frames": sum(entry["num_frames"]),
        "holdout": index.get("holdout", 0),
        "index": of_json([entry["names"], entry["num_frames"]]),
        "files": files,
    }


def _split_of(path: str) -> str:
    """Of 'frames/1.0.0/posed_scenes-train.array_record-00000-of-00001': 'train'."""
    return path.rpartition("/")[2].partition("-")[2].partition(".array_record-")[0]


def changes_of_split(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """In which way the data set `new` is not `old`, both `of_split`, for a person; '' where no difference is known."""
    told = {"scenes": "scenes", "frames": "frames", "holdout": "every so many frames held out"}
    changes = [f"{text} {old[name]} -> {new[name]}" for name, text in told.items() if old[name] != new[name]]
    if old["index"] != new["index"] and not changes:
        changes = ["other names of scenes, or other numbers of frames in them"]
    if not changes and None not in (old["files"], new["files"]) and old["files"] != new["files"]:
        changes = ["scenes of the same names and lengths, but other files (checksums differ)"]
    return ", ".join(changes)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two (nested) mappings of settings and fingerprints, 'name: old -> new' each; the name alone
    where values are too long to be read."""
    flat_old, flat_new = _flatten(old), _flatten(new)
    lines = []
    for name in {**flat_old, **flat_new}:
        values = [flat.get(name, UNKNOWN) for flat in (flat_old, flat_new)]
        if values[0] != values[1]:
            texts = [str(value) for value in values]
            short = max(map(len, texts)) <= LONGEST_VALUE
            lines.append(f"{name}: {texts[0]} -> {texts[1]}" if short else name)
    return lines


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat
