"""Pictures of CO3D, whole or without their backgrounds, and its masks."""

import math
from pathlib import Path

from PIL import Image

from dfm_jax.data.builders import masks
from dfm_jax.data.builders.co3d_annotations import Annotation
from dfm_jax.data.builders.source_files import find_picture
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.errors import Rejected

ASPECT_TOLERANCE = 0.02  # of a picture's width by height against its annotation's: resized copies are rounded


def load(folder: Path, annotation: Annotation, background: pictures.Colour | None) -> bytes:
    """The encoded picture of an annotation, on a background; None: as it is.

    Raises:
      Rejected: it is missing, or its mask is and is needed; or one of them does not decode, or has another shape.
    """
    encoded = _whole(folder, annotation)
    if background is None:
        return encoded
    if annotation.mask is None:
        raise Rejected("annotation names no mask")
    picture = pictures.open_picture(encoded)
    return pictures.encode(pictures.flatten(_cut_out(folder, annotation, picture), background), picture.format)


def load_mask(folder: Path, annotation: Annotation) -> Image.Image | None:
    """What counts in the upright picture; None where the annotation names no mask.

    Raises:
      Rejected: as `load`.
    """
    if annotation.mask is None:
        return None
    picture = pictures.open_picture(_whole(folder, annotation))
    return orientation.turn(masks.opacity(_cut_out(folder, annotation, picture)), picture.orientation)


def _cut_out(folder: Path, annotation: Annotation, picture: pictures.Picture) -> Image.Image:
    return masks.cut_out(picture.image, masks.find(folder, folder, str(annotation.mask)), picture.orientation)


def _whole(folder: Path, annotation: Annotation) -> bytes:
    path = find_picture(folder, folder, str(annotation.image))
    header, stated = pictures.read_header(path), annotation.size
    shown = orientation.shown_size(header.size, header.orientation)
    if _same_shape(header.size, stated):
        return pictures.read_picture(path)
    if _same_shape(shown, stated):
        picture = pictures.open_picture(pictures.read_picture(path))
        return pictures.encode(orientation.show(picture.image, picture.orientation), picture.format)
    width, height = header.size
    raise Rejected(f"image is {width}x{height} pixels, its annotation says {stated[0]}x{stated[1]}")


def _same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return math.isclose(a[0] / a[1], b[0] / b[1], rel_tol=ASPECT_TOLERANCE)
