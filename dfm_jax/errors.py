"""The error that a user can mend, and the one by which a scene or a frame is left out."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dfm_jax.paths import expand_argument


class UserError(Exception):
    """One clear message: what is wrong, where, and how to mend it. Command lines print it without a traceback.

    A name in it that is longer than any path, as damaged files have them, is shown by its ends.

    >>> dfm_jax.example_photo("fox")
    Traceback (most recent call last):
    dfm_jax.errors.UserError: there is no example photograph 'fox': there is 'shapes' and 'toy'
    """

    def __init__(self, message: str):
        super().__init__(re.sub(r"\S{600,}", lambda word: f"{word[0][:200]}...{word[0][-100:]}", str(message)))


class Rejected(Exception):
    """A scene or a frame cannot be used; the text is the reason that goes into the quarantine file.

    Scenes with a `counted_as` are also counted under that name in the summary. `frames` are those of a scene, each with
    its own reason, as far as they are known.
    """

    def __init__(self, reason: str, counted_as: str = "", frames: Sequence[tuple[str, str]] = ()):
        super().__init__(reason)
        self.counted_as, self.frames = counted_as, frames


class Parser(argparse.ArgumentParser):
    """Of a command line whose mistakes are a `UserError`, where argparse would print its usage and exit. A '~' in an
    argument is the user's home."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        arguments = sys.argv[1:] if args is None else args
        return super().parse_known_args([expand_argument(argument) for argument in arguments], namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")
