"""What may end or interrupt a run: the platform takes the machine back, time passes, a step never ends."""

import faulthandler
import os
import pathlib
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from dfm_jax.training.workdirs import is_remote

EXIT_RESTART = 75  # saved, and to be started again


class StopRequest:
    """Remembers that the run is to stop, so that the step can end and be saved; a context manager.

    SIGTERM says so: schedulers send it, and cloud machines do when they are preempted or maintained. Of several
    processes any one may be told; jax's preemption service spreads the news, and finds a step that all of them reach.
    """

    def __init__(self) -> None:
        self._received = False
        self._previous: Any = None

    def __enter__(self) -> "StopRequest":
        if jax.process_count() == 1:  # else jax's own handler
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


class SaveSchedule:
    """When to save: every so many steps, and when so many minutes have passed since the last time."""

    def __init__(self, every: int, minutes: float, ask_every: int, clock: Callable[[], float] = time.monotonic):
        """Several processes must agree on the time: they ask the first of them, every `ask_every` steps.

        Args:
          minutes: 0: by steps only.
        """
        self._every, self._seconds, self._ask_every, self._clock = every, 60 * minutes, ask_every, clock
        self._last = clock()

    def due(self, step: int) -> bool:
        """Whether to save after this step; to be asked once a step, by all processes."""
        due = step % self._every == 0 or self._time_is_up(step)
        if due:
            self._last = self._clock()
        return due

    def _time_is_up(self, step: int) -> bool:
        if not self._seconds:
            return False
        up = self._clock() - self._last >= self._seconds
        if jax.process_count() == 1:
            return up
        return step % self._ask_every == 0 and bool(multihost_utils.broadcast_one_to_all(np.bool_(up)))


class Watchdog:
    """Ends the process with `EXIT_RESTART` where a step takes longer than `minutes`, as when a device or another host
    hangs, after the stacks of all threads; a context manager. Every process has its own, so that all hosts tell.

    It watches from the first `seen` on: compiling may take long.
    """

    def __init__(self, minutes: float, workdir: str | pathlib.Path, leave: Callable[[int], None] = os._exit):
        """`minutes` 0: it never does."""
        self._minutes, self._workdir, self._leave = minutes, workdir, leave
        self._seen: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._minutes:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def seen(self) -> None:
        """The run goes on."""
        self._seen = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(min(10.0, 60 * self._minutes / 4)):
            if self._seen is not None and time.monotonic() - self._seen > 60 * self._minutes:
                self._report()
                self._leave(EXIT_RESTART)
                return

    def _report(self) -> None:
        message = (
            f"error: process {jax.process_index()} has made no step for {self._minutes:g} minutes "
            "(config.train.watchdog_minutes); it ends, to be started again from the last checkpoint. Stacks:"
        )
        print(message, file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if not is_remote(self._workdir):
            with (pathlib.Path(self._workdir) / f"hang-{jax.process_index()}.txt").open("w") as file:
                file.write(f"{message}\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
