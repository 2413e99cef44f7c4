"""Photographs of one scene as `Views`: at the model's size, with the cameras that are given, or one that is assumed.

A photograph without a camera is the origin of its scene, with OpenCV axes. Its field of view is, in this order, the one
that is said, the one in its EXIF data, the one that the model's config assumes of the square in its middle
(`sample.photograph`), or 50 degrees across.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.sampling import photographs
from dfm_jax.sampling.assumptions import PhotographFacts
from dfm_jax.sampling.photographs import MEANT, Crop, OpenedPhotograph, Photograph, is_photograph
from dfm_jax.sampling.placement import Placement
from dfm_jax.structs import Camera, Views

USUAL = 50.0  # degrees across: between the phones' 65 and the portrait lenses' 30
OF_CONFIG = "as the model's config assumes of a middle square (sample.photograph)"
AT_ORIGIN = "the model is told where cameras are, and nothing says it of this photograph: at the origin"


def several(source: Any) -> list[Photograph]:
    """The photographs that a source is.

    Raises:
      UserError: it is something else.
    """
    if is_photograph(source):
        return [source]
    items = list(source) if isinstance(source, Sequence) or np.ndim(source) == 4 else []
    if not items or not all(map(is_photograph, items)):
        raise UserError(f"{MEANT}, or several of them; or Views, or an Example; not {type(source).__name__}")
    return items


class Taken(NamedTuple):
    """Photographs [v] of one scene, as a model takes them."""

    views: Views  # in the coordinates of their cameras
    facts: tuple[PhotographFacts, ...]
    notes: tuple[str, ...]  # on all of them
    shown: tuple[Image.Image, ...]  # as viewers show them, at the size of a page


def as_views(sources: Sequence[Photograph], config: Config, placement: Placement) -> Taken:
    """Opens photographs [v], one after the other.

    Args:
      placement: in the model's units.
    """
    camera, crop = placement.camera, photographs.checked_crop(placement.crop)
    if camera is not None and (placement.fov is not None or placement.focal is not None):
        raise UserError("fov and focal are for a photograph without a camera: these have intrinsics of their own")
    if camera is None and len(sources) > 1:
        count = len(sources)
        raise UserError(
            f"{count} photographs of a scene need their cameras: camera=dfm_jax.Camera(camera_to_world [{count}, 4, 4],"
            f" intrinsics [{count}, 3, 3])"
        )
    notes = (AT_ORIGIN,) if camera is None and config.model.absolute_pose else ()
    taken = [
        _take(source, None if camera is None else camera.intrinsics[i], config, placement, crop)
        for i, source in enumerate(sources)
    ]
    images, intrinsics, facts, shown = zip(*taken, strict=True)
    poses = np.eye(4)[None] if camera is None else camera.camera_to_world
    views = Views(
        images=np.stack(images),
        camera=Camera(poses, np.stack(intrinsics)),
        absolute_pose=poses[:, :3],
        valid=np.ones(len(sources), bool),
    )
    return Taken(views, facts, notes, shown)


def _take(
    source: Photograph, known: np.ndarray | None, config: Config, placement: Placement, crop: Crop
) -> tuple[np.ndarray, np.ndarray, PhotographFacts, Image.Image]:
    """A photograph at the model's size, its intrinsics [3, 3], what is to be said of it, and what is to be shown."""
    size, background = config.image_size, config.model.background
    exact = photographs.as_taken(source, size)
    opened = (
        OpenedPhotograph(Image.fromarray(np.rint(255 * exact).astype(np.uint8)))
        if exact is not None
        else photographs.open_photograph(source, background)
    )
    width, height = opened.image.size
    given = photographs.focal_length(width, placement.fov, placement.focal)
    if known is not None:
        intrinsics, said = known, "as its camera is given"
    else:
        focal, said = _focal_length(opened, given, config)
        intrinsics = np.array([[focal / width, 0, 0.5], [0, focal / height, 0.5], [0, 0, 1]])
    angle = photographs.field_of_view(width, float(intrinsics[0, 0]) * width)
    if exact is None:
        exact, intrinsics = photographs.square_photograph(opened.image, intrinsics, size, crop, background)
    if said == OF_CONFIG and crop == "centre":  # which speaks of the square itself, whatever its corner is rounded to
        focal = config.sample.photograph.focal_length
        intrinsics = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    notes = opened.notes
    if min(width, height) < size:
        notes = (*notes, f"it is smaller than the model's {size} x {size} pixels, and was enlarged")
    facts = PhotographFacts(opened.name, width, height, angle, said, crop, notes)
    return exact, intrinsics, facts, photographs.to_show(opened.image)


def _focal_length(opened: OpenedPhotograph, given: float | None, config: Config) -> tuple[float, str]:
    """In pixels of the whole picture, and where it comes from."""
    if given is not None:
        return given, "as given"
    if opened.focal_length is not None:
        return opened.focal_length, opened.said
    if config.sample.photograph is not None:
        return config.sample.photograph.focal_length * min(opened.image.size), OF_CONFIG
    usual = photographs.focal_length(opened.image.width, USUAL, None)
    return usual, f"assumed: nothing says it (--fov= or --focal= would; {USUAL:g} degrees are usual)"
