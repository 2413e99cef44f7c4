"""The command lines of studies: a sweep of one trained model, or a comparison of several runs."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from dfm_jax import platforms
from dfm_jax.config import Config
from dfm_jax.config.command_line import read_config
from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import cluster
from dfm_jax.runs.barriers import from_first
from dfm_jax.runs.output_folders import check_ours
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.solver_files import with_solver_file

Sweep = Callable[[Config, str, Path], Any]


def run_sweep(
    argv: Sequence[str], description: str, sweep: Sweep, *, name: str, ours: Sequence[str], marker: str
) -> tuple[Any, Path]:
    """Runs `sweep(config, workdir, folder)` as one of the processes of its run. The config knows the file of its fitted
    solver, if it samples with one.

    Args:
      name: of the folder in the workdir that results go to without --out.
      ours: names of the files that a sweep leaves there.
      marker: the one of these that tells that the folder is a sweep's.

    Returns:
      what the sweep returns, and the folder.

    Raises:
      UserError: the arguments make no sense, or as `sweep`.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="of a trained model, or the name of one that is shipped")
    parser.add_argument("--config", default="", help="FILE.py or FILE.py:variant; without, the checkpoint's")
    parser.add_argument("--out", help=f"folder for the results; without, <workdir>/{name}")
    cluster.add_arguments(parser)
    arguments, overrides = parser.parse_known_args(argv)
    saved = None if arguments.config else saved_settings(arguments.workdir)
    config = read_config(arguments.config, overrides, saved)
    folder = results_folder(arguments.workdir, name, arguments.out)
    with cluster.initialized(cluster.spec_of(arguments)), platforms.memory_told():
        platforms.start()
        if arguments.out:
            from_first(partial(check_ours, folder, ours, marker))
        return sweep(with_solver_file(config, arguments.workdir), arguments.workdir, folder), folder


def count(text: str) -> int:
    """A number above 0, as argparse's `type`."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)


def named_runs(argv: Sequence[str], description: str) -> tuple[dict[str, str], Path]:
    """The workdirs of NAME=WORKDIR ..., by their names, and the folder of --out.

    Raises:
      UserError: the arguments make no sense.
    """
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=WORKDIR")
    parser.add_argument("--out", required=True, type=Path, help="folder for the results")
    arguments = parser.parse_args(argv)
    if malformed := [run for run in arguments.runs if "=" not in run]:
        raise UserError(f"{malformed[0]!r} is not NAME=WORKDIR, as in pixelnerf=runs/toy_pixelnerf")
    return dict(run.split("=", 1) for run in arguments.runs), arguments.out
