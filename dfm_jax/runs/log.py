"""How commands show what this package logs: plain lines on standard error, from the first process only."""

import functools
import logging
import sys
from collections.abc import Callable, Sequence

import jax

from dfm_jax.errors import UserError

logger = logging.getLogger(__name__)


class _Terminal(logging.StreamHandler):
    """Writes to what is standard error at that time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.setFormatter(logging.Formatter("%(message)s"))
        self.addFilter(_is_shown)

    @property
    def stream(self) -> object:
        return sys.stderr


def to_terminal() -> None:
    """From now on this process shows what is logged, from `INFO` on; of several processes, the others show errors only.
    A module that runs as a program logs as '__main__'."""
    for name in ("dfm_jax", "__main__"):
        shown = logging.getLogger(name)
        if not any(isinstance(handler, _Terminal) for handler in shown.handlers):
            shown.addHandler(_Terminal())
            shown.setLevel(logging.INFO)
            shown.propagate = False  # libraries have handlers of their own at the root


def command(run: Callable[[Sequence[str]], int]) -> Callable[[Sequence[str]], int]:
    """Of a function that does what the arguments of a command line say and returns the exit code: shows its log on the
    terminal, and answers what a user can mend by one line and exit code 1."""

    @functools.wraps(run)
    def main(argv: Sequence[str]) -> int:
        to_terminal()
        try:
            return run(argv)
        except (UserError, OSError) as error:  # OSError: no space left, no permission, a disk that went away
            logger.error(f"error: {error}")
            return 1

    return main


def _is_shown(record: logging.LogRecord) -> bool:
    alone = not jax.distributed.is_initialized()  # not to start a device: the others may not be joined yet
    return record.levelno >= logging.ERROR or alone or jax.process_index() == 0
