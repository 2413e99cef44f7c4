"""One program at a time writes to a folder: a lock that ends with its process, however that ends.

The file `.lock` in the folder names its holder, who also has the system's lock on it (flock): another is refused at
once, and a killed process loses it at once. In buckets, on file systems without such locks, and on shared ones, where
it may hold on one machine only, the holder rewrites the file every `BEAT_SECONDS` as well. A program that finds it
watches that heartbeat for up to `STALE_SECONDS`: it is refused as soon as the heart beats, and takes over a lock whose
heart does not. No clocks of two machines are compared.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import logging
import os
import pathlib
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from dfm_jax.errors import UserError

logger = logging.getLogger(__name__)

FILE = ".lock"
BEAT_SECONDS = 20.0
STALE_SECONDS = 90.0
SETTLE_SECONDS = 1.0  # after which a bucket shows which of two that wrote at once was the last
RECORD_BYTES = 1024  # of the file, in place: a heartbeat needs no room on a full disk
LOCAL = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "tmpfs", "ramfs", "overlay", "ecryptfs"}
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}  # what systems say that have no flock


@dataclasses.dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    host: str
    pid: int
    since: str  # date and time, with the zone
    doing: str  # such as 'training'
    machine: str  # a host until it is booted again, and the container in it whose process numbers count
    token: str  # differs for each time that a lock is taken
    beat: int = 0

    @classmethod
    def this_process(cls, doing: str) -> "Holder":
        since = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
        return cls(socket.gethostname(), os.getpid(), since, doing, _machine(), uuid.uuid4().hex)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} has been {self.doing} there since {self.since}"


@contextlib.contextmanager
def locked(
    folder: pathlib.Path, doing: str, otherwise: str, lost: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Within it, this process alone is in the folder, which is made if it is missing. Reading does not need the lock.

    Args:
      folder: local, or a bucket's by etils.epath.
      doing: what this process does there, for others: 'training'.
      otherwise: what a person can do who is refused.
      lost: called in another thread where another process took the lock over, since this one's heart stood still (a
        suspended machine); None: this program ends with a message.

    Raises:
      UserError: another process holds it, or the folder cannot be written.
    """
    lock = Lock(folder, doing, otherwise, lost or _end)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


class Lock:
    """See `locked`."""

    def __init__(self, folder: pathlib.Path, doing: str, otherwise: str, lost: Callable[[str], None]):
        self._folder, self._path = folder, folder / FILE
        self._doing, self._otherwise, self._lost = doing, otherwise, lost
        self._remote = "://" in str(folder)
        self._file: int | None = None  # descriptor; None in a bucket
        self._flocked = False
        self._enough = False  # that lock: no other machine sees the folder
        self._made = False  # the folder
        self._ended, self._heart = threading.Event(), None

    def acquire(self) -> None:
        try:
            self._made = not self._remote and not self._folder.exists()
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._remote:
                self._open()
            self._enough = self._flocked and _is_on_a_local_disk(self._folder)
            if not self._enough:
                self._refuse_if_alive()
            self._me = Holder.this_process(self._doing)
            self._write(self._me)
            if not self._flocked:
                time.sleep(SETTLE_SECONDS)
                if (last := self._read()) and last.token != self._me.token:
                    raise self._refusal(last)
        except Exception as error:
            if self._flocked:
                self._path.unlink(missing_ok=True)
            self._close()
            if isinstance(error, UserError) or not (isinstance(error, OSError) or self._remote):
                raise
            raise UserError(
                f"{self._folder} cannot be written ({getattr(error, 'strerror', None) or error}): give a --workdir on "
                "a disk that is not full and may be written"
            ) from error
        if not self._enough:
            self._heart = threading.Thread(target=self._beat, name="lock", daemon=True)
            self._heart.start()

    def release(self) -> None:
        self._ended.set()
        if self._heart:
            self._heart.join()
        with contextlib.suppress(Exception):
            if (last := self._read()) and last.token == self._me.token:
                self._path.unlink()
        self._close()

    def _open(self) -> None:
        """Opens the file, and takes the system's lock where there is one."""
        while True:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._flocked = True
            except BlockingIOError:
                raise self._refusal(self._read_patiently()) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                return
            if self._is_current():
                return
            self._close()  # its last holder has just removed it

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _refuse_if_alive(self) -> None:
        """Where a record is there: a killed process left it, or it is held on another machine."""
        last = self._read()
        if last is None or (last.machine == _machine() and (self._flocked or not _is_running(last.pid))):
            return
        logger.warning(
            f"{self._folder} was in use by process {last.pid} on {last.host}: waiting up to {STALE_SECONDS:.0f} s for "
            "a sign of its life"
        )
        end = time.monotonic() + STALE_SECONDS
        while time.monotonic() < end:
            time.sleep(min(1.0, BEAT_SECONDS / 4))
            now = self._read()
            if now and now != last:
                raise self._refusal(now)
            if not self._path.exists():
                return

    def _refusal(self, holder: Holder | None) -> UserError:
        return UserError(f"{self._folder} is in use: {holder or 'another process is writing there'}; {self._otherwise}")

    def _read_patiently(self) -> Holder | None:
        """Of one that has just taken the lock, and is about to write its name."""
        for _ in range(20):
            if holder := self._read():
                return holder
            time.sleep(0.05)
        return None

    def _read(self) -> Holder | None:
        try:
            return Holder(**json.loads(self._path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _write(self, holder: Holder) -> None:
        text = json.dumps(dataclasses.asdict(holder)).ljust(RECORD_BYTES - 1) + "\n"
        if self._file is None:
            self._path.write_text(text)
        else:
            os.pwrite(self._file, text.encode(), 0)
            os.fsync(self._file)  # for other machines to see

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(Exception):  # a network that is away for a moment, in words of its library
                last = self._read()
                if last and last.token != self._me.token:
                    self._lost(f"error: {self._folder} was taken over: {last}. This process ends")
                    return
                self._me = dataclasses.replace(self._me, beat=self._me.beat + 1)
                self._write(self._me)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file, self._flocked = None, False
        if self._made:
            with contextlib.suppress(OSError):  # there is something in it
                self._folder.rmdir()


def _machine() -> str:
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _is_on_a_local_disk(folder: pathlib.Path) -> bool:
    """By the kind of its file system, where the system tells it (Linux)."""
    try:
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return True
    kinds = {line.split()[4]: line.split(" - ", 1)[1].split()[0] for line in lines}  # by mount point
    folder = folder.resolve()
    return next((kinds[str(place)] in LOCAL for place in (folder, *folder.parents) if str(place) in kinds), False)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _end(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
    os._exit(1)
