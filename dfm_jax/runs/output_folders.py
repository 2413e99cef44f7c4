"""Results are written beside those that are there, and take their place when they are complete.

In the folder itself, so that it may be a disk of its own, or hold other things of its owner:

    .incomplete/   results that are being written
    .complete/     complete ones; the earlier ones are being moved to .replaced
    .placing/      complete ones; the earlier ones are gone from their places, and these are being moved there
    .replaced/     the earlier ones

Whatever ends the program, what was there is there still, or the next command puts the complete results in place.
"""

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfm_jax import interrupts
from dfm_jax.errors import UserError
from dfm_jax.runs.lock import locked

INCOMPLETE, COMPLETE, PLACING, REPLACED = ".incomplete", ".complete", ".placing", ".replaced"
PAGES = ".pages"
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_FOLDER = (errno.EEXIST, errno.ENOTDIR)
PROBE_BYTES = 2**16  # an empty file has room on a full disk, too


@contextlib.contextmanager
def replacing(folder: Path, ours: Sequence[str], doing: str, num_bytes: int = 0) -> Iterator[Path]:
    """Yields an empty folder to write results to. They take their places in `folder` when the block ends without an
    error; else `folder` holds what it held before. Nobody else writes there meanwhile.

    Args:
      ours: patterns of the names of such results: earlier ones that the new ones do not replace are removed. What
        else lies in the folder stays.
      doing: what others are told that this process does there: 'sampling'.
      num_bytes: what the results will need at least.

    Raises:
      UserError: another process is at it, the folder cannot be written, or the disk is or becomes full.
    """
    building = folder / INCOMPLETE
    with writing_to(folder, doing, f"what was in {folder} stays", num_bytes):
        recover(folder, ours)
        shutil.rmtree(building, ignore_errors=True)  # of a program that was killed
        building.mkdir()
        try:
            yield building
            place(folder, ours)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def check_ours(folder: Path, ours: Sequence[str], mark: str) -> None:
    """Sees that what is to be replaced in a folder that someone named is of an earlier command of this kind.

    Args:
      ours: patterns of names, as in `replacing`.
      mark: the file that is there if it is.

    Raises:
      UserError: it is something else.
    """
    found = sorted(path.name for each in ours for path in folder.glob(each))
    if found and not (folder / mark).exists():
        raise UserError(f"{folder} holds {found[0]} of something else, which would be replaced: give another --out")


@contextlib.contextmanager
def writing_to(folder: Path, doing: str, stays: str, num_bytes: int = 0) -> Iterator[None]:
    """Within it, nobody else writes results to the folder, which is made if it is missing.

    Args:
      doing, num_bytes: as in `replacing`.
      stays: what is told after Ctrl-C and errors: 'what was there stays'.

    Raises:
      UserError: as `replacing`.
    """
    made = not folder.exists()
    check_room(folder, num_bytes)
    try:
        with (
            locked(folder, doing, "wait until it ends"),
            reporting_write_errors(folder, stays),
            interrupts.staying(stays),
        ):
            yield
    finally:
        if made:
            with contextlib.suppress(OSError):  # there is something in it
                folder.rmdir()


@contextlib.contextmanager
def replacing_files(folder: Path) -> Iterator[Path]:
    """Yields an empty folder for files that belong to results in `folder`; each takes its place when the block ends
    without an error. To be used within `writing_to`."""
    building = folder / PAGES
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        yield building
        for path in _pages_last(building):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def place(folder: Path, ours: Sequence[str]) -> None:
    """Puts the results in `.incomplete`, which are complete, in their places."""
    shutil.rmtree(folder / REPLACED, ignore_errors=True)
    (folder / INCOMPLETE).rename(folder / COMPLETE)
    recover(folder, ours)


def recover(folder: Path, ours: Sequence[str]) -> None:
    """Puts complete results in their places, if there are any that are not."""
    complete, placing, replaced = (folder / name for name in (COMPLETE, PLACING, REPLACED))
    if complete.exists():
        _take_away(folder, complete, ours, replaced)
        complete.rename(placing)
    if placing.exists():
        for path in _pages_last(placing):
            path.rename(folder / path.name)
        placing.rmdir()
    shutil.rmtree(replaced, ignore_errors=True)


def _pages_last(folder: Path) -> list[Path]:
    """What is in a folder, in an order in which that which pages show is there before them."""
    return sorted(folder.iterdir(), key=lambda path: (path.suffix == ".html", path.name))


def _take_away(folder: Path, complete: Path, ours: Sequence[str], replaced: Path) -> None:
    """Moves what is to be replaced, all of it or nothing."""
    names = {path.name for path in complete.iterdir()} | {path.name for each in ours for path in folder.glob(each)}
    replaced.mkdir(exist_ok=True)
    moved = []
    try:
        for name in sorted(name for name in names if os.path.lexists(folder / name)):
            (folder / name).rename(replaced / name)
            moved.append(name)
    except OSError:
        for name in moved:
            (replaced / name).rename(folder / name)
        complete.rename(folder / INCOMPLETE)
        raise


@contextlib.contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Yields where to write a file; it takes its place when the block ends without an error.

    Raises:
      UserError: another process writes it, or it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.incomplete")
    with reporting_write_errors(path.parent), interrupts.staying(f"{path} was not written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(f"{path} is being written by another process: wait until it ends") from error
            except OSError:
                pass  # a file system without locks
            try:
                yield unfinished
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)


def check_room(folder: Path, num_bytes: int = 0) -> None:
    """Sees that the folder, which is made if it is missing, can be written and has room.

    Raises:
      UserError: it has not.
    """
    with reporting_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".writable-{os.getpid()}"
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise UserError(
            f"{folder} is on a disk with {_megabytes(free)} free, and what is written there needs "
            f"{_megabytes(num_bytes)} or more: make room, and start the same command again"
        )


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"


@contextlib.contextmanager
def reporting_write_errors(folder: Path, stays: str = "nothing is lost") -> Iterator[None]:
    """Within it, a disk that is full or may not be written is a UserError that names the folder. Other errors stay what
    they are: not all that is read within it lies there."""
    try:
        yield
    except OSError as error:
        cure = cure_of(error)
        there = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(folder)
        if error.errno not in FULL and not there:
            raise
        raise UserError(f"{folder} cannot be written ({error}): {cure}; {stays}") from error


def cure_of(error: BaseException) -> str:
    """What helps against an error while writing; also of libraries that say in words what the system said."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    numbers = {getattr(each, "errno", None) for each in chain}
    said = lambda kinds: any(number in numbers or os.strerror(number) in str(error) for number in kinds)
    if said(FULL):
        return "see that the disk has room, and start the same command again"
    if said(REFUSED):
        return "see that it may be written, and start the same command again"
    if said(NO_FOLDER):
        return "a file stands where a folder is needed: give another one"
    if said([errno.ENOENT]):
        return "files of it were removed by something else; see what works there, and start the same command again"
    return "start the same command again"
