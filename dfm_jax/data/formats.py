"""The formats that `prepare` reads. A format is one entry of FORMATS; its options are entries of OPTIONS."""

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfm_jax.data.builders import realestate10k, toy
from dfm_jax.data.builders.source import Source
from dfm_jax.errors import UserError

TOY_IMAGE_SIZE = 24
TOY_SCENES = 4000


@dataclasses.dataclass(frozen=True)
class Option:
    """Of some formats only. It is None where the command line does not give it."""

    parse: Callable[[str], Any]
    help: str
    least: int | None = None  # of a number


@dataclasses.dataclass(frozen=True)
class Format:
    make: Callable[[argparse.Namespace], Source]
    options: tuple[str, ...] = ()  # names in OPTIONS
    reads_source: bool = True  # --source is needed; False: forbidden


OPTIONS = {
    "num_scenes": Option(int, f"number of training scenes, default {TOY_SCENES}", least=1),
    "seed": Option(int, "default 0", least=0),
}


def _realestate10k(args: argparse.Namespace) -> Source:
    return realestate10k.RealEstate10KSource(Path(args.source))


def _toy(args: argparse.Namespace) -> Source:
    return toy.ToySource(args.num_scenes or TOY_SCENES, args.image_size or TOY_IMAGE_SIZE, args.seed or 0)


FORMATS = {
    "realestate10k": Format(_realestate10k),
    "toy": Format(_toy, options=("num_scenes", "seed"), reads_source=False),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    for name, option in OPTIONS.items():
        parser.add_argument(f"--{name}", type=option.parse, help=f"{' '.join(_having(name))}: {option.help}")


def make_source(args: argparse.Namespace) -> Source:
    """The source that the parsed command line describes.

    Raises:
      UserError: options that do not go together, or with an impossible value.
    """
    chosen = FORMATS[args.format]
    for name, option in OPTIONS.items():
        value = getattr(args, name)
        if value is None:
            continue
        if name not in chosen.options:
            raise UserError(f"--{name} belongs to --format={' or '.join(_having(name))}, not to {args.format}")
        if option.least is not None and value < option.least:
            raise UserError(f"--{name} must be at least {option.least}, not {value}")
    if chosen.reads_source and args.source is None:
        raise UserError(f"--format={args.format} needs --source=DIR")
    if not chosen.reads_source and args.source is not None:
        raise UserError(f"--format={args.format} makes its own scenes: leave out --source")
    return chosen.make(args)


def _having(option: str) -> list[str]:
    return [name for name, entry in FORMATS.items() if option in entry.options]
