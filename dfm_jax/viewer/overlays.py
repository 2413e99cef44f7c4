"""What is shown of the views that one camera has of one scene, or of several samples.

Letters: `n` samples, `h w` pixels.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from dfm_jax.geometry import pixel_grid
from dfm_jax.structs import Camera, RenderedViews
from dfm_jax.visualization.pictures import colour_depth, colour_uncertainty, to_uint8

OVERLAYS = ("colour", "depth", "opacity", "uncertainty", "agreement")
OF_ALL_SAMPLES = ("uncertainty", "agreement")
ALIKE = 0.1  # root mean square difference of colours, in [0, 1], up to which two samples agree on a pixel
OPAQUE = 0.5  # opacity from which a pixel hides what lies behind it
FAR_AWAY = 160.0  # the largest depth that the browser knows
EDGE, EMPTY = 90, 24  # brightness between samples that are shown side by side, and where there is none


@dataclasses.dataclass(frozen=True)
class Look:
    """How views become a picture.

    Attributes:
      overlay: one of `OVERLAYS`.
      chosen: of the scenes in the shot, which one the picture is of; None: all of them, side by side.
      near, far: of the scenes.
    """

    overlay: str
    chosen: int | None
    near: float
    far: float


def picture(views: Sequence[RenderedViews], look: Look) -> np.ndarray:
    """The picture of views of `n` samples, uint8 [H, W, 3]."""
    if look.chosen is None:
        return side_by_side([to_uint8(_of(views, i, look)) for i in range(len(views))])
    return to_uint8(_of(views, look.chosen, look))


def _of(views: Sequence[RenderedViews], chosen: int, look: Look) -> np.ndarray:
    """[h, w, 3] in [0, 1]."""
    own = views[chosen]
    if look.overlay == "depth":
        return colour_depth(own.depth_before(look.far), look.near, look.far)
    if look.overlay == "opacity":
        return np.repeat(own.opacity[..., None], 3, axis=-1)
    colours = np.stack([each.rgb for each in views])
    if look.overlay == "uncertainty":
        return colour_uncertainty(colours.var(0), colours.mean(0))
    if look.overlay == "agreement":
        return colour_agreement(agreement(colours, chosen), own.rgb)
    return own.rgb


def agreement(colours: np.ndarray, chosen: int) -> np.ndarray:
    """The share [h, w] of the other samples that show a pixel as the chosen one of `colours` [n, h, w, 3] does; 1 where
    there is no other."""
    others = np.delete(colours, chosen, axis=0)
    if not len(others):
        return np.ones(colours.shape[1:3])
    return (np.sqrt(np.square(others - colours[chosen]).mean(-1)) <= ALIKE).mean(0)


def colour_agreement(share: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Shares [h, w] as a tint of `image` [h, w, 3]: blue where all agree, orange where none does."""
    all_agree, none_does = np.array([0.25, 0.55, 1.0]), np.array([1.0, 0.5, 0.1])
    tint = share[..., None] * all_agree + (1 - share[..., None]) * none_does
    grey = image.mean(-1, keepdims=True)
    return (0.25 + 0.75 * grey) * tint


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns of `count` pictures side by side."""
    columns = math.ceil(math.sqrt(count))
    return math.ceil(count / columns), columns


def side_by_side(images: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures uint8 [h, w, 3] in the rows and columns of `grid_shape`, on one canvas [H, W, 3]."""
    (rows, columns), (height, width) = grid_shape(len(images)), images[0].shape[:2]
    canvas = np.full((rows * height, columns * width, 3), EMPTY, np.uint8)
    for i, image in enumerate(images):
        y, x = (i // columns) * height, (i % columns) * width
        canvas[y : y + height, x : x + width] = image
        canvas[y, x : x + width] = canvas[y : y + height, x] = EDGE
    return canvas


def depth_along_axis(views: RenderedViews, camera: Camera, grid: str) -> np.ndarray:
    """Depth [h, w] along the optical axis of what hides the 3D objects behind it; `FAR_AWAY` where nothing does."""
    height, width = views.opacity.shape
    xy = np.asarray(pixel_grid(height, width, grid), np.float64)
    inverse = np.linalg.inv(np.asarray(camera.intrinsics, np.float64))
    directions = np.concatenate([xy, np.ones((height, width, 1))], -1) @ inverse.T
    along = 1 / np.linalg.norm(directions, axis=-1)
    depth = np.asarray(views.surface_depth()) * along
    return np.where(views.opacity > OPAQUE, np.clip(depth, 0, FAR_AWAY), FAR_AWAY)
