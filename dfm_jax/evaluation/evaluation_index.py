"""Which views a model is evaluated on, as an index file that others can be given.

    {"about": "...", "data": "toy", "split": "test", "frames": "numbers in the source",
     "examples": [{"scene": "test-000004", "context": [0], "target": [6, 2]}, ...]}

A frame is its number in the source's own list of frames, from 0, or its name as in the source. The first target is the
view that diffusion samples; the sampled scene is rendered at all of them. The scene "*" stands for every scene of the
split. `about`, `data` and `split` are for a person, and `frames` may be left out. The index files of pixelSplat,
`{scene: {"context": [...], "target": [...]}}` with null where a scene has none, are read as well.

Whatever cannot be used is skipped, counted, and listed with its reason. A frame that was quarantined is a hole: no
other takes its number.

Of data sets that do not know their frames' numbers, positions among the stored frames are stored, and `frames` says so;
earlier versions always stored these, and did not say so. Where frames were left out since, they name nothing for sure.

What is stored has a `fingerprint` of the split: scenes of other data may have the same names.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.loading import text_files
from dfm_jax.data.loading.dataset import SceneDataset, SceneRecord, warn_of_unknown_numbers
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.paths import shipped
from dfm_jax.runs import fingerprints

EVERY_SCENE = "*"
# What the integers of an index file are.
NUMBERS, POSITIONS = "numbers in the source", "positions among the stored frames"
STORED = "evaluated in"  # how `about` begins in what an evaluation stores
Frame = int | str


@dataclasses.dataclass(frozen=True)
class Entry:
    """An example as an index file has it."""

    scene: str
    context: tuple[Frame, ...]
    target: tuple[Frame, ...]
    counts: str = NUMBERS  # what integers are: or POSITIONS


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What an index file asks for and cannot be had."""

    scene: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Resolved:
    """An index file applied to a data set."""

    views: list[tuple[int, ViewIndices]]  # number of the scene, and its frames
    skipped: list[Skipped]


def read(path: str | Path) -> tuple[list[Entry], list[Skipped]]:
    """The examples of an index file, and those that it states to be none.

    Raises:
      UserError: there is no such file, it is no JSON, or not of one of the two forms; it says what is wrong and where.
    """
    path = Path(path)
    if not path.is_file():
        path = shipped(str(path)) or path
    if not path.is_file():
        raise UserError(f"there is no index file {path}; see docs/evaluation.md, or leave config.evaluate.index empty")
    try:
        content = text_files.parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"the index file {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the index file {path} must hold an object with 'examples', not a {type(content).__name__}")
    skipped, counts = [], NUMBERS
    if "examples" in content:
        counts = _what_integers_are(content, path)
        examples = content["examples"]
        if not isinstance(examples, list):
            raise UserError(f"'examples' of the index file {path} must be a list")
    else:
        examples = [{"scene": name} | frames for name, frames in content.items() if isinstance(frames, dict)]
        skipped = [
            Skipped(name, "the index file has no views of it") for name, views in content.items() if views is None
        ]
        if len(examples) + len(skipped) < len(content):
            raise UserError(f"the index file {path} must hold 'examples', or context and target frames by scene")
    if not examples:
        raise UserError(f"the index file {path} has no examples")
    where = f"of the index file {path}"
    return [_entry(example, counts, f"example {i} {where}") for i, example in enumerate(examples)], skipped


def changed_data(path: str | Path, data: SceneDataset) -> str:
    """In which way the split is not the one that an index file (which can be read) was stored for; '' if that is not
    known."""
    fingerprint = text_files.parse_json(Path(path).read_bytes()).get("fingerprint")
    try:
        return fingerprints.changes_of_split(fingerprint, data.fingerprint()) if fingerprint else ""
    except (LookupError, TypeError) as error:
        raise UserError(f"'fingerprint' of the index file {path} is none: remove it") from error


def _what_integers_are(content: dict[str, Any], path: Path) -> str:
    counts = content.get("frames")
    if counts is None:
        stored = str(content.get("about", "")).startswith(STORED)
        return POSITIONS if stored else NUMBERS
    if counts not in (NUMBERS, POSITIONS):
        raise UserError(f"'frames' of the index file {path} must be '{NUMBERS}' or '{POSITIONS}', not {counts!r}")
    return counts


def _entry(example: Any, counts: str, where: str) -> Entry:
    if not isinstance(example, dict) or not isinstance(example.get("scene"), str):
        raise UserError(f"{where} must be an object with 'scene', 'context' and 'target'")
    frames = {}
    for kind in ("context", "target"):
        values = example.get(kind)
        well_formed = isinstance(values, list) and all(
            isinstance(x, int | str) and not isinstance(x, bool) for x in values
        )
        if not well_formed or not values:
            raise UserError(f"{where}: '{kind}' must be a list of frames (numbers or names), at least one: {values!r}")
        frames[kind] = tuple(values)
    return Entry(example["scene"], **frames, counts=counts)


def resolve(entries: Sequence[Entry], data: SceneDataset) -> Resolved:
    """Looks the scenes and frames up.

    Raises:
      UserError: the split is empty, nothing is left (with the reasons), or positions among stored frames may name
        others than they did.
    """
    if not len(data):
        raise UserError(f"split '{data.split}' of {data.path} has no scenes: prepare it again, or choose another split")
    by_integer = any(isinstance(frame, int) for entry in entries for frame in entry.context + entry.target)
    if data.holes is None and by_integer:
        warn_of_unknown_numbers(data.path)
    number = {name: i for i, name in enumerate(data.names)}
    views, skipped = [], []
    for entry in entries:
        for name in data.names if entry.scene == EVERY_SCENE else [entry.scene]:
            if name not in number:
                skipped.append(Skipped(name, f"split '{data.split}' of {data.path} has no such scene"))
                continue
            indices, problem = _view_indices(entry, data.scene(number[name]))
            if indices is None:
                skipped.append(Skipped(name, problem))
            else:
                views.append((number[name], indices))
    if not views:
        reasons = "\n  ".join(f"{skip.scene}: {skip.reason}" for skip in skipped[:5])
        raise UserError(
            f"none of the {len(skipped)} examples of the index file can be had from split '{data.split}' of "
            f"{data.path}; the first reasons:\n  {reasons}"
        )
    return Resolved(views, skipped)


def _view_indices(entry: Entry, scene: SceneRecord) -> tuple[ViewIndices | None, str]:
    """The frames of a scene by their indices; or None, and why."""
    if entry.counts == POSITIONS and scene.holes:
        raise UserError(
            f"the index file counts the stored frames of another version of the data, and scene {scene.name} has lost "
            f"{len(scene.holes)} of its {scene.num_source_frames} frames, so that it may name other ones: evaluate "
            "without it, which stores the views anew, or put the names of the frames in the place of integers"
        )
    by_position = scene.numbers is None or entry.counts == POSITIONS
    integers = range(scene.num_frames) if by_position else scene.numbers.tolist()
    index: dict[Frame, int] = {name: i for i, name in enumerate((*scene.frame_names, *integers))}
    found: dict[int, str] = {}  # context or target, by index
    for kind in ("context", "target"):
        for frame in getattr(entry, kind):
            if frame not in index:
                return None, f"{kind} frame {_why_not(frame, scene)}"
            if (at := index[frame] % scene.num_frames) in found:
                return None, f"frame {frame} is {'named twice' if found[at] == kind else 'both context and target'}"
            found[at] = kind
    context, target = (np.array([at for at, its in found.items() if its == kind]) for kind in ("context", "target"))
    return ViewIndices(context, target), ""


def _why_not(frame: Frame, scene: SceneRecord) -> str:
    """The reason why a scene does not have the frame."""
    for hole in scene.holes:
        if frame in (hole.number, hole.name):
            return f"{hole.number} ({hole.name}) was quarantined: {hole.reason}"
    return f"{frame!r} is not among its {scene.num_source_frames}"


def write(path: Path, views: Sequence[tuple[int, ViewIndices]], data: SceneDataset, about: str) -> None:
    """Stores views as an index file, so that the same evaluation can be run elsewhere."""
    examples = []
    for number, indices in views:
        scene = data.scene(number)
        names = np.arange(scene.num_frames) if scene.numbers is None else scene.numbers
        frames = {"context": names[indices.context].tolist(), "target": names[indices.target].tolist()}
        examples.append({"scene": scene.name} | frames)
    lines = ",\n  ".join(json.dumps(example) for example in examples)
    counts = POSITIONS if data.holes is None else NUMBERS
    about_data = {"data": data.path.name, "split": data.split, "frames": counts, "fingerprint": data.fingerprint()}
    head = json.dumps({"about": about, **about_data})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-1]},\n "examples": [\n  {lines}]}}\n', encoding="utf-8")
