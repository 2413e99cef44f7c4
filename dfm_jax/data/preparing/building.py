"""Builds a data set from a source, all of it or nothing.

It appears under its name only when it is complete: it is built in DIR/.NAME.incomplete and then renamed. Beside it lies
the list of what was rejected.
"""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dfm_jax.data.loading import dataset, records
from dfm_jax.data.preparing import conversion, posed_scenes, runners, shards
from dfm_jax.data.preparing.quarantine import WARNED
from dfm_jax.data.preparing.source import Source
from dfm_jax.errors import UserError

MIN_FRAMES = 3  # a context view, a target and a novel view
REPLACED = "replaced"  # where a data set of before waits, in the folder of the new one, until that has its place
THIS_PROCESS = functools.partial(runners.in_processes, 1)


def prepare(
    source: Source,
    data_dir: Path,
    name: str,
    options: posed_scenes.StoreOptions,
    overwrite: bool = False,
    run: runners.Runner = THIS_PROCESS,
    made_from: Callable[[], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Writes the data set `data_dir`/`name`, all of it or nothing.

    An interrupted call can be resumed by another one if `made_from`, anything that JSON can hold, gives the same;
    None: it cannot.

    Returns:
      the summary: counts, and where the data set and its quarantine file lie.

    Raises:
      UserError: the data set exists already, or nothing at the source can be used.
    """
    with exclusive(data_dir, name):
        if dataset.exists(data_dir, name) and not overwrite:
            raise UserError(f"{data_dir / name} exists already; give --overwrite to replace it, or another --name")
        return build(source, data_dir, name, options, run, made_from)


def build(
    source: Source,
    data_dir: Path,
    name: str,
    options: posed_scenes.StoreOptions,
    run: runners.Runner = THIS_PROCESS,
    made_from: Callable[[], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Like `prepare`, in place of a data set that is there; the caller holds `exclusive`."""
    target = data_dir / name
    if target.exists() and not dataset.exists(data_dir, name):
        raise UserError(f"{target} exists and is no data set, so it will not be replaced; choose another name")
    splits = source.splits()
    if not any(splits.values()):
        raise UserError("nothing of the source was chosen: there is no scene to convert")
    building = _building(data_dir, name)
    same = None if made_from is None else {**made_from(), "splits": _digest(splits), **dataclasses.asdict(options)}
    conversion.open_folder(building, same)
    try:
        with _progress(sum(map(len, splits.values()))) as progress:
            converted = conversion.write(source, splits, building, options, run, on_scene=progress.update)
    except BaseException:
        if same is None or not shards.any_finished(building):
            shutil.rmtree(building, ignore_errors=True)
        raise
    try:
        return _publish(converted, building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _publish(converted: conversion.Converted, building: Path, target: Path) -> dict[str, Any]:
    """Puts the data set and its quarantine file in their places, and returns the summary."""
    splits = converted.index["splits"]
    kept = target.exists() and not splits  # the quarantine file is that of the data set which stays
    listed = target.with_name(f"{target.name}.{'failed' if kept else 'quarantine'}.jsonl")
    records.write_text(listed, "".join(json.dumps(entry) + "\n" for entry in converted.rejected))
    scene_reasons = [entry["reason"] for entry in converted.rejected if entry["frame"] is None]
    rejected_scenes, rejected_frames = len(scene_reasons), len(converted.rejected) - len(scene_reasons)
    if not splits:
        raise UserError(
            f"no scene could be used: {rejected_scenes} scenes and {rejected_frames} frames were rejected, for "
            f"instance: {scene_reasons[0]}. All reasons: {listed}"
        )
    if target.exists():
        target.rename(building / REPLACED)
    posed_scenes.dataset_folder(building).rename(target)
    return {
        "scenes": sum(len(split["names"]) for split in splits.values()),
        "frames": sum(sum(split["num_frames"]) for split in splits.values()),
        "quarantined_scenes": rejected_scenes,
        "quarantined_frames": rejected_frames,
        WARNED: 0,
        **converted.counts,
        "splits": {split: len(entry["names"]) for split, entry in splits.items()},
        "path": str(target),
        "quarantine": str(listed),
    }


def _digest(splits: Mapping[str, Any]) -> str:
    names = json.dumps([[split, *names] for split, names in splits.items()])
    return hashlib.sha256(names.encode()).hexdigest()


def _progress(num_scenes: int) -> tqdm:
    return tqdm(total=num_scenes, unit="scene", desc="prepare", file=sys.stderr, mininterval=1.0)


@contextlib.contextmanager
def exclusive(data_dir: Path, name: str) -> Iterator[None]:
    """One preparation of a data set at a time; the lock ends with the process, however it ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / f".{name}.lock").open("w")
    except OSError as error:
        raise UserError(f"cannot write to {data_dir}: {error}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        replaced = _building(data_dir, name) / REPLACED
        if replaced.exists() and not (data_dir / name).exists():  # an earlier call was killed between two renames
            replaced.rename(data_dir / name)
        yield


def _building(data_dir: Path, name: str) -> Path:
    """Where a data set is written until it is complete."""
    return data_dir / f".{name}.incomplete"
