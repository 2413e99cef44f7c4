"""Converts a source of posed pictures into a data set, once.

    python -m dfm_jax.data.prepare --format=realestate10k --source=DIR --data_dir=DIR [--name=NAME] [--image_size=N]
    python -m dfm_jax.data.prepare --format=co3d --source=DIR --data_dir=DIR [--best=500] [--categories=apple,vase]
    python -m dfm_jax.data.prepare --format=photos --source=DIR_OR_VIDEO --data_dir=DIR [--video_frames=N]
    python -m dfm_jax.data.prepare --format=transforms|colmap|middlebury --source=DIR --data_dir=DIR [--name=NAME]
    python -m dfm_jax.data.prepare --format=toy --data_dir=DIR [--num_scenes=N] [--image_size=N] [--seed=N]

Progress goes to standard error; the last line on standard output is one JSON object that counts `scenes`, `frames`,
`quarantined_scenes`, `quarantined_frames` and `warned_scenes`. What was rejected is listed, with reasons, in
DIR/NAME.quarantine.jsonl; warnings are attributes of their scenes, and `dfm_jax.data.inspect` shows them.
The data set appears under its name only when it is complete: it is built in DIR/.NAME.incomplete and then renamed.
"""

import argparse
import contextlib
import fcntl
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import tensorflow_datasets as tfds
from tqdm import tqdm

from dfm_jax.data import dataset, formats
from dfm_jax.data.builders import posed_scenes
from dfm_jax.data.builders.source import Source
from dfm_jax.data.validation import Quarantine
from dfm_jax.errors import UserError

MIN_FRAMES = 3  # a context view, a target and a novel view


def prepare(
    source: Source, data_dir: Path, name: str, options: posed_scenes.StoreOptions, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the data set `data_dir`/`name`, all of it or nothing.

    Returns:
      the summary: counts, and where the data set and its quarantine file lie.

    Raises:
      UserError: the data set exists already, or nothing at the source can be used.
    """
    with exclusive(data_dir, name):
        if dataset.exists(data_dir, name) and not overwrite:
            raise UserError(f"{data_dir / name} exists already; give --overwrite to replace it, or another --name")
        return build(source, data_dir, name, options)


def build(source: Source, data_dir: Path, name: str, options: posed_scenes.StoreOptions) -> dict[str, Any]:
    """Like `prepare`, in place of a data set that is there; the caller holds `exclusive`."""
    target = data_dir / name
    if target.exists() and not dataset.exists(data_dir, name):
        raise UserError(f"{target} exists and is no data set, so it will not be replaced; choose another name")
    splits = source.splits()
    building = data_dir / f".{name}.incomplete"
    shutil.rmtree(building, ignore_errors=True)  # of a run that was killed
    building.mkdir()
    try:
        with contextlib.closing(Quarantine(building / "quarantine.jsonl")) as quarantine:
            index = _write(source, sum(map(len, splits.values())), building, options, quarantine)
        listed = quarantine.path.replace(data_dir / f"{name}.quarantine.jsonl")
        if not index["splits"]:
            raise UserError(
                f"no scene could be used: {quarantine.scenes} scenes and {quarantine.frames} frames were rejected, for "
                f"instance: {quarantine.first_reason}. All reasons: {listed}"
            )
        if target.exists():
            target.rename(building / "replaced")
        (building / posed_scenes.PosedScenes.name).rename(target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return {
        "scenes": sum(len(split["names"]) for split in index["splits"].values()),
        "frames": sum(sum(split["num_frames"]) for split in index["splits"].values()),
        "quarantined_scenes": quarantine.scenes,
        "quarantined_frames": quarantine.frames,
        "warned_scenes": quarantine.warned_scenes,
        **quarantine.counts,
        "splits": {split: len(entry["names"]) for split, entry in index["splits"].items()},
        "path": str(target),
        "quarantine": str(listed),
    }


def _write(
    source: Source, num_scenes: int, building: Path, options: posed_scenes.StoreOptions, quarantine: Quarantine
) -> dict[str, Any]:
    tfds.disable_progress_bar()
    progress = tqdm(total=num_scenes, unit="scene", desc="prepare", file=sys.stderr, mininterval=1.0)
    with progress, contextlib.redirect_stdout(io.StringIO()):  # TFDS prints that it downloads
        return posed_scenes.write(source, building, options, quarantine, on_scene=progress.update)


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
        yield


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", required=True, choices=formats.FORMATS, help="layout of the source")
    parser.add_argument("--source", help="folder that holds the source; none for toy")
    parser.add_argument("--data_dir", required=True, help="folder in which data sets lie")
    parser.add_argument("--name", help="of the data set; default: the format")
    parser.add_argument(
        "--image_size",
        type=int,
        help="side of the stored pictures, pixels; larger ones are reduced. Default: kept, "
        f"toy: {formats.TOY_IMAGE_SIZE}",
    )
    parser.add_argument("--min_frames", type=int, default=MIN_FRAMES, help="scenes with fewer are quarantined")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of that name")
    formats.add_options(parser)
    args = parser.parse_args(argv)
    for option, least in (("image_size", 1), ("min_frames", 1)):
        value = getattr(args, option)
        if value is not None and value < least:
            raise UserError(f"--{option} must be at least {least}, not {value}")
    if args.name is not None and (Path(args.name).name != args.name or args.name.startswith(".")):
        raise UserError(f"--name={args.name} must be the name of a folder, neither hidden nor a path")
    return args


def main(argv: list[str]) -> int:
    try:
        args = _parse(argv)
        source, name = formats.make_source(args), args.name or args.format
        holdout = formats.holdout(args, source)
        options = posed_scenes.StoreOptions(args.image_size or 0, args.min_frames, holdout)
        summary = prepare(source, Path(args.data_dir), name, options, args.overwrite)
    except (UserError, OSError) as error:  # OSError: no space left, no permission, a disk that went away
        print(f"error: {error}", file=sys.stderr)
        return 1
    if summary["quarantined_scenes"] or summary["quarantined_frames"]:
        print(f"some of the source was rejected; reasons: {summary['quarantine']}", file=sys.stderr)
    if summary["warned_scenes"]:
        look = f"python -m dfm_jax.data.inspect --data_dir={args.data_dir} --name={name}"
        print(f"{summary['warned_scenes']} scenes have warnings; look at them with: {look}", file=sys.stderr)
    print(json.dumps(dict.fromkeys(formats.FORMATS[args.format].counts, 0) | summary))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here computes on an accelerator
    sys.exit(main(sys.argv[1:]))
