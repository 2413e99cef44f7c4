"""Multi-view consistency: do pictures of a scene and their depths tell of one and the same scene?

Every pixel of a view `a` is carried by its depth to a point, and from there into another view `b`. If `b` sees a
surface there, the pixel goes back by `b`'s depth: how far from where it began it arrives is the reprojection error.
If `b` looks through the point and sees something farther away, the two contradict each other; if something nearer is
in the way, nothing can be said.

Letters: `k` views of one scene, `h w` pixels, `r = h * w`. Distances run along unit rays.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

from dfm_jax.geometry import pixel_grid, project, to_pixels, unproject
from dfm_jax.models.feature_lookup import bilinear_weights
from dfm_jax.structs import Camera, RenderedViews

# Surfaces whose distances differ by less than this share of them are one surface.
SAME_SURFACE = 0.05
# Rays of which less than this share is stopped do not see a surface.
SOLID = 0.9
# Views that each one is compared with; where there are more, so many of them: the work grows as the views, not as
# their square.
MOST_COMPARED = 32


@struct.dataclass
class Consistency:
    """Over all pairs of views that are compared; NaN where no pixel can be."""

    reprojection: Array  # [] mean distance between a pixel and itself, there and back; pixels
    colour: Array  # [] root mean square difference of the colours of a point in two views
    contradicted: Array  # [] share of the points compared that the other view looks through


def consistency(rendered: RenderedViews, camera: Camera, valid: Array, grid: str) -> Consistency:
    """Compares all pairs of views; of more than `MOST_COMPARED`, each with so many of the others.

    Args:
      rendered: [k, h, w].
      camera: [k].
      valid: [k] bool, views that are no padding.
      grid: 'centres' or 'corners', where pixels lie.
    """
    views, surfaces = jnp.arange(len(valid)), rendered.replace(depth=rendered.surface_depth())
    others, counts = compared_with(valid)

    def against(a: Array) -> Array:
        return jax.vmap(lambda b, counts: _compare(surfaces, camera, a, b, grid) * counts)(others[a], counts[a])

    # One view at a time against the others: the memory of a pair is that of some images.
    same, through, shift, difference = jax.lax.map(against, views).sum((0, 1))
    return Consistency(shift / same, jnp.sqrt(difference / same), through / (same + through))


def compared_with(valid: Bool[Array, "k"]) -> tuple[Int[Array, "k m"], Bool[Array, "k m"]]:
    """Which views each one is compared with, and which of these count: all, or `MOST_COMPARED` at even distances among
    those that are valid."""
    views = jnp.arange(len(valid))
    if len(valid) <= MOST_COMPARED + 1:
        return jnp.tile(views, (len(valid), 1)), valid[:, None] & valid[None] & (views[:, None] != views[None])
    first = jnp.argsort(~valid, stable=True)  # the valid ones come first
    place, count = jnp.argsort(first), valid.sum()
    steps = 1 + jnp.arange(MOST_COMPARED) * (count - 1) // MOST_COMPARED
    again = jnp.diff(steps, prepend=jnp.zeros(1, steps.dtype)) == 0  # where fewer are valid
    others = first[(place[:, None] + steps[None]) % count]
    return others, valid[:, None] & valid[others] & ~again[None] & (others != views[:, None])


def _compare(seen: RenderedViews, camera: Camera, a: Array, b: Array, grid: str) -> Float[Array, "4"]:
    """Pixels of `a` that `b` sees, those that it looks through; sums of shifts and of squared colour differences over
    the former. `seen` has the depths of surfaces."""
    size = seen.depth.shape[1:]
    xy = rearrange(pixel_grid(*size, grid), "h w xy -> (h w) xy")
    flat = lambda x: rearrange(x[a], "h w ... -> (h w) ...")
    camera_a, camera_b = (jax.tree.map(lambda x, i=i: x[i], camera) for i in (a, b))
    uv, camera_points = project(camera_b, unproject(camera_a, xy, flat(seen.depth)))
    expected = jnp.linalg.norm(camera_points, axis=-1)

    layers = jnp.concatenate([seen.rgb[b], seen.depth[b][..., None], seen.opacity[b][..., None]], axis=-1)
    corners, weights, inside = _neighbours(layers, to_pixels(uv, *size, grid))
    rgb, found = jnp.split(jnp.einsum("rcl,rc->rl", corners[..., :4], weights), [3], axis=-1)
    found = found[:, 0]
    near, far = corners[..., 3].min(1), corners[..., 3].max(1)
    surface = (far - near < SAME_SURFACE * near) & (corners[..., 4].min(1) > SOLID)
    comparable = inside & (camera_points[:, 2] > 0) & (flat(seen.opacity) > SOLID) & surface
    same = comparable & (jnp.abs(found - expected) < SAME_SURFACE * expected)
    through = comparable & (found >= (1 + SAME_SURFACE) * expected)

    back, _ = project(camera_a, unproject(camera_b, uv, jnp.where(same, found, 1.0)))
    shift = jnp.linalg.norm(to_pixels(back, *size, grid) - to_pixels(xy, *size, grid), axis=-1)
    difference = jnp.mean(jnp.square(rgb - flat(seen.rgb)), axis=-1)
    over = lambda x: jnp.sum(jnp.where(same, x, 0.0))
    return jnp.stack([jnp.sum(same), jnp.sum(through), over(shift), over(difference)])


def _neighbours(
    image: Float[Array, "h w l"], xy: Float[Array, "r 2"]
) -> tuple[Float[Array, "r 4 l"], Float[Array, "r 4"], Array]:
    """The four pixels around points `xy` (in pixels), their bilinear weights, and which lie between four pixels."""
    height, width = image.shape[:2]
    index, weights = bilinear_weights(xy, height, width)
    inside = jnp.all((xy >= 0) & (xy <= jnp.array([[width - 1, height - 1]])), axis=-1)
    return rearrange(image, "h w l -> (h w) l")[index.T], weights.T, inside
