"""Workdirs of checkpoints that no run has saved here: imported, or unpacked."""

import os
import shutil

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.runs.checkpoint_files import directory_of
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.lock import locked
from dfm_jax.runs.output_folders import reporting_write_errors
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import Params
from dfm_jax.runs.workdirs import is_remote, path_of


def check_empty(workdir: str | os.PathLike) -> None:
    """Raises UserError if there are checkpoints in `workdir`, or if it is a bucket's."""
    if is_remote(workdir):
        raise UserError(f"{workdir}: give a local --workdir, and copy it to the bucket")
    checkpoints = directory_of(workdir)
    if checkpoints.exists() and any(checkpoints.iterdir()):
        raise UserError(f"{checkpoints} holds checkpoints already: choose another --workdir")


def write_checkpoint(workdir: str | os.PathLike, step: int, config: Config, **trees: Params) -> None:
    """Writes `workdir`/checkpoints/<step> with those of the trees of a checkpoint that are given, whole or not at all.

    Raises:
      UserError: there are checkpoints in `workdir`, another process is at it, or it cannot be written.
    """
    check_empty(workdir)
    folder = path_of(workdir)
    building = folder / ".import.incomplete"
    with locked(folder, "writing a checkpoint", "choose another --workdir"), reporting_write_errors(folder):
        check_empty(workdir)
        shutil.rmtree(building, ignore_errors=True)  # of a program that was killed
        try:
            with Checkpoints(building, keep=Retention(1)) as checkpoints:
                checkpoints.save_trees(step, config, **trees)
            checkpoints.directory.rename(directory_of(workdir))
        finally:
            shutil.rmtree(building, ignore_errors=True)
