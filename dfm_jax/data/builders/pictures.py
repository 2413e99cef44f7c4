"""Decoding the pictures of captures: as their lenses saw them, and without transparency."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dfm_jax.data import validation
from dfm_jax.data.builders.source import Rejected
from dfm_jax.data.builders.source_files import read_file

SIZE_TOLERANCE = 2  # pixels by which a scaled copy may miss the lens's aspect: sides are rounded
MIN_TRANSPARENT = 0.05  # share of the pixels

Colour = tuple[int, int, int]


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height, from the file's header.

    Raises:
      Rejected: it is no picture.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # whatever the codec raises
        raise Rejected(validation.undecodable(error)) from error


def stands_alone(path: Path) -> bool:
    """Whether a good part of a picture is transparent: it shows an object without surroundings."""
    try:
        image = validation.open_image(read_file(path))
    except Rejected:  # reported when its turn comes
        return False
    if not _has_alpha(image):
        return False
    return bool((np.asarray(image.convert("RGBA"))[..., 3] == 0).mean() > MIN_TRANSPARENT)


def upright(image: Image.Image, size: tuple[float, float]) -> Image.Image:
    """The picture as its lens saw it: some tools turn pictures as their EXIF data asks, and some do not."""
    if _fits(image, size):
        return image
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data
        turned = image
    if not _fits(turned, size):
        raise Rejected(
            f"image is {image.width}x{image.height} pixels: no scaled copy of the {size[0]:g}x{size[1]:g} that its "
            "camera is for"
        )
    return turned


def _fits(image: Image.Image, size: tuple[float, float]) -> bool:
    width, height = size
    return abs(image.width * (height / width) - image.height) <= SIZE_TOLERANCE * max(1, height / width)


def flatten(image: Image.Image, background: Colour) -> Image.Image:
    """The picture on a background, if it has transparent parts."""
    if not _has_alpha(image):
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*background, 255)), layer).convert("RGB")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
