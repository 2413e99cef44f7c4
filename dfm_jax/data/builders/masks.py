"""Masks: pictures beside photographs that are white where a photograph counts, and black where it does not.

They are laid, what they exclude making way for a background, or else left: pictures stay whole, and masks are stored
beside them.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.data.builders import source_files, uprightness
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.errors import Rejected


def find(root: Path, folder: Path, name: str, needed: bool = True) -> Path | None:
    """Like `source_files.find_scaled_picture`: its size does not matter. None if it is missing and not `needed`.

    Raises:
      Rejected: it is missing.
    """
    try:
        return source_files.find_scaled_picture(root, folder, name)[0]
    except Rejected as reason:
        if not needed:
            return None
        raise Rejected(f"mask: {reason}") from reason


def cut_out(image: Image.Image, mask: Path, turned: int = orientation.UPRIGHT, as_shown: bool = False) -> Image.Image:
    """The picture, transparent where the mask is black, or a scaled copy of it.

    Args:
      image: RGB or RGBA; as it lies in its file, which asks viewers to turn it as `turned` says, or `as_shown` by them.

    Raises:
      Rejected: the mask does not decode, or is for a picture of another shape.
    """
    found = _read(mask)
    if turned != orientation.UPRIGHT and not uprightness.fits(found.size, image.size):  # it is for the other one
        found = orientation.show(found, turned) if as_shown else orientation.lay_down(found, turned)
    if not uprightness.fits(found.size, image.size):
        raise Rejected(f"mask is {found.width}x{found.height} pixels, its image {image.width}x{image.height}")
    opacity = np.asarray(found.resize(image.size, Image.Resampling.BILINEAR), np.uint16)
    if image.mode == "RGBA":
        opacity = opacity * np.asarray(image)[..., 3] // 255
    cut = image.convert("RGBA")
    cut.putalpha(Image.fromarray(opacity.astype(np.uint8)))
    return cut


def opacity(image: Image.Image) -> Image.Image | None:
    """What counts in a picture: one channel, white where it does; None of one that is opaque."""
    return image.getchannel("A") if image.mode == "RGBA" else None


def _read(path: Path) -> Image.Image:
    """One channel; of masks that only know 0 and 1, these are black and white."""
    try:
        grey = pictures.flatten(pictures.open_picture(pictures.read_picture(path)).image, (0, 0, 0)).convert("L")
    except Rejected as reason:
        raise Rejected(f"mask: {reason}") from reason
    return grey.point(lambda value: 255 * value) if grey.getextrema()[1] == 1 else grey
