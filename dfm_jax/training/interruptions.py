"""What may end or interrupt a run: the platform takes the machine back, time passes, a step never ends."""

import contextlib
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

from dfm_jax import interrupts
from dfm_jax.interrupts import EXIT_INTERRUPTED
from dfm_jax.runs.workdirs import is_remote

EXIT_RESTART = 75  # saved, and to be started again
CODES = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGHUP: EXIT_RESTART, signal.SIGTERM: EXIT_RESTART}
CALLED = {signal.SIGINT: "Ctrl-C", signal.SIGHUP: "SIGHUP", signal.SIGTERM: "SIGTERM"}
SAME_PRESS_SECONDS = 0.2  # programs that started this one may hand on what the terminal has told it already
QUIET_SECONDS = 2.0  # after which a person is told that Ctrl-C was heard


class StopRequest:
    """Remembers that the run is to stop, so that the step can end and be saved; a context manager.

    SIGTERM says so: schedulers send it, and cloud machines do when they are preempted or maintained; so do Ctrl-C and
    the end of the terminal (SIGHUP). A second Ctrl-C ends the run at once, as any of them does before its first step:
    there is nothing to save. Of several processes any one may be told; jax's preemption service spreads the news, and
    finds a step that all of them reach.
    """

    def __init__(self, leave: Callable[[str, int], None] = interrupts.leave):
        """`leave`: ends the program with a message and an exit code."""
        self._leave = leave
        self._received: int | None = None
        self._at = 0.0  # when
        self._stepping = False
        self._ended = threading.Event()

    def __enter__(self) -> "StopRequest":
        self._alone = jax.process_count() == 1  # of several processes, SIGTERM is jax's own
        signals = list(CODES) if self._alone else [signal.SIGINT, signal.SIGHUP]
        self._hearing = interrupts.Hearing(self._hear, signals)
        self._hearing.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._hearing.__exit__(*exception)

    def _hear(self, number: int) -> None:
        if self._received is not None:
            if number == signal.SIGINT and time.monotonic() - self._at > SAME_PRESS_SECONDS:
                self._leave("ended at once by Ctrl-C; the same command resumes from the last checkpoint", CODES[number])
            return
        self._received, self._at = number, time.monotonic()
        if self._alone and not self._stepping:
            self._leave(
                f"stopped by {CALLED[number]} before the first step: there is nothing to save; the same command starts "
                "again",
                CODES[number],
            )
        elif not self._alone:
            os.kill(os.getpid(), signal.SIGTERM)  # to jax's service, which tells the others
        if number == signal.SIGINT:
            threading.Thread(target=self._answer, name="answer to Ctrl-C", daemon=True).start()

    def _answer(self) -> None:
        if not self._ended.wait(QUIET_SECONDS):
            message = "stopping: this step is finished and saved first; Ctrl-C again ends at once"
            print(message, file=sys.stderr, flush=True)

    def requested(self, step: int) -> bool:
        """Whether to stop after this step; to be asked once a step, by all processes. From the first time on, there is
        something to save."""
        self._stepping = True
        if self._alone:
            return self._received is not None
        if not multihost_utils.reached_preemption_sync_point(step):
            return False
        received = multihost_utils.process_allgather(np.int32(self._received or signal.SIGTERM))
        self._received = next(number for number in CODES if number in received)
        return True

    @property
    def code(self) -> int:
        """The exit code of the run that was stopped, the same in all processes."""
        return CODES[self._received]

    @property
    def cause(self) -> str:
        """What stopped the run, for a person."""
        return CALLED[self._received]


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

    It watches from the first `heartbeat` on: compiling may take long.
    """

    def __init__(self, minutes: float, workdir: str | pathlib.Path, leave: Callable[[int], None] = os._exit):
        """`minutes` 0: it never does."""
        self._minutes, self._workdir, self._leave = minutes, workdir, leave
        self._last_beat: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._minutes:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()

    def __call__(self, step: int, state: Any, metrics: Any, *, last: bool) -> None:
        """A hook of the training loop."""
        del step, state, metrics, last
        self.heartbeat()

    def heartbeat(self) -> None:
        """The run is alive: a step is done."""
        self._last_beat = time.monotonic()

    def _watch(self) -> None:
        while not self._ended.wait(min(10.0, 60 * self._minutes / 4)):
            if self._last_beat is not None and time.monotonic() - self._last_beat > 60 * self._minutes:
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
        if is_remote(self._workdir):
            return
        path = pathlib.Path(self._workdir) / f"hang-{jax.process_index()}.txt"
        with contextlib.suppress(OSError), path.open("w") as file:  # a full disk does not keep it from ending
            file.write(f"{message}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
