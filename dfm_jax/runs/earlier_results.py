"""Results that can be continued, if they were made from the same: all others are set aside, never mixed or removed.

What results in a folder were made from is `settings.json` beside them: settings and fingerprints.
"""

import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfm_jax.config.renamed import current_settings
from dfm_jax.runs import fingerprints, output_folders

FILE = "settings.json"
MOST_DIFFERENCES = 6  # that a message lists


def place_for(folder: Path, made_from: Mapping[str, Any], parts: tuple[str, ...]) -> tuple[Path, str]:
    """Where to write results that are made from this: in the folder, if what is there was, or if nothing is there; else
    in a hidden folder in it, so that what is there stays until the new ones are complete. What that holds of an
    evaluation that was interrupted is continued, or set aside.

    Args:
      made_from, parts: as in `open_for`.

    Returns:
      the place, and lines that say what stays or was set aside, and why; '' if there is nothing to say.
    """
    building, wanted = folder / output_folders.INCOMPLETE, json.loads(json.dumps(made_from))
    output_folders.recover(folder, ())
    holds = lambda place: any(any(place.glob(pattern)) for pattern in parts)
    why = _why_not(folder, wanted) if holds(folder) else ""
    if not why and (holds(folder) or not building.exists()):
        return folder, ""
    lines = [f"{folder} {why}: they stay until the new ones are complete"] if why else []
    if holds(building) and (why := _why_not(building, wanted)):
        lines.append(f"{building} {why}: kept as {set_aside(building, called=folder)}")
    return building, "\n".join(lines)


def put_in_place(folder: Path) -> str:
    """Puts the complete results in that hidden folder where the earlier ones are, which are set aside.

    Returns:
      a line that says where to; '' if there were none.
    """
    there = any(not path.name.startswith(".") for path in folder.iterdir())
    message = f"the earlier results are kept as {set_aside(folder)}" if there else ""
    output_folders.place(folder, ())
    return message


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


def set_aside(folder: Path, called: Path | None = None) -> Path:
    """Moves what is in a folder, but for hidden files (a lock), to a new one beside it, or beside the one that it is
    `called` like; returns that."""
    like = called or folder
    kept = new_folder(like.with_name(f"{like.name}-old"))
    for path in sorted(folder.iterdir()):
        if not path.name.startswith("."):
            path.rename(kept / path.name)
    return kept


def new_folder(stem: Path) -> Path:
    """A folder that was not there, called like `stem` with a number behind it."""
    places = (stem.with_name(f"{stem.name}-{n}") for n in itertools.count(1))
    made = next(place for place in places if not place.exists())
    made.mkdir()
    return made


def _why_not(folder: Path, made_from: Mapping[str, Any]) -> str:
    """Why results cannot be continued; '' if they can."""
    try:
        found = current_settings(json.loads((folder / FILE).read_text(encoding="utf-8")), tell=False)
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
