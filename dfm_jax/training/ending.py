"""How a training run ended, in one line, and how far it got."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping

import jax
from jax import Array

from dfm_jax.errors import UserError
from dfm_jax.runs.train_state import TrainState
from dfm_jax.training.interruptions import StopRequest
from dfm_jax.training.monitor import Monitor, NonFiniteError, format_duration
from dfm_jax.training.stopwatch import Stopwatch

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Progress:
    """How far a run is. A hook of the training loop."""

    step: int  # taken last
    num_steps: int
    monitor: Monitor | None = None

    def __call__(self, step: int, state: TrainState, metrics: Mapping[str, Array], *, last: bool) -> None:
        del state, metrics, last
        self.step = step


@contextlib.contextmanager
def ending_told(progress: Progress, stop: StopRequest, stopwatch: Stopwatch) -> Iterator[Progress]:
    """A context for the steps of a run; says at their end, in one line, why that was.

    Raises:
      UserError: one of several processes met an error of the runtime, which may be that of another one.
    """
    reason = "an error"
    try:
        yield progress
        reason = "all steps are done"
        if progress.step < progress.num_steps:
            reason = f"stopped by {stop.cause}; step {progress.step} is saved, the same command resumes from there"
    except NonFiniteError:
        reason = "the loss or its gradients are not finite"
        raise
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        message = (str(error).strip() or type(error).__name__).splitlines()[0][:300]  # the rest are internals
        raise UserError(
            f"process {jax.process_index()} of {jax.process_count()} stops after step {progress.step}: {message}; if "
            "another one has ended or told an error, mend that, and start all of them again with the same command"
        ) from error
    finally:
        logger.info(_summary(progress, reason, stopwatch))


def _summary(progress: Progress, reason: str, stopwatch: Stopwatch) -> str:
    line = (
        f"ended at step {progress.step} of {progress.num_steps}: {reason}; {format_duration(stopwatch.elapsed())}, "
        f"goodput {100 * stopwatch.goodput():.0f} %" + (f" ({stopwatch.shares()})" if stopwatch.shares() else "")
    )
    if progress.monitor and progress.monitor.num_skipped:
        line += f"; {progress.monitor.num_skipped} steps left out for their gradients"
    return line
