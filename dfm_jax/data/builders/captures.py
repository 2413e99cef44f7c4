"""What importers of single captures share: turning photographs and their cameras into a scene.

A *photo* is a picture on disk with a pose and a lens. Its scene is scaled so that its typical depth is
`bounds.TYPICAL_DEPTH`, and carries its own `near` and `far`; lens distortion is undone and transparency is laid on a
background while a picture is read. A picture may be a scaled copy of the one that its lens describes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfm_jax.data.builders import masks, point_clouds, uprightness
from dfm_jax.data.builders.source_files import natural_key
from dfm_jax.data.builders.uprightness import View
from dfm_jax.data.loading import transforms
from dfm_jax.data.loading.text_files import as_text
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.data.pictures.deep_pictures import White
from dfm_jax.data.pictures.pictures import Header, Picture
from dfm_jax.data.preparing import camera_checks, undistort
from dfm_jax.data.preparing.bounds import MIN_POINTS, TYPICAL_DEPTH, Bounds, scene_bounds, stated_bounds
from dfm_jax.data.preparing.quarantine import most_frequent_reason
from dfm_jax.data.preparing.source import SourceFrame, SourceScene, refused
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected


@dataclasses.dataclass(frozen=True)
class Photo:
    name: str  # unique in its capture
    path: Path  # of a picture that exists
    camera_to_world: np.ndarray  # [4, 4] float64, OpenCV axes, units of the source
    lens: Lens
    size: tuple[float, float]  # width and height that the lens was calibrated for, pixels; only their ratio counts
    seen: np.ndarray | None = None  # [p, 3] sparse points that this camera saw
    depths: tuple[float, float] | None = None  # between which, along the optical axis, the source says that things are
    mask: Path | None = None  # of a picture that is white where this one counts


def make_scene(
    name: str,
    photos: Sequence[Photo],
    rejected: Sequence[tuple[str, str]],
    attributes: Mapping[str, Any],
    background: pictures.Colour | None,
    object_alone: bool = False,
    others: Sequence[Photo] = (),
    *,
    listed: Sequence[str],
    as_lying: bool = False,
    cloud: np.ndarray | None = None,
    scale: float | None = None,
) -> SourceScene:
    """The scene of one capture, in the natural order of the photos' names.

    Args:
      background: what is laid on where pictures are transparent or masks exclude something; None: they stay whole.
      rejected: frames that could not be made into photos, with reasons.
      listed: names of all frames as the source lists them, photos or not; their positions are the frames' numbers.
      object_alone: whether there is nothing around what the cameras look at.
      others: photos of the capture's other splits, which share its world and so must share its scale.
      as_lying: it is known that the cameras are for the pictures as they lie in their files.
      cloud: sparse points [p, 3] of the world, which count where photos do not know which points they saw.
      scale: how much larger the world becomes; None: as its depth asks for.

    Raises:
      Rejected: fewer than two photos are usable, or the cameras say nothing about depth.
    """
    placed = _place(photos, rejected, others, object_alone, cloud)
    bounds, scale = placed.bounds, TYPICAL_DEPTH / placed.bounds.depth if scale is None else scale
    frames, unclear = _frames(placed, scale, background, first_positions(listed), as_lying)
    laid = {"masks": "laid"} if background is not None and any(photo.mask for photo in photos) else {}
    return SourceScene(
        name=name,
        frames=frames,
        rejected=placed.rejected,
        attributes={**attributes, **laid, "bounds": bounds.rule},
        scale=scale,
        near=scale * bounds.near,
        far=scale * bounds.far,
        one_size=False,
        own_poses=True,
        listed=in_natural_order(listed),
        warnings=[*placed.warnings, *unclear],
    )


@dataclasses.dataclass(frozen=True)
class _Placed:
    """Photos of a scene in a world whose bounds are known."""

    accepted: list[tuple[Photo, np.ndarray]]  # with their pinhole cameras' intrinsics
    rejected: list[tuple[str, str]]
    world: list[Photo]  # those and the ones of other splits
    bounds: Bounds
    warnings: list[str]


def _place(
    photos: Sequence[Photo],
    rejected: Sequence[tuple[str, str]],
    others: Sequence[Photo],
    object_alone: bool,
    cloud: np.ndarray | None,
) -> _Placed:
    """
    Raises:
      Rejected: fewer than two photos are usable, or the cameras say nothing about depth.
    """
    accepted, bad = _accept(photos)
    rejected = [*rejected, *bad]
    _check_enough(accepted, rejected)
    world = [photo for photo, _ in (*accepted, *_accept(others)[0])]
    try:
        bounds = _bounds(world, object_alone, cloud)
    except Rejected as reason:
        raise refused(str(reason), rejected, (photo.name for photo, _ in accepted)) from reason
    odd = {accepted[i][0].name: reason for i, reason in bounds.outliers.items() if i < len(accepted)}
    blind = [accepted[i][0].name for i in sorted(bounds.blind) if i < len(accepted)]
    rejected += [(name, f"{odd[name]}: it sees nothing between near and far") for name in blind]
    accepted = [pair for pair in accepted if pair[0].name not in blind]
    _check_enough(accepted, rejected)
    warnings = [f"frame {as_text(name)}: {why}; near and far are those of the others" for name, why in odd.items()]
    return _Placed(accepted, rejected, world, bounds, warnings)


def _check_enough(accepted: Sequence[tuple[Photo, np.ndarray]], rejected: Sequence[tuple[str, str]]) -> None:
    if len(accepted) < 2:
        mostly = most_frequent_reason(reason for _, reason in rejected)
        reason = f"only {len(accepted)} of {len(accepted) + len(rejected)} frames can be used{mostly}"
        raise refused(reason, rejected, (photo.name for photo, _ in accepted))


def _frames(
    placed: _Placed, scale: float, background: pictures.Colour | None, number: Mapping[str, int], as_lying: bool
) -> tuple[list[SourceFrame], Sequence[str]]:
    """Upright frames of a scaled world, and warnings if it is not clear which way is up."""
    headers = {photo.path: _header(photo.path) for photo in placed.world}
    white = _white([path for path, header in headers.items() if header and header.deep])
    views = [_view(*pair, headers, white) for pair in placed.accepted]
    shown, unclear = ([False] * len(views), []) if as_lying else uprightness.are_for_shown(views)
    poses = transforms.scale_world(np.stack([view.camera_to_world for view in views]), scale)
    frames = [
        SourceFrame(
            name=as_text(photo.name),
            **_upright_camera(pose, view, is_shown),
            timestamp=float("nan"),
            load=functools.partial(load, photo, background, is_shown, white),
            load_mask=functools.partial(load_mask, photo, is_shown, white),
            number=number[photo.name],
        )
        for (photo, _), view, pose, is_shown in zip(placed.accepted, views, poses, shown, strict=True)
    ]
    return frames, unclear


def _bounds(world: Sequence[Photo], object_alone: bool, cloud: np.ndarray | None) -> Bounds:
    """Of all photos of a world."""
    poses = np.stack([photo.camera_to_world for photo in world])
    with np.errstate(over="ignore", invalid="ignore"):  # absurd positions are rejected for what comes of them
        seen = _seen(world, cloud)
        stated = None if seen else stated_bounds([_distances(photo) for photo in world if photo.depths])
        return stated or scene_bounds(poses, seen, object_alone)


def _distances(photo: Photo) -> tuple[float, float]:
    """Along rays, that of the farthest depth in a corner of the picture."""
    corners = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1.0]]) @ np.linalg.inv(undistort.pinhole(photo.lens)).T
    near, far = photo.depths
    return near, far * float(np.linalg.norm(corners / corners[:, 2:], axis=-1).max())


def _seen(world: Sequence[Photo], cloud: np.ndarray | None) -> list[np.ndarray] | None:
    """The points [p, 3] that each photo saw: those that it is said to have seen, if for most this can be, or else those
    of the cloud that are in its view. None without points."""
    cameras = [(photo.camera_to_world, undistort.pinhole(photo.lens)) for photo in world]
    seen = [np.empty((0, 3)) if photo.seen is None else photo.seen for photo in world]
    own = [point_clouds.are_its_own(points, *camera) for points, camera in zip(seen, cameras, strict=True)]
    if 2 * sum(own) > len(world):
        return seen
    if cloud is not None:
        few = point_clouds.thinned(cloud)
        in_view = [point_clouds.in_view(few, *camera) for camera in cameras]
        if 2 * sum(len(points) >= MIN_POINTS for points in in_view) > len(world):
            return in_view
    return None if any(photo.seen is None for photo in world) else seen


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
            camera_checks.check_camera(photo.camera_to_world, intrinsics)
        except Rejected as reason:
            rejected.append((photo.name, str(reason)))
        else:
            accepted.append((photo, intrinsics))
            names.add(photo.name)
    return accepted, rejected


def _header(path: Path) -> Header | None:
    try:
        return pictures.read_header(path)
    except Rejected:  # reported when its turn comes
        return None


def _white(deep: Sequence[Path]) -> Callable[[], White]:
    """What gives the white level of a scene with some deep pictures."""
    return functools.cache(lambda: pictures.white_level(map(pictures.read_picture, deep)))


def _view(
    photo: Photo, intrinsics: np.ndarray, headers: Mapping[Path, Header | None], white: Callable[[], White]
) -> View:
    def picture(as_shown: bool) -> Image.Image:
        found = pictures.open_picture(pictures.read_picture(photo.path), white)
        return _through_lens(found, photo, (0, 0, 0), as_shown)

    return View(headers[photo.path], photo.size, photo.camera_to_world, intrinsics, picture)


def _upright_camera(pose: np.ndarray, view: View, as_shown: bool) -> dict[str, np.ndarray]:
    turned = orientation.turn_camera(pose, view.intrinsics, orientation.UPRIGHT if as_shown else view.orientation)
    return dict(zip(("camera_to_world", "intrinsics"), turned, strict=True))


def load(photo: Photo, background: pictures.Colour | None, as_shown: bool, white: Callable[[], White]) -> bytes:
    """The picture that the photo's pinhole camera would have taken, upright and encoded; the file's own bytes where
    they show it.

    Args:
      as_shown: the camera is for the picture as viewers show it, not as it lies in the file.

    Raises:
      Rejected: it does not decode, or is no copy of the picture that the lens describes.
    """
    encoded = pictures.read_picture(photo.path)
    picture = pictures.open_picture(encoded, white)
    image = _through_lens(picture, photo, background, as_shown)
    if picture.as_is and not photo.lens.bends and (photo.mask is None or background is None):
        return encoded
    # Turned last: the lens is that of the picture as it was taken.
    upright = image if as_shown else orientation.turn(image, picture.orientation)
    return pictures.encode(upright, picture.format)


def load_mask(photo: Photo, as_shown: bool, white: Callable[[], White]) -> Image.Image | None:
    """What counts in the picture that `load` gives, by the photo's mask and its transparency."""
    picture = pictures.open_picture(pictures.read_picture(photo.path), white)
    opacity = masks.opacity(_with_mask(picture, photo, as_shown))
    if opacity is None:
        return None
    if photo.lens.bends:
        pixels = np.repeat(np.asarray(opacity)[..., None], 3, axis=-1)
        opacity = Image.fromarray(undistort.undistort(pixels, photo.lens)).getchannel(0)
    return opacity if as_shown else orientation.turn(opacity, picture.orientation)


def _through_lens(picture: Picture, photo: Photo, background: pictures.Colour | None, as_shown: bool) -> Image.Image:
    """The opaque picture of the photo's pinhole camera."""
    whole = dataclasses.replace(photo, mask=None) if background is None else photo
    image = pictures.flatten(_with_mask(picture, whole, as_shown), background)
    return Image.fromarray(undistort.undistort(np.asarray(image), photo.lens)) if photo.lens.bends else image


def _with_mask(picture: Picture, photo: Photo, as_shown: bool) -> Image.Image:
    """The picture, transparent where the photo's mask is black."""
    image = orientation.show(picture.image, picture.orientation) if as_shown else picture.image
    if not uprightness.fits(image.size, photo.size):
        raise Rejected(
            f"image is {image.width}x{image.height} pixels: no scaled copy of the "
            f"{photo.size[0]:g}x{photo.size[1]:g} that its camera is for"
        )
    return image if photo.mask is None else masks.cut_out(image, photo.mask, picture.orientation, as_shown)
