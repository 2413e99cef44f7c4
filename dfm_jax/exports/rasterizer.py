"""A differentiable rasteriser of 3D gaussians (Zwicker et al. 2001; Kerbl et al. 2023, section 4), in plain JAX.

Each gaussian becomes an ellipse in the image, by the camera's linearisation at its mean. The image is cut into tiles;
each of them blends, front to back, the gaussians that touch it. All shapes are static: of a tile that more than
`per_tile` gaussians touch, the farthest are left out.

Letters: `n` gaussians, `b` cameras, `t` tiles of an image, `k` gaussians of a tile, `p` pixels of a tile, `h w` pixels
of an image. Pixels are counted from the image's corner: pixel i has its centre at i + 1/2.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int

from dfm_jax.exports.blending import LEAST_ALPHA, Layers, blend
from dfm_jax.geometry import invert_intrinsics, invert_pose
from dfm_jax.structs import Camera, RenderedViews

TILE = 8
# The linearisation is taken at most that far outside of the image, in half widths and heights (Kerbl et al.).
BEYOND = 1.3


class Splats(NamedTuple):
    """Gaussians as arrays that gradients flow to; see `gaussians.Gaussians`."""

    means: Array  # [n, 3]
    covariances: Array  # [n, 3, 3]
    opacities: Array  # [n]
    colours: Array  # [n, c], any number of channels


class Ellipses(NamedTuple):
    """Gaussians in an image: each is `opacity * exp(-q / 2)`, `q` the conic's quadratic form of the offset."""

    xy: Array  # [n, 2] pixels
    conics: Array  # [n, 3] (xx, xy, yy) of the inverse covariance, 1 / pixel^2
    half_sizes: Array  # [n, 2] of the box outside of which it is neglected, pixels; negative where it is not seen
    z: Array  # [n] along the optical axis, units of the scene


def rasterize(
    splats: Splats,
    cameras: Camera,
    height: int,
    width: int,
    *,
    near: float | Array,
    per_tile: int,
    background: float | Array = 0.0,
) -> RenderedViews:
    """What cameras [b] see: `rgb [b, h, w, c]`, `depth` (expected distance of the gaussians' means) and `opacity`.

    Args:
      cameras: float32; pixels of the image lie as in `geometry.pixel_grid` 'centres'.
      near: gaussians nearer than this along the optical axis are not seen.
      per_tile: see above; `most_per_tile` tells how many are needed.
      background: grey behind the gaussians, or `[c]`.
    """
    with jax.default_matmul_precision("highest"):
        layers = jax.vmap(partial(_layers, splats, height=height, width=width, near=near, per_tile=per_tile))(cameras)
        pixels, across = _pixels(height, width), -(-width // TILE)
        num_cameras = len(cameras.intrinsics)
        rows = jax.tree.map(lambda x: rearrange(x, "b k t c -> k (b t) c"), layers)
        blended = blend(rows, jnp.tile(pixels, (num_cameras, 1, 1)))
        form = "(b ty tx) c (y x) -> b (ty y) (tx x) c"
        images = rearrange(blended, form, b=num_cameras, tx=across, x=TILE)[:, :height, :width]
        rgb, depth, opacity = images[..., :-2], images[..., -2], images[..., -1]
        return RenderedViews(rgb + (1 - opacity[..., None]) * jnp.broadcast_to(background, rgb.shape), depth, opacity)


def most_per_tile(splats: Splats, cameras: Camera, height: int, width: int, near: float | Array) -> Int[Array, ""]:
    """How many gaussians touch the most crowded tile of cameras [b]."""

    def of_one(camera: Camera) -> Array:
        return touched_tiles(project_gaussians(splats, camera, height, width, near), height, width).sum(1).max()

    return jax.lax.map(of_one, cameras).max()


def project_gaussians(splats: Splats, camera: Camera, height: int, width: int, near: float | Array) -> Ellipses:
    """The ellipses of all gaussians in one camera's image."""
    world_to_camera = invert_pose(camera.camera_to_world)
    turn = world_to_camera[:3, :3]
    p = splats.means @ turn.T + world_to_camera[None, :3, 3]
    z, reach = jnp.maximum(p[:, 2], near), 0.5 * BEYOND
    matrix = camera.intrinsics[:2] * jnp.array([[width], [height]], jnp.float32)  # [2, 3] in pixels
    slopes = p[:, :2] / z[:, None]
    xy = slopes @ matrix[:, :2].T + matrix[None, :, 2]
    # The linearisation of the projection at the means, but for means far outside of the image.
    uv = jnp.clip(slopes @ camera.intrinsics[:2, :2].T + camera.intrinsics[None, :2, 2], 0.5 - reach, 0.5 + reach)
    inside = (uv - camera.intrinsics[None, :2, 2]) @ invert_intrinsics(camera.intrinsics)[:2, :2].T
    by_slopes = jnp.broadcast_to(matrix[:, :2], (len(z), 2, 2))
    jacobian = jnp.concatenate([by_slopes, -by_slopes @ inside[..., None]], axis=-1) / z[:, None, None]
    linear = jacobian @ turn
    covariances = linear @ splats.covariances @ linear.swapaxes(1, 2)
    xx, across, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    determinant = jnp.maximum(xx * yy - across**2, 1e-12)
    conics = jnp.stack([yy, -across, xx], axis=-1) / determinant[:, None]
    furthest = 2 * jnp.log(jnp.maximum(splats.opacities / LEAST_ALPHA, 1e-6))  # of q
    seen = (furthest > 0) & (p[:, 2] > near)
    half_sizes = jnp.sqrt(jnp.maximum(furthest[:, None] * jnp.stack([xx, yy], axis=-1), 0))
    return Ellipses(xy, conics, jnp.where(seen[:, None], half_sizes, -1.0), p[:, 2])


def touched_tiles(ellipses: Ellipses, height: int, width: int) -> Bool[Array, "t n"]:
    """Whether any pixel centre of a tile lies in a gaussian's box."""
    pixels = _pixels(height, width)
    first, last = pixels[:, 0, None], pixels[:, -1, None]
    low, high = ellipses.xy - ellipses.half_sizes, ellipses.xy + ellipses.half_sizes
    return jnp.all((low[None] <= last) & (high[None] >= first), axis=-1) & (ellipses.half_sizes[None, :, 0] >= 0)


def _layers(splats: Splats, camera: Camera, *, height: int, width: int, near: float | Array, per_tile: int) -> Layers:
    """What each tile of one camera's image blends: [k, t, _]."""
    ellipses = project_gaussians(splats, camera, height, width, near)
    order = jnp.argsort(ellipses.z)
    chosen, valid = _first(touched_tiles(ellipses, height, width)[:, order], min(per_tile, len(order)))
    distances = jnp.linalg.norm(splats.means - camera.camera_to_world[None, :3, 3], axis=-1)
    table = [ellipses.xy, ellipses.conics, splats.opacities[:, None], splats.colours, distances[:, None]]
    rows = jnp.concatenate(table, axis=-1)[order][chosen.T]
    xy, conics, opacities, values = jnp.split(rows, [2, 5, 6], axis=-1)
    return Layers(xy, conics, opacities * valid.T[..., None], jnp.concatenate([values, jnp.ones_like(opacities)], -1))


def _first(touching: Bool[Array, "t n"], count: int) -> tuple[Int[Array, "t k"], Bool[Array, "t k"]]:
    """The first `count` gaussians that touch each tile, in their order, and which of these places are taken."""
    so_far = jnp.cumsum(touching.astype(jnp.int32), axis=1)
    wanted = jnp.arange(1, count + 1)
    index = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(so_far)
    return jnp.minimum(index, touching.shape[1] - 1), wanted[None] <= so_far[:, -1:]


def _pixels(height: int, width: int) -> Float[Array, "t p 2"]:
    """Centres (x, y) of all tiles' pixels, row by row; those of the last tiles may lie outside of the image."""
    down, across = -(-height // TILE), -(-width // TILE)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(across * TILE), jnp.arange(down * TILE)), axis=-1) + 0.5
    return rearrange(grid, "(ty y) (tx x) xy -> (ty tx) (y x) xy", y=TILE, x=TILE)
