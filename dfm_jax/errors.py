"""The error that a user can mend."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dfm_jax.paths import expand_argument


class UserError(Exception):
    """One clear message: what is wrong, where, and how to mend it. Command lines print it without a traceback.

    A name in it that is longer than any path, as damaged files have them, is shown by its ends.
    """

    def __init__(self, message: str):
        super().__init__(re.sub(r"\S{600,}", lambda word: f"{word[0][:200]}...{word[0][-100:]}", str(message)))


class Parser(argparse.ArgumentParser):
    """Of a command line whose mistakes are a `UserError`, where argparse would print its usage and exit. A '~' in an
    argument is the user's home."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        arguments = sys.argv[1:] if args is None else args
        return super().parse_known_args([expand_argument(argument) for argument in arguments], namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")
