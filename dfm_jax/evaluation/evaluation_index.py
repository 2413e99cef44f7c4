"""Which views a model is evaluated on, as an index file that others can be given.

    {"about": "...", "data": "toy", "split": "test", "frames": "numbers in the source",
     "examples": [{"scene": "test-000004", "context": [0], "target": [6, 2]}, ...]}

A frame is its number in the source's own list of frames, from 0, or its name as in the source. The first target is the
view that diffusion samples; the sampled scene is rendered at all of them. A target may also be a context view. The
scene "*" stands for every scene of the split, the target "*" for every frame that is no context view. `about`, `data`
and `split` are for a person, and `frames` may be left out. `index_layouts` has other people's layouts.

Whatever cannot be used is skipped, counted, and listed with its reason. A frame that was quarantined is a hole: no
other takes its number.

Of data sets that do not know their frames' numbers, positions among the stored frames are stored, and `frames` says so;
earlier versions always stored these, and did not say so. Where frames were left out since, they name nothing for sure.

What is stored has a `fingerprint` of the split: scenes of other data may have the same names.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.loading.dataset import SceneDataset, SceneRecord, warn_of_unknown_numbers
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.evaluation import index_layouts
from dfm_jax.evaluation.index_layouts import NO_FRAME, NO_SCENE, NUMBERS, POSITIONS, REFUSED, Entry, Frame, Skipped
from dfm_jax.runs import fingerprints

EVERY = "*"  # scene of the split, or frame that is no context view


@dataclasses.dataclass(frozen=True)
class Resolved:
    """An index file applied to a data set."""

    views: list[tuple[int, ViewIndices]]  # number of the scene, and its frames
    skipped: list[Skipped]
    missing: int = 0  # frames that "*" stands for and that are holes


read = index_layouts.read


def changed_data(path: str | Path, data: SceneDataset) -> str:
    """In which way the split is not the one that an index file (which can be read) was stored for; '' if that is not
    known."""
    stored = index_layouts.fingerprint(path)
    try:
        return fingerprints.changes_of_split(stored, data.fingerprint()) if stored else ""
    except (LookupError, TypeError) as error:
        raise UserError(f"'fingerprint' of the index file {path} is none: remove it") from error


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
    number = _by_name(data)
    views, skipped, missing = [], [], 0
    for entry in entries:
        for name in data.names if entry.scene == EVERY else [entry.scene]:
            if name not in number:
                skipped.append(Skipped(name, f"split '{data.split}' of {data.path} has no such scene", NO_SCENE))
                continue
            scene = data.scene(number[name])
            found = _draw(entry, scene)
            if isinstance(found, Skipped):
                skipped.append(found)
            else:
                views.append((number[name], found))
                missing += len(scene.holes) if EVERY in entry.target else 0
    if not views:
        reasons = "\n  ".join(f"{skip.scene}: {skip.reason}" for skip in skipped[:5])
        raise UserError(
            f"none of the {len(skipped)} examples of the index file can be had from split '{data.split}' of "
            f"{data.path}; the first reasons:\n  {reasons}"
        )
    return Resolved(views, skipped, missing)


def _by_name(data: SceneDataset) -> dict[str, int]:
    """Numbers of the scenes by name; those of CO3D, which have their category before them, also by the sequence's."""
    names = {name: i for i, name in enumerate(data.names)}
    if "category" not in data.scene(0).attributes:
        return names
    sequences = [name.rpartition("-")[2] for name in data.names]
    once = {sequence for sequence, count in collections.Counter(sequences).items() if count == 1}
    return {sequence: i for i, sequence in enumerate(sequences) if sequence in once} | names


def _draw(entry: Entry, scene: SceneRecord) -> ViewIndices | Skipped:
    """The frames of a scene by their indices; or why not."""
    if entry.counts == POSITIONS and scene.holes:
        raise UserError(
            f"the index file counts the stored frames of another version of the data, and scene {scene.name} has lost "
            f"{len(scene.holes)} of its {scene.num_source_frames} frames, so that it may name other ones: evaluate "
            "without it, which stores the views anew, or put the names of the frames instead of integers"
        )
    by_position = scene.numbers is None or entry.counts == POSITIONS
    integers = range(scene.num_frames) if by_position else scene.numbers.tolist()
    index: dict[Frame, int] = {name: i for i, name in enumerate((*scene.frame_names, *integers))}
    found: dict[str, list[int]] = {"context": [], "target": []}
    for kind, indices in found.items():
        for frame in getattr(entry, kind):
            if kind == "target" and frame == EVERY:
                named = {*found["context"], *indices}
                indices += [at for at in range(scene.num_frames) if at not in named]
                continue
            if frame not in index:
                return Skipped(scene.name, f"{kind} frame {_why_not(frame, scene)}", NO_FRAME)
            if (at := index[frame] % scene.num_frames) in indices:
                return Skipped(scene.name, f"{kind} frame {frame} is named twice", REFUSED)
            indices.append(at)
    if not found["target"]:
        return Skipped(scene.name, "it has no frame that is no context view", NO_FRAME)
    return ViewIndices(np.array(found["context"]), np.array(found["target"]))


def _why_not(frame: Frame, scene: SceneRecord) -> str:
    """The reason why a scene does not have the frame."""
    for hole in scene.holes:
        if frame in (hole.number, hole.name):
            return f"{hole.number} ({hole.name}) was quarantined: {hole.reason}"
    return f"{frame!r} is not among its {scene.num_source_frames}"


def frames_of(scene: SceneRecord, indices: Sequence[int]) -> list[dict[str, int | str | None]]:
    """Frames of a scene as its source calls them: `number` in the source's list (None where the data set does not know
    it) and `name`."""
    numbers = [None] * scene.num_frames if scene.numbers is None else scene.numbers.tolist()
    return [{"number": numbers[i], "name": scene.frame_names[i]} for i in indices]


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
