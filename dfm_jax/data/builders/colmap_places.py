"""Where COLMAP's models and the pictures that they are about lie, and which belong together.

3D Gaussian splatting, for one, leaves two models and two folders of pictures of the same names: `distorted/sparse/0`
was made of what is in `input`, and `sparse/0` of `images`, from which lens distortion has been taken. The lens of one
must never be laid on the pictures of the other, so that each model is matched with a folder: by the names and the sizes
of its pictures, and, where both are alike, by the custom that `input` is distorted and `images` is not.
"""

import dataclasses
import os
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from dfm_jax.data.builders import colmap_model, source_files, uprightness
from dfm_jax.data.builders.colmap_model import Model
from dfm_jax.data.pictures import pictures
from dfm_jax.data.pictures.picture_kinds import SUFFIXES
from dfm_jax.errors import Rejected

PICTURES = ("images", "images_2", "images_4", "images_8", "input", "")  # '' : beside
# What folders of pictures may be called.
MORE_PICTURES = re.compile(r"\w*(images?|imgs?|input|rgb|colou?r|frames|photos?|pictures)\w*", re.IGNORECASE)
MODEL_FOLDERS = ("sparse", "colmap", "distorted", "model")  # how names of folders above a model begin, or a number
RAW_MODEL, RAW_PICTURES = "distorted", "input"  # how names begin of what still has its lens distortion
TRIED = 20  # images of a model that are looked for before a folder is given up, and whose sizes are compared
SIZE_TOLERANCE = 1  # pixels of a reduced picture: sides are rounded
OTHER, SCALED, EXACT = range(3)  # of pictures, against the size that their cameras are for


@dataclasses.dataclass(frozen=True)
class Pair:
    """A model and a folder of pictures that it may be about."""

    model: Model
    folder: Path  # of the model
    pictures: Path
    found: int  # images of the model that are in there
    size: int  # OTHER, SCALED or EXACT
    raw_model: bool  # whether lens distortion is still in it
    raw_pictures: bool

    @property
    def quality(self) -> tuple[bool, bool, int]:
        return self.size > OTHER, self.raw_model == self.raw_pictures, self.size


def upwards(model: Path) -> Iterator[Path]:
    """The model's folder and those above it, up to the first whose name does not belong to a model's place."""
    yield model
    for folder in model.parents:
        if not (model.name.isdecimal() or model.name.startswith(MODEL_FOLDERS)):
            return
        model = folder
        yield folder


def capture_of(model: Path) -> Path:
    """The folder that a model belongs to: the nearest with pictures, or else the one that holds all of its place."""
    places = list(upwards(model))
    named = [name for name in PICTURES if name]
    return next((place for place in places if any(os.path.isdir(place / name) for name in named)), places[-1])


def choose(models: Sequence[tuple[Model, Path]]) -> Pair | None:
    """Of the models of a capture, the most likely first, the one with the most images whose pictures are there, and
    the folder of those; None where no picture of any is."""
    pairs = [pair for model, folder in models for pair in _pairs(model, folder.absolute())]
    likely = [pair for pair in pairs if not any(_owns(other, pair) for other in pairs)]
    return max(likely, key=lambda pair: pair.found, default=None)  # the first of the largest


def _owns(other: Pair, pair: Pair) -> bool:
    """Whether the model or the pictures of a pair are rather another one's."""
    if other.quality <= pair.quality:
        return False
    return other.pictures == pair.pictures or (other.folder == pair.folder and 2 * other.found >= pair.found)


def _pairs(model: Model, folder: Path) -> Iterator[Pair]:
    places = list(upwards(folder))
    names = [image.name for image in model.images]
    raw = any(map(colmap_model.bends, model.cameras.values())) or any(
        place.name.startswith(RAW_MODEL) for place in places[:-1]
    )
    for place in places:
        for inside in picture_folders(place):
            if any(is_there(inside, name) for name in names[:: max(1, len(names) // TRIED)]):
                found = [image for image in model.images if is_there(inside, image.name)]
                size = _compare_sizes(model, inside, found[:: max(1, len(found) // TRIED)])
                raw_pictures = inside.name.startswith(RAW_PICTURES) and inside != place
                yield Pair(model, folder, inside, len(found), size, raw, raw_pictures)


def picture_folders(place: Path) -> list[Path]:
    """Where pictures may lie beside or around a model, the most likely first."""
    inside = [path.name for path in sorted(place.iterdir()) if is_named(path) and path.is_dir()]
    named = dict.fromkeys([*(name for name in PICTURES if name), *inside])
    return [*(place / name for name in named if name in inside), place]


def is_named(folder: Path) -> bool:
    """Whether a folder is called as those that hold pictures and nothing else."""
    return bool(MORE_PICTURES.fullmatch(folder.name))


def is_there(folder: Path, name: str) -> bool:
    try:
        return bool(source_files.find_picture(folder, folder, name))
    except Rejected:
        return False


def _compare_sizes(model: Model, folder: Path, images: Sequence[colmap_model.Image]) -> int:
    """The usual outcome: OTHER, SCALED or EXACT."""
    suffix = re.search(r"_(\d{1,2})$", folder.name)
    factor = int(suffix[1]) if suffix else 1
    outcomes = []
    for image in images:
        camera = model.cameras.get(image.camera)
        try:
            size = pictures.read_header(source_files.find_picture(folder, folder, image.name)).size
        except Rejected:
            continue
        if camera is not None and min(camera.width, camera.height) > 0:
            wanted = camera.width, camera.height
            outcomes.append(max(_outcome(turned, wanted, max(1, factor)) for turned in (size, size[::-1])))
    return sorted(outcomes)[len(outcomes) // 2] if outcomes else OTHER


def _outcome(size: tuple[int, int], wanted: tuple[int, int], factor: int) -> int:
    for reduced in {1, factor}:
        if all(
            abs(side - other / reduced) <= SIZE_TOLERANCE * (reduced > 1)
            for side, other in zip(size, wanted, strict=True)
        ):
            return EXACT
    return SCALED if uprightness.fits(size, wanted) else OTHER


def pictures_in(folder: Path, of_model: Collection[Path]) -> list[Path]:
    """All that a person sees in a folder of pictures; beside a model, where much else may lie, of the folders with
    pictures `of_model` only."""
    if is_named(folder):
        found = [inner / name for inner, names in source_files.folders(folder) for name in names]
    else:
        inners = sorted({path.parent for path in of_model})
        found = [path for inner in inners for path in sorted(inner.iterdir()) if path.is_file()]
        found = [path for path in found if not source_files.is_hidden(path.name)]
    return [path for path in found if path.suffix.lower() in SUFFIXES]
