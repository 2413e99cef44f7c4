"""Where the processes of a run wait for each other, and fail together."""

import contextlib
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from dfm_jax.errors import UserError
from dfm_jax.runs.lock import locked


def barrier(where: str, seconds: float = 3600) -> None:
    """Waits until all processes of the run are here. A collective would not: on CPUs, the first one gives up after 30
    seconds."""
    if jax.process_count() > 1:
        multihost.get_barrier_sync_fn()(key=f"dfm_jax: {where}", timeout_ms=int(1000 * seconds))


def fail_together(where: str, problem: str, otherwise: str) -> None:
    """Raises UserError in all processes if the first has a problem: with it, in the others with `otherwise`. The first
    may take long to know."""
    failed = bool(problem)
    if jax.process_count() > 1:
        barrier(where)
        failed = bool(multihost_utils.broadcast_one_to_all(np.bool_(failed)))
    if failed:
        raise UserError(problem or otherwise)


@contextlib.contextmanager
def locked_by_first(folder: pathlib.Path, doing: str, otherwise: str) -> Iterator[None]:
    """Within it, this run is alone in the folder: its first process holds the lock (`runs/lock.py`) for all.

    Raises:
      UserError: another run is there, or the folder cannot be written.
    """
    problem = ""
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:
            try:
                stack.enter_context(locked(folder, doing, otherwise))
            except UserError as error:
                problem = str(error)
        fail_together("locked", problem, f"process 0 could not lock {folder}")
        yield
