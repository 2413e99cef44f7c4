"""Paths as people write them, and the files that come with the package."""

import os
import pathlib
import re

PACKAGE = pathlib.Path(__file__).parent
RUNS = pathlib.Path("runs")  # where workdirs lie that nothing else is said of
# The copy of the folder `configs/` that is installed with the package; in a checkout, the folder itself.
CONFIGS = (PACKAGE / "_configs", PACKAGE.parent / "configs")


def expand_home(path: str) -> str:
    """With a leading '~' as the user's home, as a shell would have it; unchanged where there is no home."""
    return os.path.expanduser(path) if path.startswith("~") else path


def expand_argument(argument: str) -> str:
    """The same for an argument of a command line: a shell leaves the '~' in '--workdir=~/runs' and 'label=~/runs'."""
    name, path = re.fullmatch(r"(?s)((?:[^=~/]*=)?)(.*)", argument).groups()
    return name + expand_home(path)


def cache_folder() -> pathlib.Path | None:
    """Where programs keep what they can make again: $XDG_CACHE_HOME, or ~/.cache; None where the user has no home."""
    try:
        return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache").expanduser()
    except RuntimeError:  # no HOME, and no entry among the machine's users
        return None


def shipped(path: str) -> pathlib.Path | None:
    """The file or folder that a path below 'configs' names in the package; None if there is none."""
    parts = pathlib.PurePath(path).parts
    if parts[:1] != ("configs",) or ".." in parts:
        return None
    candidates = [folder.joinpath(*parts[1:]) for folder in CONFIGS if (folder / "toy.py").is_file()]
    return next((candidate for candidate in candidates if candidate.exists()), None)


def workdir_of_config(config: str) -> str:
    """The workdir of a command that names none: 'runs/co3d-128' of configs/co3d.py:128."""
    file, _, variant = config.partition(":")
    words = [pathlib.PurePath(file).stem, *re.findall(r"[\w.]+", variant)]
    return str(RUNS / "-".join(words))
