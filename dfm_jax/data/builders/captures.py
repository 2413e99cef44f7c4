"""What importers of single captures share: turning photographs and their cameras into a scene.

A *photo* is a picture on disk with a pose and a lens. Its scene is scaled so that its typical depth is
`bounds.TYPICAL_DEPTH`, and carries its own `near` and `far`; lens distortion is undone and transparency is laid on a
background while a picture is read. A picture may be a scaled copy of the one that its lens describes.
"""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfm_jax.data import transforms, undistort, validation
from dfm_jax.data.bounds import TYPICAL_DEPTH, Bounds, scene_bounds
from dfm_jax.data.builders import pictures
from dfm_jax.data.builders.source import Rejected, SourceFrame, SourceScene, refused
from dfm_jax.data.builders.source_files import as_text, natural_key, read_file
from dfm_jax.data.undistort import Lens


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
    background: pictures.Colour,
    object_alone: bool = False,
    others: Sequence[Photo] = (),
    *,
    listed: Sequence[str],
) -> SourceScene:
    """The scene of one capture, in the natural order of the photos' names.

    Args:
      rejected: frames that could not be made into photos, with reasons.
      listed: names of all frames as the source lists them, photos or not; their positions are the frames' numbers.
      object_alone: whether there is nothing around what the cameras look at.
      others: photos of the capture's other splits, which share its world and so must share its scale.

    Raises:
      Rejected: fewer than two photos are usable, or the cameras say nothing about depth.
    """
    accepted, bad = _accept(photos)
    rejected = [*rejected, *bad]
    if len(accepted) < 2:
        mostly = validation.usual(reason for _, reason in rejected)
        reason = f"only {len(accepted)} of {len(accepted) + len(rejected)} frames can be used{mostly}"
        raise refused(reason, rejected, (photo.name for photo, _ in accepted))
    try:
        bounds = _bounds([photo for photo, _ in (*accepted, *_accept(others)[0])], object_alone)
    except Rejected as reason:
        raise refused(str(reason), rejected, (photo.name for photo, _ in accepted)) from reason
    odd = {accepted[i][0].name: reason for i, reason in bounds.outliers.items() if i < len(accepted)}
    blind = {accepted[i][0].name for i in bounds.blind if i < len(accepted)}
    rejected += [(name, f"{odd[name]}: it sees nothing between near and far") for name in blind]
    accepted = [pair for pair in accepted if pair[0].name not in blind]
    scale = TYPICAL_DEPTH / bounds.depth
    poses = transforms.scale_world(np.stack([photo.camera_to_world for photo, _ in accepted]), scale)
    number = first_positions(listed)
    frames = [
        SourceFrame(
            name=as_text(photo.name),
            camera_to_world=pose,
            intrinsics=intrinsics,
            timestamp=float("nan"),
            load=functools.partial(load, photo, background),
            number=number[photo.name],
        )
        for (photo, intrinsics), pose in zip(accepted, poses, strict=True)
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
        listed=in_natural_order(listed),
        warnings=[
            f"frame {as_text(name)}: {reason}; near and far are those of the others" for name, reason in odd.items()
        ],
    )


def _bounds(world: Sequence[Photo], object_alone: bool) -> Bounds:
    """Of all photos of a world."""
    poses = np.stack([photo.camera_to_world for photo in world])
    seen = None if any(photo.seen is None for photo in world) else [photo.seen for photo in world]
    with np.errstate(over="ignore", invalid="ignore"):  # absurd positions are rejected for what comes of them
        return scene_bounds(poses, seen, object_alone)


def first_positions(listed: Sequence[str]) -> dict[str, int]:
    """The number of each name; one that is listed twice has that of its first entry."""
    return {name: number for number, name in reversed(list(enumerate(listed)))}


def in_natural_order(listed: Sequence[str]) -> list[tuple[int, str]]:
    """Numbers and names, as a scene has them."""
    return [(number, as_text(name)) for number, name in sorted(enumerate(listed), key=lambda x: natural_key(x[1]))]


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


def load(photo: Photo, background: pictures.Colour) -> bytes:
    """The picture that the photo's pinhole camera would have taken, encoded; the file's own bytes where they show it.

    Raises:
      Rejected: it does not decode, or is no copy of the picture that the lens describes.
    """
    encoded = read_file(photo.path)
    image = validation.open_image(encoded)
    opaque = pictures.flatten(pictures.upright(image, photo.size), background)
    if opaque is image and not photo.lens.bends:
        return encoded
    opaque = opaque.convert("RGB")
    if photo.lens.bends:
        opaque = Image.fromarray(undistort.undistort(np.asarray(opaque), photo.lens))
    buffer = io.BytesIO()
    # The writer compresses what is not yet a PNG; until then nothing may be lost, nor time.
    opaque.save(buffer, **({"format": "PNG", "compress_level": 1} if image.format == "PNG" else {"format": "PPM"}))
    return buffer.getvalue()
