"""What takes long, one after the other in a thread of its own; all browsers see how far it is."""

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable

from dfm_jax.errors import UserError

logger = logging.getLogger(__name__)

MAX_WAITING = 8  # that browsers asked for


class Stopped(Exception):
    """The job was told to end."""


@dataclasses.dataclass
class Job:
    """One thing to do. What does it calls `progress` now and then, which also ends it where it is to end."""

    doing: str  # 'rendering video.mp4'
    work: Callable[["Job"], str]  # returns what to tell when it is done; '': nothing
    owner: object = None  # the browser that asked; None: nobody
    started: float = 0.0
    share: float = 0.0  # that is done
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)
    changed: Callable[["Job"], None] = lambda job: None

    def progress(self, share: float) -> None:
        """
        Raises:
          Stopped: it is to end.
        """
        if self.stopped.is_set():
            raise Stopped
        self.share = min(max(share, 0.0), 1.0)
        self.changed(self)

    @property
    def seconds_left(self) -> float | None:
        """None where nothing can be said yet."""
        return (time.monotonic() - self.started) * (1 / self.share - 1) if self.share > 0 else None


class Jobs:
    """A queue of jobs, and the thread that does them."""

    def __init__(
        self,
        changed: Callable[[Job | None], None],
        ended: Callable[[Job, str, bool], None],
        max_waiting: int = MAX_WAITING,
    ):
        """
        Args:
          changed: is told of the job that is being done, as often as it gets on; None: there is none.
          ended: is told what to tell of a job, and whether all went well.
        """
        self._changed, self._ended, self._max_waiting = changed, ended, max_waiting
        self._waiting: queue.Queue[Job | None] = queue.Queue()
        self._current: Job | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._thread.start()

    def add(self, doing: str, work: Callable[[Job], str], owner: object = None) -> None:
        """
        Raises:
          UserError: too many are waiting.
        """
        with self._lock:
            if self._waiting.qsize() >= self._max_waiting:
                raise UserError(f"{self._max_waiting} things are waiting to be done already: wait, or stop them")
            self._waiting.put(Job(doing, work, owner, changed=self._changed))

    @property
    def busy(self) -> bool:
        return self._current is not None or not self._waiting.empty()

    def stop_all(self) -> None:
        """Ends the current job, where it can be ended, and forgets those that wait."""
        with self._lock:
            while not self._waiting.empty():
                self._waiting.get_nowait()
            if self._current:
                self._current.stopped.set()

    def close(self) -> None:
        self.stop_all()
        self._waiting.put(None)

    def _run(self) -> None:
        while (job := self._waiting.get()) is not None:
            self._current, job.started = job, time.monotonic()
            self._changed(job)
            try:
                self._ended(job, job.work(job), True)
            except Stopped:
                self._ended(job, f"stopped {job.doing}", True)
            except UserError as error:
                self._ended(job, str(error), False)
            except Exception as error:  # whatever it is, the viewer goes on
                logger.error("%s failed: %s: %s", job.doing, type(error).__name__, error, exc_info=error)
                self._ended(job, f"{type(error).__name__}: {error}", False)
            self._current = None
            self._changed(None)
