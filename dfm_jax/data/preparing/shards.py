"""A shard, some dozen scenes of a split: the unit of work of a conversion.

Shards do not depend on each other: they can be converted anywhere, in any order. What a shard's conversion leaves in
the folder of an incomplete data set is the same wherever and whenever that was:

    posed_scenes/frames/1.0.0/...   the file of its frames, as it will be read
    shards/SPLIT-NUMBER.scenes      its scenes' records, which count frames from the start of the shard
    shards/SPLIT-NUMBER.result      names, numbers of frames, what was rejected, and checksums; written last

A shard whose last file is there and whose other files are as that one says is finished, and is not converted again.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.data.loading import records
from dfm_jax.data.loading.records import RecordFile
from dfm_jax.data.preparing import posed_scenes
from dfm_jax.data.preparing.quarantine import Quarantine
from dfm_jax.data.preparing.source import Source
from dfm_jax.errors import Rejected

# A shard is lost when a conversion is interrupted, and is kept open while it is read: large shards cost work, many
# shards cost open files.
SCENES_PER_SHARD = 64
MAX_SHARDS = 256  # of a split
RESULT = ".result"


@dataclasses.dataclass(frozen=True)
class Shard:
    split: str
    number: int
    of: int  # shards of the split
    names: tuple[str, ...]  # of its scenes in the source

    def frames_file(self, folder: Path) -> Path:
        return posed_scenes.frames_folder(folder) / records.file_name(self.split, self.number, self.of)

    def scenes_file(self, folder: Path) -> Path:
        return folder / "shards" / f"{self.split}-{self.number:05d}.scenes"

    def result_file(self, folder: Path) -> Path:
        return folder / "shards" / f"{self.split}-{self.number:05d}{RESULT}"


@dataclasses.dataclass(frozen=True)
class Work:
    """What every conversion of a shard has to know. It can be pickled."""

    source: Source
    options: posed_scenes.StoreOptions
    folder: Path  # of the incomplete data set


@dataclasses.dataclass(frozen=True)
class Result:
    names: list[str]  # of the usable scenes
    num_frames: list[int]  # of each
    holes: list[list[int]]  # positions of each one's
    held_out: list[list[int] | None]  # frames of each that its source holds out; None: it says nothing about that
    rejected: list[dict[str, Any]]  # as in the quarantine file
    counts: dict[str, int]  # of rejected scenes, by what they are counted as
    frames: RecordFile
    scenes: RecordFile


def plan(splits: Mapping[str, Sequence[str]]) -> list[Shard]:
    """All shards of a data set, those of a split side by side and in the order of its names."""
    shards = []
    for split, names in splits.items():
        size = max(SCENES_PER_SHARD, math.ceil(len(names) / MAX_SHARDS))
        groups = [tuple(names[i : i + size]) for i in range(0, len(names), size)]
        shards += [Shard(split, number, len(groups), group) for number, group in enumerate(groups)]
    return shards


def convert(work: Work, shard: Shard, on_scene: Callable[[], None] = lambda: None) -> None:
    """Leaves the shard finished, calling `on_scene` after each scene that was tried. Needs the memory of one scene."""
    if is_finished(work.folder, shard):
        for _ in shard.names:
            on_scene()
        return
    shard.result_file(work.folder).unlink(missing_ok=True)
    quarantine, names, num_frames, missing, held_out = Quarantine(), [], [], [], []
    frames_file, scenes_file = shard.frames_file(work.folder), shard.scenes_file(work.folder)
    with (
        records.writing(frames_file, posed_scenes.frame_features(work.options.masks)) as write_frame,
        records.writing(scenes_file, posed_scenes.scene_features()) as write_scene,
    ):
        for name in shard.names:
            try:
                read = work.source.read(shard.split, name)
                scene, frames, pictures = posed_scenes.accept(read, shard.split, work.options, quarantine)
            except Rejected as reason:
                for frame, of_frame in reason.frames:
                    quarantine.add_frame(shard.split, name, frame, of_frame)
                quarantine.add_scene(shard.split, name, str(reason), reason.counted_as)
            else:
                stored = [{"image": picture} for picture in pictures]
                if work.options.masks:
                    scene, masks = posed_scenes.with_masks(scene, frames, pictures)
                    stored = [{**each, "mask": mask} for each, mask in zip(stored, masks, strict=True)]
                write_scene(posed_scenes.scene_record(scene, frames, first_frame=sum(num_frames)))
                for i, each in enumerate(stored):
                    write_frame({**each, "scene": scene.name, "frame": i})
                names.append(name)
                num_frames.append(len(frames))
                missing.append([hole.position for hole in posed_scenes.find_holes(scene, frames)])
                held_out.append(posed_scenes.held_out(frames))
            on_scene()
    result = Result(
        names=names,
        num_frames=num_frames,
        holes=missing,
        held_out=held_out,
        rejected=quarantine.entries,
        counts=dict(quarantine.counts),
        frames=records.inspect(frames_file, sum(num_frames)),
        scenes=records.inspect(scenes_file, len(names)),
    )
    content = json.dumps(dataclasses.asdict(result))
    records.write_text(shard.result_file(work.folder), f"{_digest(content)}\n{content}")


def is_finished(folder: Path, shard: Shard) -> bool:
    """Reads all that was written: a machine that went down may have kept names of files and lost their contents."""
    try:
        result = read_result(folder, shard)
    except (OSError, ValueError):
        return False
    return records.is_intact(shard.frames_file(folder), result.frames) and records.is_intact(
        shard.scenes_file(folder), result.scenes
    )


def any_finished(folder: Path) -> bool:
    return any((folder / "shards").glob(f"*{RESULT}"))


def read_result(folder: Path, shard: Shard) -> Result:
    """Raises:
    ValueError: it is damaged.
    """
    digest, _, text = shard.result_file(folder).read_text(encoding="utf-8").partition("\n")
    if digest != _digest(text):
        raise ValueError(f"{shard.result_file(folder)} is damaged")
    content = json.loads(text)
    files = {key: RecordFile(**content.pop(key)) for key in ("frames", "scenes")}
    return Result(**content, **files)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
