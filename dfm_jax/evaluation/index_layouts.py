"""The layouts of index files: ours, pixelSplat's and latentSplat's, and SEVA's, read into one list of examples.

    {"examples": [{"scene": "a", "context": [0], "target": [6, 2]}, ...], ...}                      ours
    {"a": {"context": [58, 133], "target": [84, 102, 129]}, "b": null, ...}                         pixelSplat
    {"a": [{"context": [58, 133], "target": [13, 135, 141]}, ...], "b": [], ...}                    latentSplat
    <scene>/train_test_split_<N>.json: {"train_ids": [0, 9], "test_ids": [4, 5, ...]}               SEVA

SEVA has a file for each scene and number of context views, N, beside the scene's `transforms.json`: the folder names
the scene, and ids are places in that file's `frames`. All scenes of a folder are read with a pattern,
`re10k/*/train_test_split_1.json`, or by naming the folder.
"""

import collections
import dataclasses
import glob
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.data.loading import text_files
from dfm_jax.errors import UserError
from dfm_jax.paths import shipped

Frame = int | str
# What the integers of an index file are.
NUMBERS, POSITIONS = "numbers in the source", "positions among the stored frames"
STORED = "evaluated in"  # how `about` begins in what an evaluation stores
# Kinds of what is skipped. The first is no hole: the index file itself has no views of the scene.
NONE_LISTED, NO_SCENE, NO_FRAME, REFUSED = "none listed", "scene missing", "frame missing", "refused"
SPLIT_FILE = re.compile(r"train_test_split_(\d+)\.json")  # SEVA's


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
    kind: str


def read(path: str | Path) -> tuple[list[Entry], list[Skipped]]:
    """The examples of an index file (or of several, of SEVA's), and those that it states to be none.

    Raises:
      UserError: there is no such file, it is no JSON, or of none of these layouts; it says what is wrong and where.
    """
    path = Path(path)
    if splits := _split_files(path):
        return [_entry(_of_split(file), NUMBERS, f"the split file {file}") for file in splits], []
    if not path.is_file():
        path = shipped(str(path)) or path
    if not path.is_file():
        raise UserError(f"there is no index file {path}; see docs/evaluation.md, or leave config.evaluate.index empty")
    content = _parse(path)
    where = f"of the index file {path}"
    if "examples" in content:
        counts, skipped, examples = _what_integers_are(content, path), [], content["examples"]
        if not isinstance(examples, list):
            raise UserError(f"'examples' {where} must be a list")
    else:
        counts, (examples, skipped) = NUMBERS, _by_scene(content, path)
    if not examples:
        raise UserError(f"the index file {path} has no examples")
    return [_entry(example, counts, f"example {i} {where}") for i, example in enumerate(examples)], skipped


def fingerprint(path: str | Path) -> Any:
    """What an index file (which can be read) says of the data that it was stored for; None if it does not."""
    path = Path(path)
    if _split_files(path):
        return None
    return _parse(path if path.is_file() else shipped(str(path))).get("fingerprint")


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = text_files.parse_json(path.read_bytes())
    except ValueError as error:
        raise UserError(f"the index file {path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"the index file {path} must hold an object with 'examples', not a {type(content).__name__}")
    return content


def _by_scene(content: Mapping[str, Any], path: Path) -> tuple[list[dict[str, Any]], list[Skipped]]:
    """Examples of a file by scene, one or a list of each, and the scenes without any."""
    examples, skipped = [], []
    for name, views in content.items():
        listed = views if isinstance(views, list) else [] if views is None else [views]
        if not all(isinstance(frames, dict) for frames in listed):
            raise UserError(
                f"the index file {path} must hold 'examples', or context and target frames by scene, not {views!r} "
                f"({name!r})"
            )
        examples += [frames | {"scene": name} for frames in listed]
        if not listed:
            skipped.append(Skipped(name, "the index file has no views of it", NONE_LISTED))
    return examples, skipped


def _split_files(path: Path) -> list[Path]:
    """SEVA's files that a path names: one, those of a pattern, or one in each folder of a folder; none, if it names
    something else."""
    if path.is_dir():
        found = sorted(path.glob("*/train_test_split_*.json")) or sorted(path.glob("train_test_split_*.json"))
        if not found:
            raise UserError(f"{path} is a folder, and no scene in it has a train_test_split_N.json; name an index file")
    elif glob.has_magic(str(path)) and not path.is_file():
        found = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not found:
            raise UserError(f"no file is called like {path}, which was named as index")
    else:
        found = [path] if path.is_file() else []
    if not all(SPLIT_FILE.fullmatch(file.name) for file in found):
        if len(found) > 1:
            raise UserError(f"{path} names {len(found)} files: one index file is read, or train_test_split_N.json")
        return []
    sizes = collections.Counter(file.name for file in found)
    if len(sizes) > 1:
        raise UserError(f"{path} has splits of several sizes; choose one, such as --index='{path}/*/{min(sizes)}'")
    return found


def _of_split(path: Path) -> dict[str, Any]:
    """An example from one of SEVA's files."""
    content = _parse(path)
    if missing := [key for key in ("train_ids", "test_ids") if key not in content]:
        raise UserError(f"the split file {path} has no {' and no '.join(missing)}")
    asked = int(SPLIT_FILE.fullmatch(path.name)[1])
    context = content["train_ids"]
    if isinstance(context, list) and len(context) != asked:
        raise UserError(f"the split file {path} has {len(context)} train_ids, and its name says {asked}")
    return {"scene": path.resolve().parent.name, "context": context, "target": content["test_ids"]}


def _what_integers_are(content: Mapping[str, Any], path: Path) -> str:
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
    frames = {kind: _frames(example.get(kind), f"{where}: '{kind}'") for kind in ("context", "target")}
    return Entry(example["scene"], **frames, counts=counts)


def _frames(values: Any, where: str) -> Sequence[Frame]:
    is_frame = lambda x: isinstance(x, int | str) and not isinstance(x, bool)
    if not isinstance(values, list) or not values or not all(map(is_frame, values)):
        raise UserError(f"{where} must be a list of frames (numbers or names), at least one: {values!r}")
    return tuple(values)
