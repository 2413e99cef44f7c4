"""What a measuring process tells the report that started it: one JSON object a line, on its standard output."""

import json
import os
import sys
from typing import Any, TextIO

_out: TextIO | None = None


def take_standard_output() -> None:
    """Keeps standard output for events; whatever else is printed goes to standard error."""
    global _out
    _out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout = sys.stderr


def emit(event: str, **values: Any) -> None:
    """Events: `device` (what measures), `compiling` (names), `compiled` (name), `begin` (name), `result` (name)."""
    print(json.dumps({"event": event, **values}), file=_out or sys.stdout, flush=True)


def read(line: str) -> dict[str, Any] | None:
    """The event of a line; None for a line that holds none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
