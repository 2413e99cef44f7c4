"""Where checkpoints lie, which of them can be read, and what becomes of those that cannot.

A checkpoint is a folder named by its step. It is complete once it has that name.
"""

import itertools
import logging
import os
import pathlib

import jax
import orbax.checkpoint as ocp

from dfm_jax.errors import UserError
from dfm_jax.runs import checksums
from dfm_jax.runs.workdirs import is_remote, path_of, shipped_model

logger = logging.getLogger(__name__)

RESUMED = ("params", "opt_state", "ema", "frozen", "config", "data")  # items that training resumes from


def directory_of(workdir: str | pathlib.Path) -> pathlib.Path:
    return path_of(workdir) / "checkpoints"


def steps(directory: pathlib.Path) -> list[int]:
    """Steps of the complete checkpoints, rising."""
    return sorted(ocp.utils.checkpoint_steps(directory))


def require_checkpoints(workdir: str | os.PathLike) -> None:
    """Raises UserError if there is no folder of checkpoints, before anything that takes long; a bucket is asked when
    they are restored."""
    if not is_remote(workdir) and not shipped_model(workdir):
        require_directory(directory_of(workdir))


def require_directory(directory: pathlib.Path) -> None:
    if not directory.is_dir():
        around = (path for path in directory.parent.parents if (path / directory.name).is_dir())
        run = next((path for path in around if steps(path / directory.name)), None)
        cure = f"name the run that it is a part of, {run}" if run else "is this the --workdir of a training run?"
        raise UserError(f"there is no checkpoint in {directory}: {cure}")


def make_writable(directory: pathlib.Path) -> None:
    """Makes the directory, and sees that it can be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / f".writable-{jax.process_index()}"
        probe.write_bytes(bytes(2**16))  # an empty file has room on a full disk, too
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{directory} cannot be written ({error}): give a --workdir on a disk that is not full and may be written"
        ) from error


def newest_readable(directory: pathlib.Path, items: tuple[str, ...]) -> int | None:
    """The last step whose items are as they were saved; those after it are told. None: there is no checkpoint.

    Raises:
      UserError: there are some, and all are damaged.
    """
    problems = []
    for step in reversed(steps(directory)):
        problem = checksums.problem(directory / str(step), items)
        if problem is None:
            for line in problems:
                logger.warning(f"warning: the checkpoint of step {line}; going back to step {step}")
            return step
        problems.append(f"{step} is damaged: {problem}")
    if problems:
        raise UserError(
            f"no checkpoint in {directory} can be read; put back what is missing, or start anew in another --workdir:"
            + "".join(f"\n  step {line}" for line in problems)
        )
    return None


def newest_whole(workdir: str | pathlib.Path, items: tuple[str, ...]) -> int:
    """The last step whose items are as they were saved.

    Raises:
      UserError: there is none.
    """
    directory = directory_of(workdir)
    require_directory(directory)
    step = newest_readable(directory, items)
    if step is None:
        raise UserError(f"no checkpoint in {directory} is complete: let the training run save one first")
    return step


def set_aside_damaged(directory: pathlib.Path) -> None:
    """Moves checkpoints that are newer than the last readable one, and damaged, to `<workdir>/damaged/`: training
    makes those steps again."""
    good = newest_readable(directory, RESUMED)
    for step in steps(directory) if good is not None else ():
        if step > good:
            _move(directory / str(step), directory.parent / "damaged")


def _move(folder: pathlib.Path, to: pathlib.Path) -> None:
    to.mkdir(exist_ok=True)
    names = (f"{folder.name}-{n}" for n in itertools.count(1))  # a step may be damaged more than once
    target = next(to / name for name in names if not (to / name).exists())
    folder.rename(target)
    logger.info(f"moved to {target}")
