"""What is known of a run while it runs: its numbers, its speed, and whether it must stop."""

import math
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils

from dfm_jax.errors import UserError

PROGRESS_METRICS = ("steps_per_second", "rays_per_second")


class NonFiniteError(UserError):
    """The loss or its gradients are not finite."""


def say(message: str) -> None:
    """One line on the terminal (standard error), from the first process only."""
    if jax.process_index() == 0:
        print(message, file=sys.stderr, flush=True)


class StopRequest:
    """Remembers a SIGTERM, so that the step can end and be saved; a context manager."""

    def __init__(self) -> None:
        self._received = False
        self._previous: Any = None

    def __enter__(self) -> "StopRequest":
        # Among several processes, jax's own handler spreads the news and finds a step that all of them reach.
        if jax.process_count() == 1:
            self._previous = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._previous)

    def _receive(self, *_: object) -> None:
        self._received = True

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; to be asked once a step, by all processes."""
        return self._received if jax.process_count() == 1 else multihost_utils.reached_preemption_sync_point(step)


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
        rays_per_step: int,
        describe_batch: Callable[[int], str],
    ):
        """`writer` has clu's `write_scalars`; `describe_batch(step)` names what was in the batch of a step."""
        self._writer, self._describe_batch = writer, describe_batch
        self._num_steps, self._log_every, self._rays_per_step = num_steps, log_every, rays_per_step
        self._pending: tuple[int, Mapping[str, Array]] | None = None
        self._interval: list[Mapping[str, np.ndarray]] = []
        self._since: tuple[int, float] | None = None  # step and time that speed is measured from

    def add(self, step: int, metrics: Mapping[str, Array]) -> None:
        """Takes the metrics of step `step` (counted from 1), and looks at those of the step before.

        Raises:
          NonFiniteError: if that step's loss or gradients were not finite.
        """
        self.settle()
        self._pending = (step, metrics)

    def settle(self) -> None:
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
                f"{self._describe_batch(step)}. This state is not saved; the same command goes on from the last "
                "checkpoint. If it stops here again, look at these scenes or lower train.optimizer.learning_rate."
            )
        self._interval.append(metrics)
        if self._since is None:
            self._since = (step, time.monotonic())  # the first step's time is mostly compilation
        if step % self._log_every == 0 or step == self._num_steps:
            self._report(step)

    def _report(self, step: int) -> None:
        means = {name: float(np.mean([m[name] for m in self._interval])) for name in self._interval[0]}
        self._interval = []
        line = f"step {step}/{self._num_steps}  loss {means['loss']:.4f}"
        first, began = self._since
        if step > first:
            rate = (step - first) / (time.monotonic() - began)
            self._since = (step, time.monotonic())
            means |= dict(zip(PROGRESS_METRICS, (rate, rate * self._rays_per_step), strict=True))
            left = format_duration((self._num_steps - step) / rate)
            line += f"  {rate:.2f} steps/s  {rate * self._rays_per_step:.0f} rays/s  {left} left"
        self._writer.write_scalars(step, means)
        say(line)


def format_duration(seconds: float) -> str:
    """'45s', '3m05s', '2h10m' or '3d04h'."""
    seconds = math.ceil(seconds)
    for unit, size, lower, lower_size in (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // lower_size:02d}{lower}"
    return f"{seconds}s"
