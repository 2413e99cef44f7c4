"""Focal lengths that cameras note in the EXIF data of a photograph, in pixels of it.

Cameras state the *35 mm equivalent*, the focal length at which a film of 36 mm x 24 mm has the same angle along its
diagonal; or the focal length itself in millimetres, of use only where the sensor's pixels a unit of length (the *focal
plane resolution*) are stated with it.
"""

import math
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

FILM_DIAGONAL = math.hypot(36, 24)  # millimetres
MILLIMETRES = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # of the units of the focal plane resolution; 1 is none
SAME_SHAPE = 0.02  # relative difference between two pictures' width over height, of one shape
_TAGS = ExifTags.Base


def of(image: Image.Image) -> tuple[float, str] | None:
    """The focal length in pixels of a picture as it lies in its file, and a sentence's part on where it comes from;
    None where its data state none, or nonsense."""
    try:
        stated = dict(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except Exception:  # damaged data, and whatever they raise
        return None
    found = _from_equivalent(stated, image.size) or _from_sensor(stated, image.size)
    if found is None or not (math.isfinite(found[0]) and found[0] > 0):
        return None
    return found


def was_cropped(image: Image.Image) -> bool:
    """Whether the picture has another shape than the one that its data state: what they say of the lens no longer
    holds."""
    try:
        stated = dict(image.getexif().get_ifd(ExifTags.IFD.Exif))
    except Exception:
        return False
    width, height = (_number(stated, tag) for tag in (_TAGS.ExifImageWidth, _TAGS.ExifImageHeight))
    if not width or not height:
        return False
    shapes = [max(a, b) / min(a, b) for a, b in ((width, height), image.size)]
    return not math.isclose(*shapes, rel_tol=SAME_SHAPE)


def _from_equivalent(stated: Mapping[int, Any], size: tuple[int, int]) -> tuple[float, str] | None:
    equivalent = _number(stated, _TAGS.FocalLengthIn35mmFilm)
    if not equivalent:
        return None
    return equivalent * math.hypot(*size) / FILM_DIAGONAL, f"EXIF: {equivalent:g} mm as on 35 mm film"


def _from_sensor(stated: Mapping[int, Any], size: tuple[int, int]) -> tuple[float, str] | None:
    length, density = _number(stated, _TAGS.FocalLength), _number(stated, _TAGS.FocalPlaneXResolution)
    unit = MILLIMETRES.get(int(_number(stated, _TAGS.FocalPlaneResolutionUnit) or 2))
    if not length or not density or unit is None:
        return None
    taken = [_number(stated, tag) for tag in (_TAGS.ExifImageWidth, _TAGS.ExifImageHeight)]
    reduced = max(size) / max(taken) if all(taken) else 1.0
    return length * density / unit * reduced, f"EXIF: {length:g} mm, {density:g} pixels in {unit:g} mm of the sensor"


def _number(stated: Mapping[int, Any], tag: int) -> float | None:
    """A number above 0; None for all else."""
    try:
        value = float(stated.get(tag, 0))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if math.isfinite(value) and value > 0 else None
