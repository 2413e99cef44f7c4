"""Results that can be gone on with, if they were made from the same: all others are set aside, never mixed or removed.

What results in a folder were made from is `settings.json` beside them: settings and fingerprints.
"""

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfm_jax.runs import fingerprints

FILE = "settings.json"
MOST_DIFFERENCES = 6  # that a message lists


def open_for(folder: Path, made_from: Mapping[str, Any], parts: tuple[str, ...]) -> str:
    """Makes the folder one for results that are made from this; what is there stays if it was, too.

    Args:
      made_from: settings and fingerprints, all that the results depend on; anything that JSON can hold.
      parts: patterns of the names of results in the folder: without any there is nothing to set aside.

    Returns:
      a line that says what was set aside, and why; '' if nothing was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = json.dumps(made_from, indent=1, sort_keys=True) + "\n"
    message = ""
    if any(any(folder.glob(pattern)) for pattern in parts) and (why := _why_not(folder, json.loads(content))):
        message = f"{folder} {why}: kept as {set_aside(folder)}, starting anew"
    _replace(folder / FILE, content)
    return message


def set_aside(folder: Path) -> Path:
    """Moves what is in a folder, but for hidden files (a lock), to a new one beside it; returns that."""
    names = (f"{folder.name}-old-{n}" for n in itertools.count(1))
    kept = next(place for name in names if not (place := folder.with_name(name)).exists())
    kept.mkdir()
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            path.rename(kept / path.name)
    return kept


def _why_not(folder: Path, made_from: Mapping[str, Any]) -> str:
    """Why results cannot be gone on with; '' if they can."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        unknown = [name for name in made_from if name not in found]
    except (OSError, ValueError, TypeError):
        return f"holds results, but not what they were made from ({FILE} is missing or damaged)"
    if unknown:
        return f"holds results that do not say of which {' and '.join(unknown)} they are (of an earlier version)"
    lines = fingerprints.differences(found, made_from)
    more = f", and {len(lines) - MOST_DIFFERENCES} more" if len(lines) > MOST_DIFFERENCES else ""
    return f"holds results of something else ({'; '.join(lines[:MOST_DIFFERENCES])}{more})" if lines else ""


def _replace(path: Path, content: str) -> None:
    """All of it or nothing."""
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(path)
