"""Photographs as a model takes them: upright, the middle square, at the model's size, in [0, 1]."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfm_jax.data.loading.transforms import center_square, resize
from dfm_jax.data.pictures import deep_pictures, orientation, pictures
from dfm_jax.errors import Rejected, UserError

LARGEST = 1 + 1e-3  # value of a picture in [0, 1]: some went through float16
MEANT = "a photograph is a path, an image of Pillow, or an array [h, w, 3], uint8 or floats in [0, 1]"

Photograph = str | os.PathLike | Image.Image | np.ndarray


def is_photograph(source: Any) -> bool:
    """Whether this is meant as one photograph."""
    return isinstance(source, str | os.PathLike | Image.Image) or getattr(source, "ndim", 0) in (2, 3)


def square_photograph(
    source: Photograph, intrinsics: np.ndarray, size: int, background: float
) -> tuple[np.ndarray, np.ndarray]:
    """The middle square of a photograph, float32 [size, size, 3] in [0, 1], and its intrinsics [3, 3].

    Args:
      intrinsics: of the whole photograph as viewers show it, normalised.
      background: brightness behind what is transparent, in [0, 1].

    Raises:
      UserError: it is missing, damaged, or no photograph.
    """
    if getattr(source, "ndim", 0) == 3 and source.shape == (size, size, 3) and _is_real(source):
        return _checked(np.asarray(source, np.float32)), intrinsics
    image = _upright(source, background)
    square, intrinsics = center_square(image, intrinsics)
    return np.asarray(resize(square, size), np.float32) / np.float32(255), intrinsics


def _upright(source: Photograph, background: float) -> Image.Image:
    """RGB, 8 bits, as viewers show it."""
    grey = round(255 * background)
    try:
        if isinstance(source, Image.Image):
            turned = orientation.of(source)
            image = pictures.to_rgb(_shallow(source))
        elif isinstance(source, str | os.PathLike):
            encoded = pictures.read_picture(Path(source).expanduser())
            opened = pictures.open_picture(encoded, lambda: pictures.white_level([encoded]))
            image, turned = opened.image, opened.orientation
        else:
            return _of_array(np.asarray(source))
        return orientation.show(pictures.flatten(image, (grey,) * 3), turned)
    except (Rejected, OSError, ValueError) as error:
        where = f"{source}: " if isinstance(source, str | os.PathLike) else ""
        raise UserError(f"{where}the photograph cannot be read: {error}") from error


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


def _checked(array: np.ndarray) -> np.ndarray:
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= LARGEST):
        raise UserError(f"{MEANT}; not floats from {array.min():g} to {array.max():g}: divide by 255?")
    return np.minimum(array, 1)
