"""Commands that moved: their earlier names still work, and say the new ones."""

import runpy
import sys


def run_as(earlier: str, now: str) -> None:
    """Runs the module `now` as the program that was started as `python -m earlier`."""
    print(f"{earlier} is {now} now", file=sys.stderr)
    runpy.run_module(now, run_name="__main__", alter_sys=True)
