"""Pictures of more than 8 bits a channel, made into such of 8.

Values become shares of a *white level*, one for all pictures of a scene, so that none is clipped and each stays as
bright as it is beside the others:

- integers: the largest number of 8, 10, 12, 14, 16, 24 or 32 bits that no picture of the scene exceeds. Cameras of 12
  bits are stored in 16, which would leave their pictures almost black;
- floating point: 1, where no picture exceeds it; otherwise the brightest of the pictures' 99.9th percentiles.

Values are neither tone mapped nor gamma corrected: 128 is half of the white level.
"""

import dataclasses
from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image

from dfm_jax.errors import Rejected

BITS = (8, 10, 12, 14, 16, 24, 32)
PERCENTILE = 99.9
MODES = ("I", "F")  # how Pillow's modes for them begin
TIFF_BITS = 258  # the tag
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PNG = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class White:
    """What becomes 255."""

    integer: float = 2.0**16 - 1
    real: float = 1.0


def is_deep(encoded: bytes, image: Image.Image | None) -> bool:
    """Whether a picture has more than 8 bits a channel; `image` is what Pillow makes of its header, None if nothing."""
    if image is None:  # Pillow knows no colours of floating point
        return encoded.startswith(TIFF)
    if image.format == "PNG":
        return len(encoded) > 24 and encoded[24] == 16
    if image.format == "TIFF" and max(_numbers(image.tag_v2.get(TIFF_BITS)), default=8) > 8:
        return True
    return image.mode.startswith(MODES)


def _numbers(value: object) -> tuple[int, ...]:
    values = value if isinstance(value, tuple) else (value,)
    return tuple(number for number in values if isinstance(number, int))


def values(encoded: bytes) -> np.ndarray:
    """[h, w] or [h, w, 3 or 4], integers or floating point, not negative, as OpenCV decodes them.

    Raises:
      Rejected: it does not, or they are not finite.
    """
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        raise Rejected(f"image of more than 8 bits does not decode ({type(error).__name__})") from error
    finally:
        cv2.utils.logging.setLogLevel(level)
    if decoded is None or not decoded.size:
        raise Rejected("image of more than 8 bits, 16 or floating point, does not decode: save it as a PNG")
    if not np.isfinite(decoded).all():
        raise Rejected("image of floating point has values that are not finite")
    if decoded.ndim == 3:
        decoded = decoded[..., [2, 1, 0, 3][: decoded.shape[-1]]]  # from blue, green, red
    return np.maximum(decoded, 0)


def white(pictures: Iterable[np.ndarray]) -> White:
    """The white level of a scene, from the values of its deep pictures."""
    largest, brightest = 0, 0.0
    for picture in map(_colours, pictures):
        if np.issubdtype(picture.dtype, np.integer):
            largest = max(largest, int(picture.max()))
        else:
            brightest = max(brightest, float(picture.max() if picture.max() <= 1 else _bright(picture)))
    bits = next(bits for bits in BITS if largest < 2**bits)
    return White(2.0**bits - 1 if largest else White.integer, max(1.0, brightest))


def _colours(picture: np.ndarray) -> np.ndarray:
    return picture[..., :3] if picture.ndim == 3 else picture


def _bright(picture: np.ndarray) -> float:
    return float(np.percentile(picture, PERCENTILE))


def to_8_bits(picture: np.ndarray, level: White) -> Image.Image:
    """L, RGB or RGBA, from values."""
    whole = level.integer if np.issubdtype(picture.dtype, np.integer) else level.real
    shares = picture.astype(np.float32) / np.float32(whole)
    if shares.ndim == 3 and shares.shape[-1] == 4:  # opacity is no brightness
        opaque = np.iinfo(picture.dtype).max if np.issubdtype(picture.dtype, np.integer) else 1.0
        shares[..., 3] = picture[..., 3] / opaque
    return Image.fromarray((np.clip(shares, 0, 1) * 255 + 0.5).astype(np.uint8))
