"""Photographs as a model takes them: upright, a square of them, at the model's size, in [0, 1]; and their lenses.

Angles and focal lengths are those of the whole upright picture, as viewers show it.
"""

import contextlib
import dataclasses
import io
import math
import os
import re
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from dfm_jax.data.loading.transforms import crop_or_pad, resize
from dfm_jax.data.pictures import deep_pictures, focal_lengths, orientation, pictures
from dfm_jax.errors import Rejected, UserError

LARGEST = 1 + 1e-3  # value of a picture in [0, 1]: some went through float16
MEANT = "a photograph is a path, an image of Pillow, or an array [h, w, 3], uint8 or floats in [0, 1]"
ANIMATED = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")  # formats whose further pictures are frames or pages
LARGEST_SHOWN = 640  # pixels along a side of a photograph on a page
LARGEST_PADDED = 4096  # pixels along a side: bars around a long strip would fill the memory

Photograph = str | os.PathLike | Image.Image | np.ndarray
Crop = Literal["centre", "pad"]  # the largest square in the middle, or all of it with bars of the background


@dataclasses.dataclass(frozen=True)
class OpenedPhotograph:
    """As viewers show it.

    Attributes:
      name: of its file; '' of what lies in memory.
      focal_length: in pixels, as its data state it; None: they do not.
      said: where that comes from.
      notes: sentences on what was not taken as it lies in the file.
    """

    image: Image.Image  # RGB
    name: str = ""
    focal_length: float | None = None
    said: str = ""
    notes: tuple[str, ...] = ()


def is_photograph(source: Any) -> bool:
    """Whether this is meant as one photograph."""
    return isinstance(source, str | os.PathLike | Image.Image) or getattr(source, "ndim", 0) in (2, 3)


def checked_crop(crop: Any) -> Crop:
    """
    Raises:
      UserError: there is no such way to make a square.
    """
    crop = "centre" if crop in (None, "center") else crop
    if crop not in get_args(Crop):
        raise UserError(f"crop={crop!r} is none of {', '.join(get_args(Crop))}: the middle square, or bars around all")
    return crop


def focal_length(width: int, fov: float | None, focal: float | None) -> float | None:
    """Pixels, from the horizontal field of view in degrees or the focal length in pixels; None where neither is given.

    Raises:
      UserError: both are given, or one that no lens has.
    """
    if fov is not None and focal is not None:
        raise UserError("fov and focal say the same of a lens: give one of them")
    if fov is not None:
        if not (_is_number(fov) and 0 < fov < 180):
            raise UserError(f"fov={fov!r} is a horizontal field of view in degrees: above 0 and below 180")
        return 0.5 * width / math.tan(math.radians(fov) / 2)
    if focal is not None and not (_is_number(focal) and 0 < focal < math.inf):
        raise UserError(f"focal={focal!r} is a focal length in pixels of the photograph: above 0")
    return focal


def field_of_view(width: int, focal_length: float) -> float:
    """Horizontal, in degrees, of a picture with a focal length in pixels."""
    return math.degrees(2 * math.atan(0.5 * width / focal_length))


def square_photograph(
    image: Image.Image, intrinsics: np.ndarray, size: int, crop: Crop, background: float
) -> tuple[np.ndarray, np.ndarray]:
    """A square of a photograph, float32 [size, size, 3] in [0, 1], and its intrinsics [3, 3].

    Args:
      intrinsics: of the whole photograph as viewers show it, normalised.
      background: brightness of what is beside the picture, in [0, 1].
    """
    if crop == "pad" and max(image.size) > LARGEST_PADDED:
        reduced = LARGEST_PADDED / max(image.size)
        image = image.resize([max(1, round(reduced * side)) for side in image.size], Image.Resampling.BOX)
    side = (max if crop == "pad" else min)(image.size)
    square, intrinsics = crop_or_pad(image, intrinsics, side, round(255 * background))
    return np.asarray(resize(square, size), np.float32) / np.float32(255), intrinsics


def to_show(image: Image.Image) -> Image.Image:
    """A copy of a photograph at the size of a page: whole ones would fill the memory."""
    shown = image.convert("RGB")
    if shown is image:
        shown = image.copy()
    shown.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
    return shown


def as_taken(source: Any, size: int) -> np.ndarray | None:
    """Floats [size, size, 3] as the model takes them; None where a source is anything else."""
    if getattr(source, "ndim", 0) == 3 and source.shape == (size, size, 3) and _is_real(source):
        return _checked(np.asarray(source, np.float32))
    return None


def open_photograph(source: Photograph, background: float) -> OpenedPhotograph:
    """RGB, 8 bits, as viewers show it.

    Args:
      background: brightness behind what is transparent, in [0, 1].

    Raises:
      UserError: it is missing, damaged, or no photograph.
    """
    grey = (round(255 * background),) * 3
    try:
        if isinstance(source, Image.Image):
            turned, image = orientation.of(source), pictures.to_rgb(_shallow(source))
            name = os.path.basename(getattr(source, "filename", ""))
            lens, notes = _lens(source), _notes(source)
        elif isinstance(source, str | os.PathLike):
            path = _checked_path(source)
            encoded = pictures.read_picture(path)
            opened = pictures.open_picture(encoded, lambda: pictures.white_level([encoded]))
            image, turned, name = opened.image, opened.orientation, path.name
            lens, notes = _header_facts(encoded)
        else:
            return OpenedPhotograph(_of_array(np.asarray(source)))
        upright = orientation.show(pictures.flatten(image, grey), turned)
    except (Rejected, OSError, ValueError) as error:
        where = f"{source}: " if isinstance(source, str | os.PathLike) else ""
        raise UserError(f"{where}the photograph cannot be read: {error}") from error
    return OpenedPhotograph(upright, name, *lens, notes)


def _checked_path(source: str | os.PathLike) -> Path:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(source)):
        raise UserError(f"{source} is an address: download the photograph first, and name its file")
    path = Path(source).expanduser()
    if path.is_dir():
        raise UserError(f"{source} is a folder: name the photograph in it")
    return path


def _header_facts(encoded: bytes) -> tuple[tuple[float | None, str], tuple[str, ...]]:
    """What a file's data say of its lens, and notes on it; nothing where Pillow does not read them."""
    with contextlib.suppress(Exception), Image.open(io.BytesIO(encoded)) as image:
        return _lens(image), _notes(image)
    return (None, ""), ()


def _lens(image: Image.Image) -> tuple[float | None, str]:
    return focal_lengths.of(image) or (None, "")


def _notes(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.format in ANIMATED and (count := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"it holds {count} pictures: the first is taken")
    if focal_lengths.of(image) and focal_lengths.was_cropped(image):
        notes.append("it has another shape than its EXIF data state: if it was cropped, its field of view is another")
    return tuple(notes)


def _shallow(image: Image.Image) -> Image.Image:
    """An image of Pillow, with 8 bits a channel."""
    if not image.mode.startswith(deep_pictures.MODES):
        return image
    values = np.asarray(image)
    return deep_pictures.to_8_bits(values, deep_pictures.white([values]))


def _of_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
        raise UserError(f"{MEANT}; not an array of shape {array.shape}")
    if array.dtype != np.uint8:
        if not _is_real(array):
            raise UserError(f"{MEANT}; not an array of {array.dtype}")
        array = np.rint(255 * _checked(array.astype(np.float32))).astype(np.uint8)
    return Image.fromarray(array)


def _is_real(array: Any) -> bool:
    return np.issubdtype(array.dtype, np.floating) or str(array.dtype) == "bfloat16"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _checked(array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise UserError(f"{MEANT}; not floats of which some are infinite or no number")
    if not (array.min() >= 0 and array.max() <= LARGEST):
        raise UserError(f"{MEANT}; not floats from {array.min():g} to {array.max():g}: divide by 255?")
    return np.minimum(array, 1)
