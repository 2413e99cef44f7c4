"""Finding pictures and other files of a source, and naming what is found.

Hidden is what a person does not see: names with a leading dot (also the `._*` that macOS leaves on other disks), and
the folders in which systems keep copies, thumbnails and what was deleted. A source itself may lie in such a folder.
"""

import functools
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from dfm_jax.data.loading.text_files import as_text, lines, parse_json
from dfm_jax.data.pictures.picture_kinds import SUFFIXES
from dfm_jax.errors import Rejected, UserError

HIDDEN = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}
REDUCED = (1, 2, 4, 8)  # by which pictures of `images`, `images_2`, ... are smaller
LONGEST = 200  # letters of a path that are shown
NAMED = 3  # of several files that may be meant
PACKED = (".zip", ".r3d", ".tar", ".gz", ".tgz", ".7z")  # .r3d: Record3D's recordings, which are zip archives

T = TypeVar("T")


def read_file(path: Path) -> bytes:
    """Raises:
    Rejected: it cannot be read, or is no ordinary file: reading a pipe might never end.
    """
    if not os.path.isfile(path):
        raise Rejected(f"{path.name} is missing, or no file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read ({error})") from error


def read_lines(path: Path) -> list[str]:
    """A text file's.

    Raises:
      Rejected: it is none, or cannot be read.
    """
    try:
        return lines(read_file(path))
    except ValueError as error:
        raise Rejected(f"{path.name} cannot be read ({error})") from error


def read_words(path: Path) -> list[str]:
    """A text file's, whatever its lines are."""
    return " ".join(read_lines(path)).split()


def read_object(path: Path) -> Mapping[str, Any]:
    """A JSON file that holds an object.

    Raises:
      Rejected: it does not, or cannot be read.
    """
    try:
        content = parse_json(read_file(path))
    except ValueError as error:
        raise Rejected(f"{path.name} is no JSON ({error})") from error
    if not isinstance(content, Mapping):
        raise Rejected(f"{path.name} holds no JSON object")
    return content


def find_picture(root: Path, folder: Path, name: str) -> Path:
    """The file that a source calls `name`, relative to `folder`.

    Its suffix may be lacking, `/` may be written `\\`, and where there is no such file, one is taken whose name differs
    in case, in its suffix or in how Unicode composes its letters, if it is the only one.

    Raises:
      Rejected: it is missing, several may be meant, or it is not below `root`: what a file lists must not reach the
        rest of the disk.
    """
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):  # on Windows, `\` parts folders
        path = Path(os.path.normpath(folder.absolute() / spelling))
        if Path(os.path.normpath(root.absolute())) not in path.parents:
            raise Rejected("image path leads out of the source")
        for candidate in (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)):
            if os.path.isfile(candidate):  # False, too, for names that no file can have
                return candidate
    looked_for = f"image is missing: looked for {_shown(folder, path)}"
    alike = _alike(folder.absolute(), Path(os.path.relpath(path, folder.absolute())).parts)
    if len(alike) > 1:
        others = ", ".join(as_text(found.name) for found in alike[:NAMED])
        raise Rejected(f"{looked_for}, and any of {others} may be meant")
    if not alike:
        raise Rejected(looked_for)
    return alike[0]


def _shown(folder: Path, path: Path) -> str:
    """A path from a folder's own name on: the same wherever that lies."""
    folder = folder.absolute()
    return as_text(os.path.normpath(os.path.join(folder.name, os.path.relpath(path, folder))))[:LONGEST]


def find_scaled_picture(root: Path, folder: Path, name: str) -> tuple[Path, float]:
    """Like `find_picture`, or else a reduced copy: `images_4/1.png` for `images/1.png`, the largest that there is.

    Returns:
      the file, and by how much it is smaller than the one that was named, from the folders' names.
    """
    try:
        return find_picture(root, folder, name), 1.0
    except Rejected as missing:
        path = PurePosixPath(name.replace("\\", "/"))
        base, named = _reduced(path.parent.name)
        for factor in REDUCED if base.strip(".") else ():
            try:
                other = path.parent.with_name(base if factor == 1 else f"{base}_{factor}") / path.name
                return find_picture(root, folder, str(other)), factor / named
            except Rejected:
                continue
        raise missing


def _reduced(folder: str) -> tuple[str, int]:
    """('images', 4) for images_4, and ('images', 1) for images."""
    base, _, factor = folder.rpartition("_")
    return (base, int(factor)) if base and factor in map(str, REDUCED) else (folder, 1)


def _alike(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    """Files below a folder that may be meant by a path's parts, sorted."""
    first, *rest = parts
    if first == os.pardir:
        return _alike(folder.parent, tuple(rest)) if rest else []
    listed = _listing(str(folder), _modified(folder))
    if rest:
        named = [folder / first] if os.path.isdir(folder / first) else [folder / n for n in listed.get(_key(first), ())]
        return [found for inner in named if os.path.isdir(inner) for found in _alike(inner, tuple(rest))]
    exact = [folder / found for found in listed.get(_key(first), ())]  # but for case and composition
    stem, suffix = os.path.splitext(_key(first))
    stems = {_key(first)} | ({stem} if suffix in SUFFIXES else set())
    others = [
        folder / found
        for key, names in listed.items()
        if os.path.splitext(key)[1] in SUFFIXES and os.path.splitext(key)[0] in stems
        for found in names
    ]
    return [path for path in exact if os.path.isfile(path)] or sorted(filter(os.path.isfile, others))


def _modified(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return 0


@functools.lru_cache(maxsize=64)
def _listing(folder: str, modified: int) -> dict[str, list[str]]:
    """Names of what is in a folder and can be seen, by their keys; `modified`, when it last changed."""
    del modified
    names: dict[str, list[str]] = {}
    try:
        for name in sorted(os.listdir(folder)):
            if not is_hidden(name):
                names.setdefault(_key(name), []).append(name)
    except (OSError, ValueError):
        return {}
    return names


def _key(name: str) -> str:
    """Equal for names that differ in case or in how Unicode composes their letters only."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is one that a person does not see."""
    return name.startswith(".") or name.lower() in HIDDEN


def natural_key(name: str) -> list[Any]:
    """Sorts r_2 before r_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at or below `root` with its files' names; sorted, following links but not in circles, and without
    what is hidden.

    Raises:
      UserError: there is no such folder.
    """
    if not root.is_dir():
        packed = ": unpack it first" if root.suffix.lower() in PACKED and root.is_file() else ""
        raise UserError(f"--source={root} is not a folder{packed}")
    seen = set()
    for parent, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted((name for name in names if not is_hidden(name)), key=natural_key)
        yield Path(parent), sorted(name for name in files if not is_hidden(name))


def scenes_in(root: Path, is_scene: Callable[[Path, Sequence[str]], bool], wanted: str) -> dict[str, Path]:
    """Folders at or below `root` that are scenes, by name; `is_scene` sees a folder and the names of its files.

    Raises:
      UserError: there are none of what is `wanted`.
    """
    found = [(scene_name(root, folder), folder) for folder, names in folders(root) if is_scene(folder, names)]
    if not found:
        raise UserError(f"no {wanted} was found at or below --source={root}")
    return distinct(found)


def pictures_in(folder: Path) -> list[str]:
    """Names of the pictures that a person sees in a folder, sorted as computers do: 10.png before 2.png."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:  # no folder
        return []
    seen = [name for name in names if os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)]
    return [name for name in seen if os.path.isfile(folder / name)]


def views_of(pictures: Iterable[str], cameras: Iterable[str], suffix: str) -> dict[str, str]:
    """Stems of all views of a scene, by the names of their pictures, whether these are there or only their cameras.

    Args:
      pictures: names of the pictures that there are.
      cameras: stems of the cameras.
      suffix: of the pictures that are missing.
    """
    found = {os.path.splitext(name)[0]: name for name in pictures}
    stems = sorted({*found, *cameras}, key=natural_key)
    return {found.get(stem, f"{stem}{suffix}"): stem for stem in stems}


def stems_in(folder: Path, ending: str) -> list[str]:
    """Names without it of the files in a folder that end so and that a person sees."""
    names = sorted((path.name for path in folder.glob(f"*{ending}")), key=natural_key)
    return [name.removesuffix(ending) for name in names if not is_hidden(name)]


def scene_name(root: Path, folder: Path) -> str:
    """'a-b' for root/a/b, and the root's own name for itself. Two folders may have the same; see `distinct`."""
    parts = folder.relative_to(root).parts or (root.resolve().name,)
    return as_text("-".join(parts))


def distinct(named: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Things by name, where names that are taken get a number: `room-1`, `room-1~2`.

    Names that differ in case only count as the same: results are files, and not every disk can tell them apart.
    """
    found: dict[str, T] = {}
    taken: set[str] = set()
    for name, thing in named:
        candidates = (name if number == 1 else f"{name}~{number}" for number in range(1, len(taken) + 2))
        free = next(candidate for candidate in candidates if _key(candidate) not in taken)
        taken.add(_key(free))
        found[free] = thing
    return found
