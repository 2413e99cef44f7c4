"""Kinds of pictures: which are read, and what to say of the others."""

import functools
import importlib.util
from pathlib import Path

from PIL import Image, UnidentifiedImageError

READ = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif")
READ += (".jfif", ".jpe", ".mpo", ".jp2", ".j2k", ".gif", ".apng", ".ppm", ".pgm", ".pnm", ".pfm", ".tga", ".psd")
HEIF = (".heic", ".heif", ".hif")  # read with the extra `heic`
RAW = (".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".raw", ".pef")
RAW += (".srw", ".x3f", ".3fr", ".fff", ".iiq", ".rwl", ".dcr", ".kdc", ".erf", ".mrw", ".mef", ".mos", ".gpr")
OTHER = {".jxl": "JPEG XL", ".exr": "OpenEXR", ".hdr": "Radiance HDR", ".psb": "large Photoshop", ".xcf": "GIMP"}
SUFFIXES = (*READ, *HEIF, *RAW, *OTHER)

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
SIGNATURES = {  # what files of other kinds begin with
    b"\xff\x0a": ".jxl",
    b"\0\0\0\x0cJXL ": ".jxl",
    b"\x76\x2f\x31\x01": ".exr",
    b"#?RADIANCE": ".hdr",
    b"#?RGBE": ".hdr",
    b"8BPS\0\2": ".psb",
    b"gimp xcf": ".xcf",
}


def why_unread(path: Path) -> str:
    """Why pictures with the suffix of a file are not read; empty where they are, or where that is up to its content.

    Raw files have to be told by their suffix: most would pass as a TIFF that shows a thumbnail.
    """
    if path.suffix.lower() in RAW:
        return f"image is a camera's raw data ({path.suffix}), which is not read: develop it to JPEG, PNG or TIFF"
    return ""


def why_undecodable(error: Exception, encoded: bytes) -> str:
    """The reason to give for what a picture's codec raised, the same wherever the picture lies."""
    if encoded[4:8] == b"ftyp" and encoded[8:12] in HEIF_BRANDS and not reads_heif():
        return "image is HEIC, which is read with: pip install '.[heic]'"
    for signature, suffix in SIGNATURES.items():
        if encoded.startswith(signature):
            return f"image is {OTHER[suffix]}, which is not read: convert it to PNG or JPEG"
    if isinstance(error, UnidentifiedImageError):  # its text names a path, or a place in memory
        return "image does not decode (it is no picture, or of an unknown kind)"
    if isinstance(error, Image.DecompressionBombError):
        largest = 2 * Image.MAX_IMAGE_PIXELS // 10**6  # Pillow warns of half as many
        return f"image is larger than {largest} million pixels, which is not read: scale it down"
    return f"image does not decode ({error or type(error).__name__})"


@functools.cache
def reads_heif() -> bool:
    """Whether the extra `heic` is installed, which this has Pillow use."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif  # an extra

    pillow_heif.register_heif_opener()
    return True
