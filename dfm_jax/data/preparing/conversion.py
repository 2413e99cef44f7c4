"""Converts a whole source, in a folder in which an interrupted conversion can be resumed."""

import collections
import dataclasses
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.data.loading import dataset, records, source_frames
from dfm_jax.data.loading.records import RecordFile
from dfm_jax.data.loading.source_frames import SOURCE_FRAMES
from dfm_jax.data.preparing import posed_scenes, shards
from dfm_jax.data.preparing.runners import Runner
from dfm_jax.data.preparing.shards import Result, Shard, Work
from dfm_jax.data.preparing.source import Source

MADE_FROM_FILE = "made_from.json"
FORMAT = 3  # of what a shard leaves; another one's shards are of no use

DESCRIPTION = "Posed pictures of static scenes. OpenCV cameras, intrinsics normalised by width and height."


@dataclasses.dataclass(frozen=True)
class Converted:
    index: dict[str, Any]  # content of the index file
    rejected: list[dict[str, Any]]  # as in the quarantine file, in the order of the source
    counts: dict[str, int]  # of rejected scenes, by what they are counted as


def open_folder(folder: Path, made_from: Mapping[str, Any] | None) -> None:
    """Makes the folder of an incomplete data set; finished shards stay if all that they were `made_from` is the same,
    except where that is unknown."""
    wanted = None if made_from is None else json.dumps({"format": FORMAT, **made_from}, indent=1, sort_keys=True)
    try:
        found = (folder / MADE_FROM_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        found = None
    if wanted is None or found != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    if wanted is not None:
        records.write_text(folder / MADE_FROM_FILE, wanted)
    for path in folder.rglob(f"*{records.UNFINISHED}"):  # of a run that was killed
        path.unlink()


def write(
    source: Source,
    splits: Mapping[str, Sequence[str]],
    folder: Path,
    options: posed_scenes.StoreOptions,
    run: Runner,
    on_scene: Callable[[], None],
) -> Converted:
    """Writes every usable scene of `source` into the folder, calling `on_scene` for each that was tried.

    The data set, `posed_scenes.dataset_folder(folder)`, is the same byte for byte whichever runner writes it.
    """
    todo = shards.plan(splits)
    run(Work(source, options, folder), todo, on_scene)
    done = [(shard, shards.read_result(folder, shard)) for shard in todo]
    by_split = {split: [pair for pair in done if pair[0].split == split] for split in splits}
    frames = {split: [result.frames for _, result in pairs] for split, pairs in by_split.items()}
    scenes = {split: _write_scenes(folder, pairs) for split, pairs in by_split.items()}
    places = posed_scenes.frames_folder(folder), posed_scenes.scenes_folder(folder)
    records.write_metadata(places[0], posed_scenes.frame_features(options.masks), frames, DESCRIPTION)
    records.write_metadata(places[1], posed_scenes.scene_features(), scenes, DESCRIPTION)
    target = posed_scenes.dataset_folder(folder)
    index = {
        "splits": {split: entry for split, pairs in by_split.items() if (entry := _index(pairs))["names"]},
        "holdout": options.holdout,
        SOURCE_FRAMES: source_frames.FORMAT,
        "files": dict(_checksums(target, dict(zip(places, (frames, scenes), strict=True)))),
    }
    records.write_text(target / dataset.INDEX_FILE, json.dumps(index))
    counts: collections.Counter[str] = collections.Counter()
    for _, result in done:
        counts.update(result.counts)
    return Converted(index, [entry for _, result in done for entry in result.rejected], dict(counts))


def _write_scenes(folder: Path, pairs: Sequence[tuple[Shard, Result]]) -> list[RecordFile]:
    """Scene records of a split, which now can say where in the whole split their frames start."""
    features, written = posed_scenes.scene_features(), []
    starts = itertools.accumulate((result.frames.records for _, result in pairs), initial=0)
    for (shard, result), start in zip(pairs, starts, strict=False):
        path = posed_scenes.scenes_folder(folder) / records.file_name(shard.split, shard.number, shard.of)
        with records.writing(path, features) as write_scene:
            for record in records.reading(shard.scenes_file(folder), features):
                write_scene({**record, "first_frame": start + record["first_frame"]})
        written.append(records.inspect(path, result.scenes.records))
    return written


def _index(pairs: Sequence[tuple[Shard, Result]]) -> dict[str, list[Any]]:
    return {
        "names": [name for _, result in pairs for name in result.names],
        "num_frames": [number for _, result in pairs for number in result.num_frames],
        "holes": [positions for _, result in pairs for positions in result.holes],
        "held_out": [frames for _, result in pairs for frames in result.held_out],
    }


def _checksums(
    root: Path, files: Mapping[Path, Mapping[str, Sequence[RecordFile]]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    for folder, by_split in files.items():
        for split, of_split in by_split.items():
            for number, file in enumerate(of_split):
                path = folder / records.file_name(split, number, len(of_split))
                yield path.relative_to(root).as_posix(), dataclasses.asdict(file)
