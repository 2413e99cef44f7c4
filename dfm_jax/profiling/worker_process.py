"""A measuring process: started, listened to, and ended when a measurement runs past its limit."""

import dataclasses
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from dfm_jax.profiling.measurement_plan import Wave
from dfm_jax.profiling.worker_events import read

START_LIMIT = 120.0  # seconds until a process says what its device is


@dataclasses.dataclass
class Watched:
    """What a process is doing, by its events."""

    compiling: set[str] = dataclasses.field(default_factory=set)
    running: str = ""
    partial: dict[str, Any] = dataclasses.field(default_factory=dict)  # numbers so far of what is running
    limit_s: float = START_LIMIT
    since: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def left_s(self) -> float:
        return self.since + self.limit_s - time.monotonic()

    def begin(self, limit_s: float) -> None:
        self.limit_s, self.since = limit_s, time.monotonic()

    def blamed(self, why: str) -> dict[str, dict[str, Any]]:
        """Results of what the process was at when it ended."""
        at = {self.running} if self.running else self.compiling
        doing = f"{'measuring' if self.running else 'compiling'}: {why}"
        return {name: self.partial | {"failed": doing} for name in at}


def run_process(
    command: Sequence[str],
    waves: Sequence[Wave],
    left_s: Callable[[], float],
    on_event: Callable[[dict[str, Any]], None],
) -> dict[str, dict[str, Any]]:
    """Runs a process to its end, or until it passes a limit.

    Args:
      waves: that it measures, with their limits.
      left_s: seconds that all measurements may still take.
      on_event: called with every event.
    Returns:
      results of what it was at, if it did not end well.
    """
    limits = {m.name: m.limit_s for wave in waves for m in wave.measurements}
    compile_limits = {m.name: wave.compile_limit_s for wave in waves for m in wave.measurements}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    watched, line = Watched(), ""
    try:
        while True:
            try:
                line = lines.get(timeout=max(0.0, min(watched.left_s, left_s())))
            except queue.Empty:
                if left_s() <= 0:
                    return watched.blamed("the time for all measurements was up")
                return watched.blamed(f"took longer than {watched.limit_s:.0f} s")
            if line is None:
                break
            if event := read(line):
                _watch(watched, event, limits, compile_limits)
                on_event(event)
    finally:
        end(process, grace_s=10.0 if line is None else 0.0)
    return {} if process.returncode == 0 else watched.blamed(f"the process ended with code {process.returncode}")


def _watch(watched: Watched, event: dict[str, Any], limits: dict[str, float], compile_limits: dict[str, float]) -> None:
    kind, name = event["event"], event.get("name")
    if kind == "compiling":
        watched.compiling, watched.running = set(event["names"]), ""
        watched.begin(compile_limits[event["names"][0]])
    elif kind == "compiled":
        watched.compiling.discard(name)
    elif kind == "begin":
        watched.running, watched.partial = name, {}
        watched.begin(limits[name])
    elif kind == "partial":
        watched.partial = event["numbers"]
    elif kind == "result":
        watched.compiling.discard(name)
        watched.running = ""
        if not watched.compiling:
            watched.begin(START_LIMIT)


def _read_lines(process: subprocess.Popen, lines: queue.Queue) -> None:
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


def end(process: subprocess.Popen, grace_s: float) -> None:
    """Waits for a process to end; after the grace, ends it and all that it started."""
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
