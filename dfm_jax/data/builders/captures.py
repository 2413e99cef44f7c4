"""What importers of single captures share: finding photographs, and turning them and their cameras into a scene.

A *photo* is a picture on disk with a pose and a lens. Its scene is scaled so that its typical depth is
`bounds.TYPICAL_DEPTH`, and carries its own `near` and `far`; lens distortion is undone and transparency is laid on a
background while a picture is read. A picture may be a scaled copy of the one that its lens describes.
"""

import dataclasses
import functools
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dfm_jax.data import transforms, undistort, validation
from dfm_jax.data.bounds import TYPICAL_DEPTH, scene_bounds
from dfm_jax.data.builders.source import Rejected, SourceFrame, SourceScene
from dfm_jax.data.undistort import Lens
from dfm_jax.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
SIZE_TOLERANCE = 2  # pixels by which a scaled copy may miss the lens's aspect: sides are rounded
MIN_TRANSPARENT = 0.05  # share of the pixels

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Photo:
    name: str  # unique in its capture
    path: Path  # of a picture that exists
    camera_to_world: np.ndarray  # [4, 4] float64, OpenCV axes, units of the source
    lens: Lens
    size: tuple[float, float]  # width and height that the lens was calibrated for, pixels; only their ratio counts
    seen: np.ndarray | None = None  # [p, 3] sparse points that this camera saw


def make_scene(
    name: str,
    photos: Sequence[Photo],
    rejected: Sequence[tuple[str, str]],
    attributes: Mapping[str, Any],
    background: Colour,
    object_alone: bool = False,
    others: Sequence[Photo] = (),
) -> SourceScene:
    """The scene of one capture, in the natural order of the photos' names.

    Args:
      rejected: frames that could not be made into photos, with reasons.
      object_alone: whether there is nothing around what the cameras look at.
      others: photos of the capture's other splits, which share its world and so must share its scale.

    Raises:
      Rejected: fewer than two photos are usable, or the cameras say nothing about depth.
    """
    accepted, bad = _accept(photos)
    rejected = [*rejected, *bad]
    if len(accepted) < 2:
        mostly = validation.usual(reason for _, reason in rejected)
        raise Rejected(f"only {len(accepted)} of {len(accepted) + len(rejected)} frames can be used{mostly}")
    world = [photo for photo, _ in (*accepted, *_accept(others)[0])]
    poses = np.stack([photo.camera_to_world for photo in world])
    seen = None if any(photo.seen is None for photo in world) else [photo.seen for photo in world]
    with np.errstate(over="ignore", invalid="ignore"):  # absurd positions are rejected for what comes of them
        bounds = scene_bounds(poses, seen, object_alone)
    scale = TYPICAL_DEPTH / bounds.depth
    frames = [
        SourceFrame(as_text(photo.name), pose, intrinsics, float("nan"), functools.partial(load, photo, background))
        for (photo, intrinsics), pose in zip(
            accepted, transforms.scale_world(poses[: len(accepted)], scale), strict=True
        )
    ]
    return SourceScene(
        name=name,
        frames=frames,
        rejected=rejected,
        attributes={**attributes, "bounds": bounds.rule},
        scale=scale,
        near=scale * bounds.near,
        far=scale * bounds.far,
        one_size=False,
        own_poses=True,
    )


def _accept(photos: Sequence[Photo]) -> tuple[list[tuple[Photo, np.ndarray]], list[tuple[str, str]]]:
    """Photos with usable cameras, in order, with their pinhole cameras' intrinsics; and names of the others, with
    reasons."""
    accepted, rejected, names = [], [], set()
    for photo in sorted(photos, key=lambda photo: natural_key(photo.name)):
        try:
            if photo.name in names:
                raise Rejected("image is listed twice")
            intrinsics = undistort.pinhole(photo.lens)
            validation.check_camera(photo.camera_to_world, intrinsics)
        except Rejected as reason:
            rejected.append((photo.name, str(reason)))
        else:
            accepted.append((photo, intrinsics))
            names.add(photo.name)
    return accepted, rejected


def load(photo: Photo, background: Colour) -> bytes:
    """The picture that the photo's pinhole camera would have taken, encoded; the file's own bytes where they show it.

    Raises:
      Rejected: it does not decode, or is no copy of the picture that the lens describes.
    """
    encoded = read_file(photo.path)
    image = validation.open_image(encoded)
    opaque = _flatten(_upright(image, photo.size), background)
    if opaque is image and not photo.lens.bends:
        return encoded
    opaque = opaque.convert("RGB")
    if photo.lens.bends:
        opaque = Image.fromarray(undistort.undistort(np.asarray(opaque), photo.lens))
    buffer = io.BytesIO()
    # The writer compresses what is not yet a PNG; until then nothing may be lost, nor time.
    opaque.save(buffer, **({"format": "PNG", "compress_level": 1} if image.format == "PNG" else {"format": "PPM"}))
    return buffer.getvalue()


def read_file(path: Path) -> bytes:
    """Raises:
    Rejected: it cannot be read, or is no ordinary file: reading a pipe might never end.
    """
    if not os.path.isfile(path):
        raise Rejected(f"{path.name} is missing, or no file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise Rejected(f"{path.name} cannot be read ({error})") from error


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


def find_picture(root: Path, folder: Path, name: str) -> Path:
    """The file that a source calls `name`, relative to `folder`, with or without its suffix.

    Raises:
      Rejected: it is missing, or not below `root`: what a file lists must not reach the rest of the disk.
    """
    path = Path(os.path.normpath(folder.absolute() / name))
    if Path(os.path.normpath(root.absolute())) not in path.parents:
        raise Rejected("image path leads out of the source")
    for candidate in (path, *(path.with_name(path.name + suffix) for suffix in SUFFIXES)):
        if os.path.isfile(candidate):  # False, too, for names that no file can have
            return candidate
    raise Rejected("image is missing")


def natural_key(name: str) -> list[Any]:
    """Sorts r_2 before r_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d{1,18})", name)]


def folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder at or below `root` with its files' names; sorted, following links but not in circles.

    Raises:
      UserError: there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"--source={root} is not a folder")
    seen = set()
    for parent, names, files in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort(key=natural_key)
        yield Path(parent), sorted(files)


def scene_name(root: Path, folder: Path) -> str:
    """'a-b' for root/a/b, and the root's own name for itself."""
    parts = folder.relative_to(root).parts or (root.resolve().name,)
    return as_text("-".join(parts))


def as_text(name: str) -> str:
    """A name on disk, which need not be text."""
    return name.encode("utf-8", "replace").decode()


def stands_alone(path: Path) -> bool:
    """Whether a good part of a picture is transparent: it shows an object without surroundings."""
    try:
        image = validation.open_image(read_file(path))
    except Rejected:  # reported when its turn comes
        return False
    if not _has_alpha(image):
        return False
    return bool((np.asarray(image.convert("RGBA"))[..., 3] == 0).mean() > MIN_TRANSPARENT)


def _upright(image: Image.Image, size: tuple[float, float]) -> Image.Image:
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


def _flatten(image: Image.Image, background: Colour) -> Image.Image:
    """The picture on a background, if it has transparent parts."""
    if not _has_alpha(image):
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (*background, 255)), layer).convert("RGB")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
