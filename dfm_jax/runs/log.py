"""What commands say while they run."""

import sys

import jax


def say(message: str) -> None:
    """One line on the terminal (standard error), from the first process only."""
    alone = not jax.distributed.is_initialized()  # not to start a device: the others may not be joined yet
    if alone or jax.process_index() == 0:
        print(message, file=sys.stderr, flush=True)
