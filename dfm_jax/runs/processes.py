"""Work that the processes of a run share out. Each does its part on its own devices; the first one writes.

What is found does not depend on their number, where each piece of work depends on itself alone.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax

from dfm_jax.errors import UserError
from dfm_jax.runs import fingerprints
from dfm_jax.runs.barriers import failing_together, gather, is_first

T, R = TypeVar("T"), TypeVar("R")


def share_out(pieces: Sequence[T], work: Callable[[T], R], receive: Callable[[T, R], None]) -> None:
    """Of n processes, number p works on every n-th piece, from the p-th on. The first process receives each piece and
    what was made of it, in their order, as soon as each of them has made one more.

    Raises:
      UserError: a process failed, or was lost.
    """
    count, own = jax.process_count(), jax.process_index()
    for start in range(0, len(pieces), count):
        batch, made = pieces[start : start + count], None
        with failing_together():
            if own < len(batch):
                made = work(batch[own])
        results = gather(made)
        with failing_together():
            if is_first():
                for piece, result in zip(batch, results, strict=False):  # the last ones may have had nothing to do
                    receive(piece, result)


def check_same(value: Mapping[str, Any], what: str) -> None:
    """Raises UserError in all processes if one has another value (settings and fingerprints) than the first."""
    first, *others = gather(value)
    for process, other in enumerate(others, start=1):
        if lines := fingerprints.differences(other, first):
            raise UserError(
                f"process {process} of this run has another {what} than process 0 ({'; '.join(lines[:3])}): give all "
                "of them the same files, in a shared folder or a bucket"
            )


class ResultFiles:
    """Files that each process writes to `folder`: of the first that is where they belong; from the others they are
    taken, and put there by the first."""

    def __init__(self, folder: Path):
        self.folder = folder

    def take(self) -> dict[str, bytes]:
        """What was written since the last time, by its path in the folder, to be handed to the first process."""
        if is_first():
            return {}
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        taken = {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}
        for path in paths:
            path.unlink()
        return taken

    def put(self, taken: Mapping[str, bytes]) -> None:
        for name, content in taken.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@contextlib.contextmanager
def result_files(folder: Path | None) -> Iterator[ResultFiles]:
    """
    Args:
      folder: for the results; None in the other processes, which get one for the time of the block.
    """
    if folder is not None:
        yield ResultFiles(folder)
        return
    with tempfile.TemporaryDirectory(prefix="dfm_jax-") as temporary:
        yield ResultFiles(Path(temporary))
