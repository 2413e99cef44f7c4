"""Files that a scene can be exported to, by name and by suffix. A format is one line of FORMATS."""

import dataclasses
import logging
import os
import pkgutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import NUM_VIEWS, Frame, RenderableScene
from dfm_jax.exports.renderings import SceneViews, of_samples

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Format:
    """`write` names a function of `SceneViews` and a path, which writes the file or folder and returns what is to be
    told of it, as JSON can hold it; it is imported when it is used."""

    kind: str
    suffix: str  # of a file; '': it is a folder
    write: str
    stem: str = ""  # of its file among others of one scene; '': the kind
    shows_all: bool = False  # samples behind the same pictures: one file is enough for them

    @property
    def file_name(self) -> str:
        return f"{self.stem or self.kind}{self.suffix}"


# Of several with one suffix, the first is taken where no kind is named.
FORMATS = (
    Format("gaussians", ".ply", "dfm_jax.exports.splat_files:write_ply"),
    Format("points", ".ply", "dfm_jax.exports.points:write"),
    Format("mesh", ".glb", "dfm_jax.exports.mesh:write"),
    Format("gaussians", ".glb", "dfm_jax.exports.splat_files:write_glb"),
    Format("html", ".html", "dfm_jax.viewer.page:write", stem="scene", shows_all=True),
    Format("transforms", "", "dfm_jax.exports.camera_files:write_transforms"),
    Format("colmap", "", "dfm_jax.exports.camera_files:write_colmap"),
)
KINDS = tuple(dict.fromkeys(each.kind for each in FORMATS))
SUFFIXES = tuple(dict.fromkeys(each.suffix for each in FORMATS if each.suffix))


def of_name(name: str, others: Sequence[str] = ()) -> Format:
    """The format of a kind, or the first of a suffix without its dot.

    Args:
      others: names that may be given as well, for the message.

    Raises:
      UserError: there is none.
    """
    for each in FORMATS:
        if each.kind == name:
            return each
    for each in FORMATS:
        if each.suffix == f".{name}":
            return each
    names = dict.fromkeys([*KINDS, *(suffix[1:] for suffix in SUFFIXES), *others])
    raise UserError(f"there is no format {name!r}; there are {', '.join(names)}")


def choose(path: str | os.PathLike, kind: str | None = None) -> Format:
    """The format of a file or folder of this name.

    Raises:
      UserError: there is none.
    """
    suffix = Path(path).suffix.lower()
    if kind is not None and kind not in KINDS:
        raise UserError(f"there is no kind={kind!r} of export; there are {', '.join(KINDS)}")
    fitting = [each for each in FORMATS if kind in (None, each.kind) and each.suffix in (suffix, "")]
    files = [each for each in fitting if each.suffix]
    if files or (kind is not None and fitting):
        return (files or fitting)[0]
    if kind is not None:
        ends = ", ".join(each.suffix for each in FORMATS if each.kind == kind)
        raise UserError(f"{path}: kind={kind!r} is written to a file that ends in {ends}")
    folders = " or ".join(repr(each.kind) for each in FORMATS if not each.suffix)
    raise UserError(
        f"{path} says nothing about what to write: a file ends in {', '.join(SUFFIXES)}; a folder needs kind={folders}"
    )


def export(views: SceneViews, path: str | os.PathLike, kind: str | None = None) -> dict[str, Any]:
    """Writes a file or folder of a scene.

    Returns:
      the `file`, the `frame` and the `scale` (units of the file in one of the model) that it is in, and what else is to
      be told of it.

    Raises:
      UserError: there is no such format, or it cannot be written there.
    """
    chosen, path = choose(path, kind), Path(path)
    if path.is_dir() if chosen.suffix else path.exists() and not path.is_dir():
        is_, wanted = ("a folder", "a file") if chosen.suffix else ("a file", "a folder")
        raise UserError(f"{path} is {is_}, and {chosen.kind} is {wanted}: give another path")
    told = pkgutil.resolve_name(chosen.write)(views, path)
    frame = views.scene.frame
    return {"file": str(path), "kind": chosen.kind, "frame": frame.name, "scale": frame.scale, **told}


def export_scene(
    scenes: Sequence[RenderableScene],
    number: int,
    path: str | os.PathLike,
    kind: str | None = None,
    num_views: int = NUM_VIEWS,
    size: int | None = None,
) -> dict[str, Any]:
    """`export` of one of the scenes that were sampled behind the same pictures.

    Raises:
      UserError: as `export`, or there cannot be so many views, or views of that size.
    """
    views = of_samples(scenes, num_views, size)[number]
    told = export(views, path, kind)
    tell_unknown([views.scene.frame])
    return told


def tell_unknown(frames: Iterable[Frame]) -> None:
    """Says so, where files do not lie in the coordinates of a source, since these are not known."""
    if any(frame.name == "dataset" for frame in frames):
        logger.warning(
            "the coordinates are those of the data set (frame: dataset): what preparing it changed is not known; "
            "prepared again, and sampled again, it is"
        )
