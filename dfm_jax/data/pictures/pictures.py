"""Decodes pictures of every kind: 8-bit RGB in sRGB, as they lie in their files, and how viewers turn them.

Colours of another profile (Display P3 of phones, Adobe RGB, CMYK) are converted; of animated pictures and of several
pages the first counts; more than 8 bits are reduced to them, see `deep_pictures`.
"""

import contextlib
import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms

from dfm_jax.data.pictures import deep_pictures, orientation, picture_kinds
from dfm_jax.data.pictures.deep_pictures import White
from dfm_jax.errors import Rejected

START = 64  # bytes of a file that tell its kind
MIN_TRANSPARENT = 0.05  # share of the pixels
MAX_UNIFORM = 2  # levels of 255 between the pixels of a picture that shows nothing; JPEG and video round by one

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Header:
    size: tuple[int, int]  # width and height in the file
    orientation: int  # see `orientation`
    deep: bool  # more than 8 bits a channel
    format: str  # Pillow's names
    mode: str


@dataclasses.dataclass(frozen=True)
class Picture:
    image: Image.Image  # RGB, or RGBA where parts are transparent; as it lies in the file
    orientation: int
    format: str  # Pillow's name
    as_is: bool  # whether it is opaque, and what any decoder makes of the file


def read_picture(path: Path) -> bytes:
    """The encoded picture in a file.

    Raises:
      Rejected: it is missing, cannot be read, or is of a kind that is not read.
    """
    with _opening(path) as file:
        return file.read()


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[IO[bytes]]:
    if reason := picture_kinds.why_unread(path):
        raise Rejected(reason)
    if not os.path.isfile(path):  # False, too, for names that no file can have, and for pipes, which would make it wait
        raise Rejected(f"image {path.name[:100]} is missing")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise Rejected(f"image cannot be read ({error})") from error


def read_header(path: Path) -> Header:
    """
    Raises:
      Rejected: the file is no picture that is read.
    """
    with _opening(path) as file:
        start = file.read(START)
        file.seek(0)
        image = _open(file, start)
        if image is None:
            file.seek(0)
            height, width = deep_pictures.values(file.read()).shape[:2]
            return Header((width, height), orientation.UPRIGHT, True, "TIFF", "F")
        turned = orientation.of(image)
        size = orientation.shown_size(image.size, turned) if image.format == "TIFF" else image.size
        return Header(size, turned, deep_pictures.is_deep(start, image), str(image.format), image.mode)


def open_picture(encoded: bytes, white: Callable[[], White] = White) -> Picture:
    """The completely decoded picture.

    Args:
      white: gives that of its scene, for a picture of more than 8 bits.

    Raises:
      Rejected: the bytes are no picture, a truncated one, or of a kind that is not read.
    """
    image = _open(io.BytesIO(encoded), encoded[:START])
    turned = orientation.UPRIGHT if image is None else orientation.of(image)
    kind = "TIFF" if image is None else str(image.format)
    if deep_pictures.is_deep(encoded, image):
        decoded = deep_pictures.to_8_bits(deep_pictures.values(encoded), white())
    else:
        decoded = _decode(image, encoded)
    if kind == "TIFF":  # which decoders turn by themselves
        decoded = orientation.lay_down(decoded, turned)
    try:
        colours = to_rgb(decoded)
    except (ValueError, OSError) as error:
        raise Rejected(f"image has colours that are not understood ({error})") from error
    as_is = colours is image and colours.mode == "RGB" and turned == orientation.UPRIGHT
    return Picture(colours, turned, kind, as_is)


def open_raw(encoded: bytes) -> Image.Image:
    """Completely decoded, with the values that the file has.

    Raises:
      Rejected: the bytes are no picture, or a truncated one.
    """
    image = _open(io.BytesIO(encoded), encoded[:START])
    if image is None:
        raise Rejected("image is of a kind that is not read")
    return _decode(image, encoded)


def encode(image: Image.Image, format: str) -> bytes:
    """Without loss, and as a PNG if that is the format of what it was made from: the writer compresses what is none,
    and until then no time may be lost."""
    buffer = io.BytesIO()
    image.save(buffer, **({"format": "PNG", "compress_level": 1} if format == "PNG" else {"format": "PPM"}))
    return buffer.getvalue()


def white_level(pictures: Iterable[bytes]) -> White:
    """Of a scene, from its encoded pictures; those that do not decode say nothing."""

    def deep() -> Iterable[np.ndarray]:
        for encoded in pictures:
            try:
                if deep_pictures.is_deep(encoded, _open(io.BytesIO(encoded), encoded[:START])):
                    yield deep_pictures.values(encoded)
            except Rejected:
                continue

    return deep_pictures.white(deep())


def _open(file: IO[bytes], start: bytes) -> Image.Image | None:
    """What Pillow makes of a picture's header; None: nothing, but OpenCV may. `start`: what the file begins with."""
    picture_kinds.reads_heif()
    try:
        return Image.open(file)
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ... depending on the codec
        if deep_pictures.is_deep(start, None):
            return None
        raise Rejected(picture_kinds.why_undecodable(error, start)) from error


def _decode(image: Image.Image, encoded: bytes) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # of as many kinds
        raise Rejected(picture_kinds.why_undecodable(error, encoded)) from error
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB in sRGB, or RGBA where there is transparency; the image itself where it is that."""
    wanted = "RGBA" if _has_alpha(image) else "RGB"
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        if image.mode not in ("RGB", "RGBA", "L", "CMYK"):
            image = image.convert(wanted)
        transform = _to_srgb(profile, image.mode, wanted)
        if transform is not None:
            return transform.apply(image)
    return image if image.mode == wanted else image.convert(wanted)


@functools.lru_cache(maxsize=16)  # a capture's pictures mostly share theirs
def _to_srgb(profile: bytes, mode: str, wanted: str) -> ImageCms.ImageCmsTransform | None:
    """None: the profile is sRGB's own, or of no use."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, wanted)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def shows_nothing(image: Image.Image) -> bool:
    """Whether all pixels of an RGB picture are the same: black stands for a frame that is hidden, and a failed capture
    has one colour as well. A dark picture, by night or under a table, has darker and brighter pixels."""
    return all(high - low <= MAX_UNIFORM for low, high in image.getextrema())


def stands_alone(path: Path) -> bool:
    """Whether a good part of a picture is transparent: it shows an object without surroundings."""
    try:
        image = open_picture(read_picture(path)).image
    except Rejected:  # reported when its turn comes
        return False
    return image.mode == "RGBA" and bool((np.asarray(image)[..., 3] == 0).mean() > MIN_TRANSPARENT)


def flatten(image: Image.Image, background: Colour | None) -> Image.Image:
    """An RGB picture, from an RGBA one on a background; None: as if nothing of it were transparent."""
    if image.mode == "RGB":
        return image
    if background is None:
        return image.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
