"""What cameras around a scene see of it: what all exports are made from, rendered once for all of them.

Letters: `k` cameras, `h w` pixels, `p` points. Coordinates are the scene's own, in which it is rendered.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import NUM_VIEWS, RenderableScene
from dfm_jax.structs import Camera, RenderedViews
from dfm_jax.viewpoints import cameras_around

LEAST_SIDE = 64  # of views: a radiance field has no pixels of its own
MOST_VIEWS, MOST_PIXELS = 2000, 4096  # that are taken for what someone means
# A pixel shows a surface where it is at least that opaque, and if others see one within this share of its distance.
SOLID, SAME_SURFACE = 0.5, 0.03


class NothingOpaque(UserError):
    """A scene that no ray is stopped in has no surface."""


@dataclasses.dataclass(frozen=True, eq=False)
class SceneViews:
    """A sampled scene, and views of it that are rendered when they are first asked for.

    Attributes:
      samples: all scenes that were sampled behind the same pictures, each with the same cameras; this one among them,
        if there are any.
    """

    scene: RenderableScene
    num_views: int = NUM_VIEWS
    size: int | None = None  # pixels a side; None: the model's, or LEAST_SIDE if that is larger
    samples: Sequence["SceneViews"] = ()

    @functools.cached_property
    def side(self) -> int:
        return max(self.scene.image_size, LEAST_SIDE) if self.size is None else self.size

    @functools.cached_property
    def cameras(self) -> Camera:
        """[k] of the context, of the target, and around what they look at; float64, pixels at their centres."""
        context, target = self.scene.context_camera, self.scene.target_camera
        around = cameras_around(context, target, *self.scene.bounds, self.num_views)
        poses, intrinsics = (np.array(x, np.float64) for x in (around.camera_to_world, around.intrinsics))
        for i, exact in enumerate((context, target)[: self.num_views]):
            poses[i], intrinsics[i] = exact.camera_to_world, exact.intrinsics
        intrinsics[:, 0, 1] = 0.0  # no file of cameras has a skew
        return Camera(poses, self.pixels @ intrinsics)

    @functools.cached_property
    def images(self) -> RenderedViews:
        """[k, h, w] of `cameras`."""
        return self.render(self.cameras)

    def render(self, cameras: Camera) -> RenderedViews:
        """What cameras [k] whose pixels are at their centres see."""
        placed = Camera(cameras.camera_to_world, np.linalg.inv(self.pixels) @ cameras.intrinsics)
        return jax.tree.map(np.asarray, self.scene.render(placed, self.side, self.side))

    @property
    def pixels(self) -> np.ndarray:
        """[3, 3] from image points of the model's pixels to those of pixels at their centres."""
        if self.scene.pixel_grid == "centres":
            return np.eye(3)
        share, first = (self.side - 1) / self.side, 0.5 / self.side
        return np.array([[share, 0, first], [0, share, first], [0, 0, 1]])


def of_samples(scenes: Sequence[RenderableScene], num_views: int, size: int | None) -> list[SceneViews]:
    """Of all scenes that were sampled behind the same pictures.

    Raises:
      UserError: no picture has so many pixels, or nobody needs so many views.
    """
    check_views(num_views, size)
    samples: list[SceneViews] = []
    samples += [SceneViews(scene, num_views, size, samples) for scene in scenes]
    return samples


def check_views(num_views: int, size: int | None) -> None:
    """
    Raises:
      UserError: no picture has so many pixels, or nobody needs so many views.
    """
    for value, what, most in ((num_views, "num_views", MOST_VIEWS), (size, "size", MOST_PIXELS)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not (whole and 1 <= value <= most) and (what, value) != ("size", None):
            raise UserError(f"{what} is a number from 1 to {most}, not {value!r}")


def back_projected(distances: np.ndarray, cameras: Camera) -> np.ndarray:
    """The points [k, h, w, 3] at distances [k, h, w] along the rays of the pixels' centres."""
    height, width = distances.shape[1:]
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    image_points = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
    rays = np.einsum("kij,hwj->khwi", np.linalg.inv(cameras.intrinsics), image_points)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    along = np.einsum("kij,khwj->khwi", cameras.camera_to_world[:, :3, :3], rays)
    return cameras.camera_to_world[:, None, None, :3, 3] + distances[..., None] * along


def seen_at(
    points: np.ndarray, pose: np.ndarray, intrinsics: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where one camera sees points [*p, 3]: whether they are in the picture [*p], at which places in pixels (x, y)
    [*p, 2], and at which distances [*p]."""
    in_camera = (points - pose[:3, 3]) @ pose[:3, :3]
    homogeneous = in_camera @ intrinsics.T
    ahead = homogeneous[..., 2] > 1e-9
    places = side * homogeneous[..., :2] / np.where(ahead, homogeneous[..., 2], 1.0)[..., None]
    inside = ahead & ((places >= 0) & (places < side)).all(-1)
    return inside, places, np.linalg.norm(in_camera, axis=-1)


def agreements(points: np.ndarray, images: RenderedViews, cameras: Camera) -> np.ndarray:
    """[k, p] whether each camera sees a surface at points [p, 3]."""
    found = np.zeros((len(images.depth), len(points)), bool)
    depths = np.where(images.opacity > SOLID, images.surface_depth(), np.inf)
    for i, depth in enumerate(depths):
        inside, places, distances = seen_at(points, cameras.camera_to_world[i], cameras.intrinsics[i], len(depth))
        x, y = np.where(inside[..., None], places, 0).astype(int).T
        found[i] = inside & (np.abs(depth[y, x] - distances) < SAME_SURFACE * distances)
    return found
