"""What is known of a run while it runs: its numbers, its speed, and whether they are sound."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from dfm_jax.errors import UserError
from dfm_jax.training.stopwatch import Stopwatch, memory_in_use

logger = logging.getLogger(__name__)


class NonFiniteError(UserError):
    """The loss or its gradients are not finite."""


class Monitor:
    """Reads each step's metrics, checks them, and reports their means every `log_every` steps.

    Metrics are read one step late: the device is then busy with the next step already, and never waits for the host.
    """

    def __init__(
        self,
        writer: Any,
        *,
        num_steps: int,
        log_every: int,
        rays_per_step: int | None,
        describe_batch: Callable[[int], str],
        stopwatch: Stopwatch | None = None,
        peak_share: float | None = None,
    ):
        """
        Args:
          writer: has clu's `write_scalars`.
          rays_per_step: None: the model does not render.
          describe_batch: names what was in the batch of a step.
          stopwatch: what the run's time is measured with.
          peak_share: share of the devices' peak that one step a second would be; None: not known.
        """
        self._writer, self._describe_batch = writer, describe_batch
        self._num_steps, self._log_every, self._rays_per_step = num_steps, log_every, rays_per_step
        self._stopwatch, self._peak_share = stopwatch or Stopwatch(), peak_share
        self.num_skipped = 0  # steps left out for their gradients
        self._since_saved: list[Mapping[str, np.ndarray]] = []
        self._pending: tuple[int, Mapping[str, Array]] | None = None
        self._interval: list[Mapping[str, np.ndarray]] = []
        self._since: tuple[int, float] | None = None  # step and time that speed is measured from

    def __call__(self, step: int, state: Any, metrics: Mapping[str, Array], *, last: bool) -> None:
        """A hook of the training loop."""
        del state, last
        self.add(step, metrics)

    def add(self, step: int, metrics: Mapping[str, Array]) -> None:
        """Takes the metrics of step `step` (counted from 1), and looks at those of the step before.

        Raises:
          NonFiniteError: if that step's loss or gradients were not finite.
        """
        self.flush()
        self._pending = (step, metrics)

    def flush(self) -> None:
        """Waits for the last step, and looks at its metrics. Only after this may its state be saved.

        Raises:
          NonFiniteError: as `add`.
        """
        if self._pending is None:
            return
        step, on_device = self._pending
        self._pending = None
        metrics = dict(jax.device_get(on_device))
        if not metrics.pop("finite"):
            numbers = ", ".join(f"{name} {value:.6g}" for name, value in metrics.items())
            raise NonFiniteError(
                f"the loss or its gradients are not finite in step {step}: {numbers}; its batch holds "
                f"{self._describe_batch(step)}. This state is not saved; the same command resumes from the last "
                "checkpoint. If it stops here again, look at these scenes or lower train.optimizer.learning_rate."
            )
        if metrics.get("skipped"):
            self.num_skipped += 1
            logger.info(
                f"step {step} is left out: its gradient norm, {metrics['gradient_norm']:.3g}, is a spike; "
                f"its batch holds {self._describe_batch(step)}"
            )
        self._interval.append(metrics)
        self._since_saved.append(metrics)
        if self._since is None:
            # The first step's time is mostly compilation.
            self._since = (step, time.monotonic())
            self._stopwatch.restart("starting")
        if step % self._log_every == 0 or step == self._num_steps:
            self._report(step)

    def pop_means(self) -> dict[str, float]:
        """Of all metrics since the last call; to be called after `flush`."""
        means, self._since_saved = _means(self._since_saved), []
        return means

    def _report(self, step: int) -> None:
        means, self._interval = _means(self._interval), []
        line = f"step {step}/{self._num_steps}  loss {means['loss']:.4f}"
        first, began = self._since
        if step > first:
            seconds = time.monotonic() - began
            rate = (step - first) / seconds
            self._since = (step, time.monotonic())
            spent = self._stopwatch.pop_interval()
            means["data_wait"] = spent.get("data", 0.0) / seconds
            means["checkpoint_seconds"] = spent.get("checkpoints", 0.0)
            if self._peak_share is not None:
                means["peak_share"] = rate * self._peak_share
                line += f"  {100 * means['peak_share']:.1f} % of peak"
            means["steps_per_second"] = rate
            line += f"  {rate:.2f} steps/s"
            if self._rays_per_step is not None:
                means["rays_per_second"] = rate * self._rays_per_step
                line += f"  {rate * self._rays_per_step:.0f} rays/s"
            line += f"  {format_duration((self._num_steps - step) / rate)} left"
        self._writer.write_scalars(step, means | memory_in_use())
        logger.info(line)


def _means(metrics: list[Mapping[str, np.ndarray]]) -> dict[str, float]:
    return {name: float(np.mean([m[name] for m in metrics])) for name in metrics[0]} if metrics else {}


def metric_names(step: Any, *arguments: Any) -> set[str]:
    """Of a compiled training step, before it is compiled: what it reports of each batch."""
    return set(step.eval_shape(*arguments)[1]) - {"finite"}


def format_duration(seconds: float) -> str:
    """'45s', '3m05s', '2h10m' or '3d04h'."""
    seconds = math.ceil(seconds)
    for unit, size, lower, lower_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // lower_size:02d}{lower}"
    return f"{seconds}s"
