"""Converts a source of posed pictures into a data set, once.

    python -m dfm_jax.data.prepare --format=realestate10k --source=DIR --data_dir=DIR [--name=NAME] [--image_size=N]
    python -m dfm_jax.data.prepare --format=co3d --source=DIR --data_dir=DIR [--best=500] [--categories=apple,vase]
    python -m dfm_jax.data.prepare --format=photos --source=DIR_OR_VIDEO --data_dir=DIR [--video_frames=N]
    python -m dfm_jax.data.prepare --format=transforms|colmap|llff|... --source=DIR --data_dir=DIR [--name=NAME]
    python -m dfm_jax.data.prepare --format=toy|shapes --data_dir=DIR [--num_scenes=N] [--image_size=N] [--seed=N]
    python -m dfm_jax.data.prepare ... [--num_workers=N | --runner=DirectRunner --beam_options='--OPTION=VALUE ...']

Progress goes to standard error; the last line on standard output is one JSON object that counts `scenes`, `frames`,
`quarantined_scenes`, `quarantined_frames` and `warned_scenes`. What was rejected is listed, with reasons, in
DIR/NAME.quarantine.jsonl, or DIR/NAME.failed.jsonl if that was everything and an earlier data set NAME stays; warnings
are attributes of their scenes, and `dfm_jax.data.inspect` shows them.
The data set appears under its name only when it is complete: it is built in DIR/.NAME.incomplete and then renamed.
After an interruption the same command resumes from there, if neither its options nor the source have changed.
"""

import argparse
import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from dfm_jax import interrupts
from dfm_jax.data import formats
from dfm_jax.data.loading.generators import GENERATORS
from dfm_jax.data.preparing import building, posed_scenes, runners
from dfm_jax.data.preparing.quarantine import WARNED
from dfm_jax.data.preparing.source_fingerprint import source_fingerprint
from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import log

logger = logging.getLogger(__name__)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", required=True, choices=formats.FORMATS, help="layout of the source")
    parser.add_argument("--source", help="folder that holds the source; none for shapes and toy")
    parser.add_argument("--data_dir", required=True, help="folder in which data sets lie")
    parser.add_argument("--name", help="of the data set; default: the format")
    sizes = " and ".join(f"{name}: {generator.image_size}" for name, generator in GENERATORS.items())
    parser.add_argument(
        "--image_size",
        type=int,
        help=f"side of the stored pictures, pixels; larger ones are reduced. Default: kept, {sizes}",
    )
    parser.add_argument("--min_frames", type=int, default=building.MIN_FRAMES, help="scenes with fewer are quarantined")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set of that name")
    parser.add_argument(
        "--num_workers",
        type=int,
        help="processes that convert; default: one a core, fewer where there is little memory or little to do",
    )
    parser.add_argument("--runner", help="convert on this runner of Apache Beam, such as DirectRunner or FlinkRunner")
    parser.add_argument("--beam_options", help="of Beam and its runner, as in its documentation, separated by spaces")
    formats.add_options(parser)
    args = parser.parse_args(argv)
    for option, least in (("image_size", 1), ("min_frames", 1), ("num_workers", 1)):
        value = getattr(args, option)
        if value is not None and value < least:
            raise UserError(f"--{option} must be at least {least}, not {value}")
    if args.runner is None and args.beam_options is not None:
        raise UserError("--beam_options belongs to --runner: name one, such as DirectRunner")
    if args.runner is not None and args.num_workers is not None:
        raise UserError("--num_workers is for this machine's processes; a --runner takes its own --beam_options")
    if args.name is not None and (Path(args.name).name != args.name or args.name.startswith(".")):
        raise UserError(f"--name={args.name} must be the name of a folder, neither hidden nor a path")
    return args


def _runner(args: argparse.Namespace) -> runners.Runner:
    if args.runner is None:
        return functools.partial(runners.in_processes, args.num_workers)
    return functools.partial(runners.on_beam, args.runner, args.beam_options or "")


def _made_from(args: argparse.Namespace) -> dict[str, Any]:
    """All that decides what is written, but for what `build` adds."""
    made_from = {name: getattr(args, name) for name in ("format", *formats.OPTIONS)}
    if args.source is not None:
        source = Path(args.source).absolute()
        # `signature`: what interrupted conversions have always called it.
        made_from |= {"source": str(source), "signature": source_fingerprint(source, Path(args.data_dir))}
    return made_from


@log.command
def main(argv: list[str]) -> int:
    args = _parse(argv)
    source, name = formats.make_source(args), args.name or args.format
    holdout = formats.holdout(args, source)
    masks = args.masks == formats.LEAVE
    options = posed_scenes.StoreOptions(args.image_size or 0, args.min_frames, holdout, masks)
    made_from = functools.partial(_made_from, args)
    with interrupts.staying("the same command resumes from the last shard that was finished"):
        summary = building.prepare(source, Path(args.data_dir), name, options, args.overwrite, _runner(args), made_from)
    if summary["quarantined_scenes"] or summary["quarantined_frames"]:
        logger.info(f"some of the source was rejected; reasons: {summary['quarantine']}")
    if summary[WARNED]:
        look = f"python -m dfm_jax.data.inspect --data_dir={args.data_dir} --name={name}"
        logger.info(f"{summary[WARNED]} scenes have warnings; look at them with: {look}")
    print(json.dumps(dict.fromkeys(formats.FORMATS[args.format].counts, 0) | summary))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here computes on an accelerator
    sys.exit(main(sys.argv[1:]))
