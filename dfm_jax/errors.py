"""The error that a user can mend."""

import argparse
from typing import NoReturn


class UserError(Exception):
    """One clear message: what is wrong, where, and how to mend it. Command lines print it without a traceback."""


class Parser(argparse.ArgumentParser):
    """Of a command line whose mistakes are a `UserError`, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")
