"""Commands that have another name now."""

import runpy
import sys


def run_as(earlier: str, now: str) -> None:
    """Runs the module `now` as the program that was started as `python -m earlier`."""
    print(f"{earlier} is {now} now", file=sys.stderr)
    runpy.run_module(now, run_name="__main__", alter_sys=True)


def answer(earlier: str, now: str, arguments: str) -> None:
    """Ends the program that was started as `python -m earlier`: what it did is asked for otherwise now."""
    sys.exit(f"error: {earlier} is {now} now: python -m {now} {arguments}")
