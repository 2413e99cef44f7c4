"""Which views a model is evaluated on, as an index file that others can be given.

    {"about": "...", "data": "toy", "split": "test",
     "examples": [{"scene": "test-000004", "context": [0], "target": [6, 2]}, ...]}

A frame is its position in the scene, from 0, or its name as in the source. The first target is the view that diffusion
samples; the sampled scene is rendered at all of them. The scene "*" stands for every scene of the split. `about`,
`data` and `split` are for a person. The index files of pixelSplat, `{scene: {"context": [...], "target": [...]}}` with
null where a scene has none, are read as well.

Whatever cannot be used is skipped, counted, and listed with its reason.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.dataset import SceneDataset, SceneRecord
from dfm_jax.data.view_sampling import Draw
from dfm_jax.errors import UserError

EVERY_SCENE = "*"
Frame = int | str


@dataclasses.dataclass(frozen=True)
class Entry:
    """An example as an index file has it."""

    scene: str
    context: tuple[Frame, ...]
    target: tuple[Frame, ...]


@dataclasses.dataclass(frozen=True)
class Skipped:
    """What an index file asks for and cannot be had."""

    scene: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Resolved:
    """An index file applied to a data set."""

    views: list[tuple[int, Draw]]  # number of the scene, and its frames
    skipped: list[Skipped]


def read(path: str | Path) -> tuple[list[Entry], list[Skipped]]:
    """The examples of an index file, and those that it states to be none.

    Raises:
      UserError: there is no such file, it is no JSON, or not of one of the two forms; it says what is wrong and where.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no index file {path}; see docs/evaluation.md, or leave config.evaluate.protocol empty"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"the index file {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the index file {path} must hold an object with 'examples', not a {type(content).__name__}")
    skipped = []
    if "examples" in content:
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
    return [_entry(example, f"example {i} of the index file {path}") for i, example in enumerate(examples)], skipped


def _entry(example: Any, where: str) -> Entry:
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
    return Entry(example["scene"], **frames)


def resolve(entries: Sequence[Entry], data: SceneDataset) -> Resolved:
    """Looks the scenes and frames up.

    Raises:
      UserError: the split is empty, or nothing is left, with the reasons.
    """
    if not len(data):
        raise UserError(f"split '{data.split}' of {data.path} has no scenes: prepare it again, or choose another split")
    number = {name: i for i, name in enumerate(data.names)}
    views, skipped = [], []
    for entry in entries:
        for name in data.names if entry.scene == EVERY_SCENE else [entry.scene]:
            if name not in number:
                skipped.append(Skipped(name, f"split '{data.split}' of {data.path} has no such scene"))
                continue
            draw, problem = _draw(entry, data.scene(number[name]))
            if draw is None:
                skipped.append(Skipped(name, problem))
            else:
                views.append((number[name], draw))
    if not views:
        reasons = "\n  ".join(f"{skip.scene}: {skip.reason}" for skip in skipped[:5])
        raise UserError(
            f"none of the {len(skipped)} examples of the index file can be had from split '{data.split}' of "
            f"{data.path}; the first reasons:\n  {reasons}"
        )
    return Resolved(views, skipped)


def _draw(entry: Entry, scene: SceneRecord) -> tuple[Draw | None, str]:
    """The frames of a scene by their positions; or None, and why."""
    position = {name: i for i, name in enumerate(scene.frame_names)}
    found: dict[str, list[int]] = {"context": [], "target": []}
    for kind, frames in found.items():
        for frame in getattr(entry, kind):
            at = position.get(frame, -1) if isinstance(frame, str) else frame
            if not 0 <= at < scene.num_frames:
                return None, f"{kind} frame {frame!r} is not among its {scene.num_frames}"
            frames.append(at)
    context, target = found["context"], found["target"]
    if both := sorted(set(context) & set(target)):
        return None, f"frame {both[0]} is both context and target"
    if repeated := [frame for frames in found.values() for frame in set(frames) if frames.count(frame) > 1]:
        return None, f"frame {repeated[0]} is named twice"
    return Draw(np.array(context), np.array(target)), ""


def write(path: Path, views: Sequence[tuple[int, Draw]], data: SceneDataset, about: str) -> None:
    """Stores views as an index file, so that the same evaluation can be run elsewhere."""
    examples = [
        {"scene": data.names[number], "context": draw.context.tolist(), "target": draw.target.tolist()}
        for number, draw in views
    ]
    lines = ",\n  ".join(json.dumps(example) for example in examples)
    head = json.dumps({"about": about, "data": data.path.name, "split": data.split})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-1]},\n "examples": [\n  {lines}]}}\n', encoding="utf-8")
