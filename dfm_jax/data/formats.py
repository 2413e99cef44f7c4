"""The formats that `prepare` reads. A format is one entry of FORMATS; its options are entries of OPTIONS."""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import ImageColor

from dfm_jax.data.builders import (
    co3d,
    colmap,
    dl3dv,
    llff,
    middlebury,
    minens,
    mvsnet,
    opensfm,
    photos,
    polycam,
    procedural,
    realestate10k,
    realestate10k_cameras,
    record3d,
    scannetpp,
    srn,
    transforms_json,
    videos,
    zero123,
)
from dfm_jax.data.builders.procedural import FEW_PICTURES
from dfm_jax.data.loading.generators import GENERATORS
from dfm_jax.data.pictures import pictures
from dfm_jax.data.preparing.source import Source
from dfm_jax.errors import UserError

PROCEDURAL_SCENES = 4000
HOLDOUT = 8  # of a capture: every 8th frame, as is usual
LAY, LEAVE = "lay", "leave"  # what becomes of what masks exclude


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
    counts: tuple[str, ...] = ()  # of its own in the summary, next to those of every format


def _masks(text: str) -> str:
    if text not in (LAY, LEAVE):
        raise argparse.ArgumentTypeError(f"{text!r} is neither {LAY} nor {LEAVE}")
    return text


def _names(text: str) -> list[str]:
    """Of 'a,b'."""
    return [name for name in text.split(",") if name]


OPTIONS = {
    "video_frames": Option(int, f"frames to take of a video, default {photos.VIDEO_FRAMES}, or all for video", least=3),
    "best": Option(int, "sequences of each category to keep, by viewpoint quality score; published: 500", least=1),
    "categories": Option(_names, "those to keep, with commas between them; default: all"),
    "num_scenes": Option(int, f"number of training scenes, default {PROCEDURAL_SCENES}", least=1),
    "seed": Option(int, "default 0", least=0),
    "whole_scenes": Option(
        int,
        f"training scenes with pictures from all sides, of the others {FEW_PICTURES} each; default all",
        least=0,
    ),
    "background": Option(
        str,
        "colour that transparent pictures are laid on, a name or #rrggbb; default black, as in configs/captures.py, or "
        "white for minens and zero123",
    ),
    "masks": Option(
        _masks,
        f"{LAY}: what is transparent or masked makes way for --background; {LEAVE}: pictures stay whole, and masks are "
        "stored, for evaluation. Default: transparency is laid on the background, and no other mask is read",
    ),
    "holdout": Option(
        int,
        f"every so many frames of a scene one is kept from training, to compare with; 0: none. Default {HOLDOUT}, or 0 "
        "where the source has several splits",
        least=0,
    ),
}


def _co3d(args: argparse.Namespace) -> Source:
    if args.background is not None and args.masks != LAY:
        raise UserError(f"--background={args.background} needs --masks={LAY}: pictures of co3d have no transparency")
    background = _background(args) if args.masks == LAY else None
    return co3d.CO3DSource(Path(args.source), args.best, args.categories, background)


def _realestate10k(args: argparse.Namespace) -> Source:
    return realestate10k.RealEstate10KSource(Path(args.source))


def _procedural(name: str) -> Format:
    def make(args: argparse.Namespace) -> Source:
        size = args.image_size or GENERATORS[name].image_size
        source = procedural.SOURCES[name]
        return source(args.num_scenes or PROCEDURAL_SCENES, size, args.seed or 0, args.whole_scenes)

    return Format(make, options=("num_scenes", "seed", "whole_scenes"), reads_source=False)


def _background(args: argparse.Namespace, default: str = "black") -> pictures.Colour | None:
    """None: pictures stay as if nothing of them were transparent."""
    if args.masks == LEAVE:
        if args.background is not None:
            raise UserError(f"--background={args.background} has no use with --masks={LEAVE}: leave out one of them")
        return None
    try:
        return ImageColor.getrgb(args.background or default)[:3]
    except ValueError as error:
        raise UserError(f"--background={args.background} is no colour; try white, black or #808080") from error


def _captures(
    source: Callable[..., Source],
    *,
    options: tuple[str, ...] = ("background", "holdout", "masks"),
    background: str = "black",
    masked: bool = False,
) -> Format:
    """Of posed pictures.

    Args:
      background: by default, of transparent pictures.
      masked: whether masks beside the pictures are read.
    """

    def make(args: argparse.Namespace) -> Source:
        if args.masks == LAY and not masked:
            raise UserError(
                f"--masks={LAY}: no masks of {args.format} are read; transparency is laid on --background without it"
            )
        masks = {"masked": args.masks is not None} if masked else {}
        return source(Path(args.source), background=_background(args, background), **masks)

    return Format(make, options)


_objects = functools.partial(_captures, options=("background", "masks"), background="white")


def _photos(args: argparse.Namespace) -> Source:
    workspace = Path(args.data_dir) / f".{args.name or args.format}.sfm"
    frames = args.video_frames or photos.VIDEO_FRAMES
    background = _background(args)
    return photos.PhotosSource(Path(args.source), background=background, workspace=workspace, video_frames=frames)


FORMATS = {
    "co3d": Format(_co3d, options=("background", "best", "categories", "masks")),
    "colmap": _captures(colmap.ColmapSource),
    "dl3dv": _captures(dl3dv.DL3DVSource),
    "llff": _captures(llff.LLFFSource),
    "middlebury": _captures(middlebury.MiddleburySource),
    "minens": _objects(minens.MinensSource),
    "mvsnet": _captures(mvsnet.MVSNetSource),
    "opensfm": _captures(opensfm.OpenSfMSource, masked=True),
    "photos": Format(_photos, options=("background", "holdout", "video_frames")),
    "polycam": _captures(polycam.PolycamSource),
    "realestate10k": Format(_realestate10k, counts=(realestate10k_cameras.MISSING,)),
    "record3d": _captures(record3d.Record3DSource),
    "scannetpp": _captures(scannetpp.ScanNetPPSource, masked=True),
    "shapes": _procedural("shapes"),
    "srn": _objects(srn.SRNSource),
    "toy": _procedural("toy"),
    "transforms": _captures(transforms_json.TransformsSource, masked=True),
    "video": Format(lambda args: videos.VideosSource(Path(args.source), args.video_frames), options=("video_frames",)),
    "zero123": _objects(zero123.Zero123Source),
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


def holdout(args: argparse.Namespace, source: Source) -> int:
    """Every how many frames one is kept from training; 0: none.

    Raises:
      UserError: there is nothing at the source.
    """
    if "holdout" not in FORMATS[args.format].options:
        return 0
    if args.holdout == 1:
        raise UserError("--holdout=1 would keep every frame from training; give 0 or at least 2")
    if args.holdout is not None:
        return args.holdout
    return HOLDOUT if len(source.splits()) == 1 else 0


def _having(option: str) -> list[str]:
    return [name for name, entry in FORMATS.items() if option in entry.options]
