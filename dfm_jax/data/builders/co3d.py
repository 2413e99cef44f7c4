"""CO3D, version 1 or 2, as it is unpacked; the source is the folder of all categories, or one category's folder.

    <category>/frame_annotations.jgz, sequence_annotations.jgz       see `co3d_annotations`
    <category>/set_lists*.json, set_lists/set_lists_*.json           where they exist
    <category>/eval_batches*.json, eval_batches/eval_batches_*.json  where they exist
    <category>/<sequence>/images, masks, depths, depth_masks         masks and depths where they exist

A scene is a whole sequence; set lists say to which split it belongs, and are kept in its attributes with the evaluation
batches, by the names of its frames. Pictures keep their backgrounds, as in the published training (whose far bound is
four times the object's distance), unless they are asked to make way for a colour: masks then say where, and otherwise
only serve to find the object's depth.
"""

import dataclasses
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import co3d_annotations, co3d_pictures, co3d_scale
from dfm_jax.data.builders.co3d_annotations import Annotation
from dfm_jax.data.builders.source_files import distinct, is_hidden
from dfm_jax.data.loading import transforms
from dfm_jax.data.loading.text_files import as_text
from dfm_jax.data.pictures import pictures
from dfm_jax.data.preparing.source import SourceFrame, SourceScene, refused
from dfm_jax.errors import Rejected, UserError

FRAMES, SEQUENCES = "frame_annotations.jgz", "sequence_annotations.jgz"
NO_SEQUENCE = ""  # of frame records that name none

FrameRecords = dict[str, list[tuple[int, Any]]]  # with their positions in the file, by sequence


@dataclasses.dataclass(frozen=True)
class _Sequence:
    name: str
    score: float  # viewpoint quality; NaN where unknown
    problem: str = ""  # why it cannot be read


@dataclasses.dataclass(frozen=True)
class _Category:
    folder: Path
    sequences: tuple[_Sequence, ...]
    set_lists: Mapping[str, Mapping[str, Mapping[str, list[int]]]] = dataclasses.field(default_factory=dict)
    eval_batches: Mapping[str, Mapping[str, list[list[int]]]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Annotations:
    """Of a sequence. A frame's number is its position among all records of its sequence, in the order of CO3D's own
    frame numbers, which need neither begin at 0 nor be without gaps."""

    annotations: Mapping[int, Annotation]  # by number, in order
    rejected: list[tuple[str, str]]  # records that are none, with reasons
    listed: list[tuple[int, str]]  # number and name of every record


class CO3DSource:
    def __init__(
        self,
        root: Path,
        best: int | None = None,
        categories: Collection[str] | None = None,
        background: pictures.Colour | None = None,
    ):
        """Keeps the `best` sequences of each category by viewpoint quality, and some `categories`; None: all. What
        masks exclude makes way for a `background`; None: it stays."""
        self._root, self._best, self._categories, self._background = root, best, categories, background
        self._frames: tuple[Path, FrameRecords | str] | None = None  # of the category that was read last

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {split: sorted(scenes) for split, scenes in self._scenes.items()}

    def read(self, split: str, name: str) -> SourceScene:
        category, sequence = self._scenes[split][name]
        if sequence.problem:
            raise Rejected(sequence.problem)
        found = self._annotations(category, sequence)
        annotations = list(found.annotations.values())
        names = [as_text(annotation.image.name) for annotation in annotations]
        if not annotations:
            first = found.rejected[0][1] if found.rejected else "none at all"
            raise refused(f"no frame has an annotation of use (first: {first})", found.rejected, ())
        try:
            scale, scale_from = co3d_scale.scale(category.folder, annotations)
        except Rejected as reason:
            raise refused(str(reason), found.rejected, names) from reason
        poses = transforms.scale_world(np.stack([annotation.camera_to_world for annotation in annotations]), scale)
        columns = zip(annotations, poses, found.annotations, strict=True)
        frames = [_frame(category.folder, self._background, *column) for column in columns]
        attributes = {
            "category": category.folder.name,
            "sequence": sequence.name,
            "viewpoint_quality_score": None if math.isnan(sequence.score) else sequence.score,
            "scale_from": scale_from,
            **({} if self._background is None else {"masks": "laid"}),
            **_memberships(category, sequence.name, annotations),
        }
        return SourceScene(name, frames, found.rejected, attributes, scale, listed=found.listed)

    def _annotations(self, category: _Category, sequence: _Sequence) -> _Annotations:
        if self._frames is None or self._frames[0] != category.folder:
            self._frames = None  # not two at a time: those of a large category take gigabytes
            self._frames = category.folder, _frame_records(category.folder)
        by_sequence = self._frames[1]
        if isinstance(by_sequence, str):
            raise Rejected(by_sequence)
        annotations, rejected, listed = {}, [], []
        for number, (i, record) in enumerate(_in_order(by_sequence.get(sequence.name, []))):
            name = f"record {i}"
            try:
                annotations[number] = co3d_annotations.parse_frame(record)
            except Rejected as reason:
                rejected.append((name, str(reason)))
            else:
                name = as_text(annotations[number].image.name)
            listed.append((number, name))
        if sequence is self._first[category.folder]:  # they have to be listed somewhere
            rejected += _of_no_sequence(category, by_sequence)
        return _Annotations(annotations, rejected, listed)

    @functools.cached_property
    def _first(self) -> dict[Path, _Sequence]:
        """A sequence of each category that is read."""
        chosen = [pair for scenes in self._scenes.values() for pair in scenes.values()]
        return {category.folder: sequence for category, sequence in reversed(chosen)}

    @functools.cached_property
    def _scenes(self) -> dict[str, dict[str, tuple[_Category, _Sequence]]]:
        scenes: dict[str, list[tuple[str, tuple[_Category, _Sequence]]]] = {}
        for folder in self._folders():
            category = _read_category(folder)
            ranked = sorted(category.sequences, key=lambda sequence: -np.nan_to_num(sequence.score, nan=-np.inf))
            for sequence in ranked[: self._best]:
                split = scenes.setdefault(co3d_annotations.split_of(sequence.name, category.set_lists), [])
                split.append((as_text("-".join(filter(None, (folder.name, sequence.name)))), (category, sequence)))
        return {split: distinct(named) for split, named in scenes.items()}

    def _folders(self) -> list[Path]:
        """Of the categories that were asked for."""
        if not self._root.is_dir():
            raise UserError(f"--source={self._root} is not a folder")
        root = self._root.resolve()
        folders = {path.name: path for path in [root] if _is_category(path)}
        folders = folders or {path.name: path for path in _seen(root) if _is_category(path)}
        if not folders:
            raise UserError(
                f"no CO3D category (a folder with {FRAMES} and {SEQUENCES}) was found in --source={self._root}"
            )
        if missing := set(self._categories or ()) - folders.keys():
            raise UserError(
                f"--categories={','.join(sorted(missing))} not found in --source={self._root}, which has: "
                f"{', '.join(folders)}"
            )
        return [folder for name, folder in folders.items() if self._categories is None or name in self._categories]


def _is_category(folder: Path) -> bool:
    annotated = (folder / FRAMES).is_file() or (folder / SEQUENCES).is_file()
    return annotated or (folder.is_dir() and any((path / "images").exists() for path in _seen(folder)))


def _seen(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not is_hidden(path.name))


def _read_category(folder: Path) -> _Category:
    """A category that cannot be read has sequences with that problem, or itself in their place."""
    if not (folder / FRAMES).is_file():
        problem = f"there are no cameras: {folder.name}/{FRAMES} is missing"
        found = [path.name for path in _seen(folder) if (path / "images").exists()]
        return _Category(folder, tuple(_Sequence(name, np.nan, problem) for name in found or [""]))
    try:
        set_lists = co3d_annotations.read_set_lists(folder)
        eval_batches = co3d_annotations.read_eval_batches(folder)
        records = co3d_annotations.read_records(folder / SEQUENCES)
    except Rejected as reason:
        return _Category(folder, (_Sequence("", np.nan, str(reason)),))
    sequences = {}
    for i, record in enumerate(records):
        name = record.get("sequence_name") if isinstance(record, dict) else None
        if isinstance(name, str) and name:
            score = record.get("viewpoint_quality_score")
            sequences[name] = _Sequence(name, float(score) if isinstance(score, int | float) else np.nan)
        else:
            problem = f"{SEQUENCES} names no sequence in record {i}"
            sequences[f"record {i}"] = _Sequence(f"record {i}", np.nan, problem)
    if not sequences:
        return _Category(folder, (_Sequence("", np.nan, f"{SEQUENCES} lists no sequence"),))
    return _Category(folder, tuple(sequences[name] for name in sorted(sequences)), set_lists, eval_batches)


def _frame_records(folder: Path) -> FrameRecords | str:
    """Frame records of a category; or why there are none."""
    try:
        records = co3d_annotations.read_records(folder / FRAMES)
    except Rejected as reason:
        return str(reason)
    by_sequence: FrameRecords = {}
    for i, record in enumerate(records):
        name = record.get("sequence_name") if isinstance(record, dict) else None
        by_sequence.setdefault(name if isinstance(name, str) else NO_SEQUENCE, []).append((i, record))
    return by_sequence


def _of_no_sequence(category: _Category, by_sequence: FrameRecords) -> list[tuple[str, str]]:
    """Records of sequences that a category does not list, with reasons."""
    known = {sequence.name for sequence in category.sequences}
    unknown = {name: records for name, records in by_sequence.items() if name not in known}
    reasons = {name: f"annotation's sequence {name} is not in {SEQUENCES}" for name in unknown}
    reasons[NO_SEQUENCE] = "annotation names no sequence"
    return [(f"record {i}", reasons[name]) for name, records in unknown.items() for i, _ in records]


def _in_order(records: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Records of a sequence by frame number; those without one stay behind the record that is before them."""
    keys, last = [], -math.inf
    for _, record in records:
        number = co3d_annotations.frame_number(record)
        last = last if number is None else number
        keys.append(last)
    order = sorted(range(len(records)), key=keys.__getitem__)
    return [records[i] for i in order]


def _memberships(category: _Category, sequence: str, annotations: Sequence[Annotation]) -> dict[str, Any]:
    """Set lists and evaluation batches that are about the sequence, as names of its frames."""
    names = {annotation.number: annotation.image.name for annotation in annotations}
    set_lists = {
        subset: {
            key: [names[number] for number in lists[sequence] if number in names]
            for key, lists in keys.items()
            if sequence in lists
        }
        for subset, keys in category.set_lists.items()
    }
    eval_batches = {
        subset: [[names[n] for n in batch] for batch in batches.get(sequence, []) if names.keys() >= set(batch)]
        for subset, batches in category.eval_batches.items()
    }
    return {
        "set_lists": {subset: keys for subset, keys in set_lists.items() if keys},
        "eval_batches": {subset: batches for subset, batches in eval_batches.items() if batches},
    }


def _frame(
    folder: Path, background: pictures.Colour | None, annotation: Annotation, camera_to_world: np.ndarray, number: int
) -> SourceFrame:
    return SourceFrame(
        name=as_text(annotation.image.name),
        camera_to_world=camera_to_world,
        intrinsics=annotation.intrinsics,
        timestamp=annotation.timestamp,
        load=functools.partial(co3d_pictures.load, folder, annotation, background),
        load_mask=functools.partial(co3d_pictures.load_mask, folder, annotation),
        number=number,
    )
