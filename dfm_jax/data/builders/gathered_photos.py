"""Photographs gathered for structure-from-motion: COLMAP must see the pixels that are stored later.

It is given the files themselves where it reads them as we do. Of others (HEIC, AVIF, WebP, 16 bits, palettes, ...),
which it would not read, or read otherwise, it is given upright 8-bit copies, and the scene is made of these.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.data.pictures.pictures import Header
from dfm_jax.errors import Rejected

READ_ALIKE = ("JPEG", "MPO", "PNG", "BMP")
LOSSLESS = ("PNG", "TIFF", "BMP", "PPM", "TGA", "PSD", "GIF")
COPIES = "copies"  # folder of them
JPEG_OPTIONS = {"quality": 98, "subsampling": 0}  # of pictures that are compressed again when stored


def gather(
    folder: Path, names: Sequence[str], target: Path, background: pictures.Colour
) -> tuple[dict[str, str], dict[str, str]]:
    """Puts photographs into a `target` folder.

    Returns:
      their names by those of the files in the target, and reasons why others cannot be read, by name.
    """
    headers: dict[str, Header] = {}
    gathered, unreadable = {}, {}
    for name in names:
        try:
            headers[name] = pictures.read_header(folder / name)
        except Rejected as reason:
            unreadable[name] = str(reason)
    deep = [folder / name for name, header in headers.items() if header.deep]
    white = functools.cache(lambda: pictures.white_level(map(pictures.read_picture, deep)))
    for name, header in headers.items():
        if header.format in READ_ALIKE and header.mode in ("RGB", "L") and not header.deep:
            (target / name).symlink_to((folder / name).absolute())
            gathered[name] = name
            continue
        try:
            picture = pictures.open_picture(pictures.read_picture(folder / name), white)
        except Rejected as reason:
            unreadable[name] = str(reason)
        else:
            image = orientation.turn(pictures.flatten(picture.image, background), picture.orientation)
            file = Path(COPIES, f"{name}{'.png' if picture.format in LOSSLESS else '.jpg'}")
            (target / file).parent.mkdir(exist_ok=True)
            _save(image, target / file, _exif(folder / name))
            gathered[str(file)] = name
    return gathered, unreadable


def _exif(path: Path) -> Image.Exif:
    """What a picture tells of its camera: the focal length is what structure-from-motion begins with."""
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            exif.pop(orientation.TAG, None)
            exif.tobytes()
            return exif
    except Exception:  # Pillow cannot open it, or its data are damaged
        return Image.Exif()


def _save(image: Image.Image, path: Path, exif: Image.Exif) -> None:
    image.save(path, exif=exif, **({"compress_level": 1} if path.suffix == ".png" else JPEG_OPTIONS))
