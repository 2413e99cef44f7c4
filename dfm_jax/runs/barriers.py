"""Where the processes of a run wait for each other, exchange what they found, and fail together.

All processes come to the same of these in the same order. A process that is alone waits for nobody.
"""

import contextlib
import itertools
import pickle
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from dfm_jax.errors import UserError

T = TypeVar("T")

DAY = 24 * 3600  # seconds: one process may compute for long; those that are lost are noticed much earlier
BYTES_AT_ONCE = 2**22  # that each process sends

_exchanges = itertools.count()


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return jax.process_index() == 0


def barrier(where: str, seconds: float = 3600) -> None:
    """Waits until all processes of the run are here. A collective would not: on CPUs, the first one gives up after 30
    seconds.

    Raises:
      UserError: one of them was lost, or did not come.
    """
    if jax.process_count() > 1:
        with _losses_told():
            multihost.get_barrier_sync_fn()(key=f"dfm_jax: {where}", timeout_ms=int(1000 * seconds))


def gather(value: T) -> list[T]:
    """What each process gives, in their order, in all of them: anything that pickle can hold.

    Raises:
      UserError: one of them was lost.
    """
    if jax.process_count() == 1:
        return [value]
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    barrier(f"exchange {next(_exchanges)}", DAY)
    with _losses_told():
        sizes = multihost_utils.process_allgather(np.int32(data.size))
        # A power of two: few programs are compiled.
        part = min(BYTES_AT_ONCE, 1 << int(sizes.max() - 1).bit_length())
        count = -(-int(sizes.max()) // part)
        data = np.pad(data, (0, count * part - data.size))
        rows = [multihost_utils.process_allgather(each) for each in np.split(data, count)]
    joined = np.concatenate(rows, axis=1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(joined, sizes, strict=True)]


@contextlib.contextmanager
def failing_together() -> Iterator[None]:
    """A block in which no process waits for another. An error in one of them ends all: that one with its own, the
    others with a UserError that says which process failed, and why."""
    if jax.process_count() == 1:
        yield
        return
    failure = None
    try:
        yield
    except Exception as error:
        failure = error
    reasons = gather("" if failure is None else _in_words(failure))
    if failure is not None:
        raise failure
    for process, reason in enumerate(reasons):
        if reason:
            raise UserError(f"process {process} of this run failed: {reason}")


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives in the first process, which alone calls it, in all of them."""
    value = None
    with failing_together():
        if is_first():
            value = make()
    return gather(value)[0]


@contextlib.contextmanager
def by_first(context: contextlib.AbstractContextManager[T]) -> Iterator[T | None]:
    """Within it, the first process is in the context (that of a lock, say) for all; yields what that yields, in the
    others None."""
    with contextlib.ExitStack() as stack:
        value = None
        with failing_together():
            if is_first():
                value = stack.enter_context(context)
        yield value
        with failing_together():
            stack.close()


def _in_words(error: Exception) -> str:
    """For other processes. What is no UserError may have any length."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {str(error)[:300]}"


@contextlib.contextmanager
def _losses_told() -> Iterator[None]:
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:  # gloo's are of the second kind
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise UserError(
            f"another process of this run was lost, or did not come ({reason}): start all of them again"
        ) from error
