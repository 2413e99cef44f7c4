"""What only renderings are trained by. All terms are float32 means over rays, per example `[b]`; lower is better.

Letters: `b` example, `t` target view, `r` ray, `s` sample. `w` rendering weights, `d` distances along the ray.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float

from dfm_jax.config import LossConfig
from dfm_jax.forward_models.terms import Terms, mean_squared_error
from dfm_jax.rendering.compositing import sample_lengths
from dfm_jax.structs import Rendering


def distortion(
    w: Float[Array, "*ray s"], d: Float[Array, "*ray s"], near: Float[Array, "*#ray"], far: Float[Array, "*#ray"]
) -> Float[Array, "*ray"]:
    """How spread out along the ray its weights are (mip-NeRF 360, equation 15), in O(s).

    `sum_ij w_i w_j |x_i - x_j| + 1/3 sum_i w_i^2 delta_i`, with distances `x = (d - near) / (far - near)`. The double
    sum needs no pairs: `d` ascends, so that twice the sum over j < i is `w_i (x_i W_i - X_i)`, with the running sums
    `W_i = sum_{j<i} w_j` and `X_i = sum_{j<i} w_j x_j`.
    """
    x = (d - near[..., None]) / (far - near)[..., None]
    before = lambda values: jnp.cumsum(values, axis=-1) - values
    pairs = 2 * jnp.sum(w * (x * before(w) - before(w * x)), axis=-1)
    return pairs + jnp.sum(jnp.square(w) * sample_lengths(x), axis=-1) / 3


def interlevel(
    proposal: tuple[Float[Array, "*ray n"], Float[Array, "*ray n"]],
    w: Float[Array, "*ray s"],
    d: Float[Array, "*ray s"],
) -> Float[Array, "*ray"]:
    """How far the weights of a proposal fall short of the weights `w` that it led to (mip-NeRF 360, equation 13).

    A sample's weight is that of the stretch from its distance to the next. No stretch may have more of `w` than the
    proposal gives to all of its own stretches that overlap it. Only the proposal is trained by this.

    Args:
      proposal: its weights and distances.
    """
    proposed, edges = proposal[0], _edges(proposal[1])
    w, stretches = jax.lax.stop_gradient(w), _edges(d)
    total = jnp.concatenate([jnp.zeros_like(proposed[..., :1]), jnp.cumsum(proposed, axis=-1)], axis=-1)
    # The last edge at or before a stretch's begin, and the first at or after its end.
    before = jnp.sum(edges[..., None, :] <= stretches[..., :-1, None], axis=-1) - 1
    after = jnp.sum(edges[..., None, :] < stretches[..., 1:, None], axis=-1)
    at = lambda i: jnp.take_along_axis(total, jnp.clip(i, 0, proposed.shape[-1]), axis=-1)
    missing = jnp.maximum(0, w - (at(after) - at(before)))
    return jnp.sum(jnp.square(missing) / (w + 1e-6), axis=-1)


def _edges(d: Float[Array, "*ray s"]) -> Float[Array, "*ray s+1"]:
    return jnp.concatenate([d, d[..., -1:] + sample_lengths(d)[..., -1:]], axis=-1)


def inverse_depth_smoothness(
    depth: Float[Array, "*batch h w"], image: Float[Array, "*batch h w 3"], near: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Edge-aware smoothness of inverse depth (Godard et al. 2017): steps of `1 / depth`, relative to its mean, count
    less where the image has an edge.

    Args:
      depth: expected distances; below `near` (rays that hit little) they count as `near`.
    """
    disparity = 1 / jnp.maximum(depth, near[..., None, None])
    disparity = disparity / jnp.mean(disparity, axis=(-2, -1), keepdims=True)

    def along(axis: int) -> Array:
        step = jnp.abs(jnp.diff(disparity, axis=axis))
        edge = jnp.mean(jnp.abs(jnp.diff(image, axis=axis - 1)), axis=-1)
        return jnp.mean(step * jnp.exp(-edge), axis=(-2, -1))

    return along(-1) + along(-2)


def rendering_terms(
    rendering: Rendering,
    truth: Float[Array, "b r 3"],
    near: Float[Array, "b"],
    far: Float[Array, "b"],
    weights: LossConfig,
    perceptual: Callable[[Array, Array], Array] | None = None,
) -> Terms:
    """Terms that only a rendering has: `coarse`, `interlevel`, `distortion`, `smoothness`, `lpips`, each `[b]`, where
    their weight is not 0; for the last, `perceptual` is needed.

    `truth` holds colours in [-1, 1] of whole patches, one after the other, where `weights.pixels` is 'patch'.
    """
    patch = partial(rearrange, pattern="b (t h w) ... -> b t h w ...", h=weights.patch_size, w=weights.patch_size)
    terms = {}
    if weights.coarse:
        terms["coarse"] = mean_squared_error(2 * rendering.coarse_rgb - 1, truth)
    if weights.interlevel:
        per_ray = interlevel(rendering.proposal, rendering.weights, rendering.distances)
        terms["interlevel"] = jnp.mean(per_ray, axis=-1)
    if weights.distortion:
        per_ray = distortion(rendering.weights, rendering.distances, near[:, None], far[:, None])
        terms["distortion"] = jnp.mean(per_ray, axis=-1)
    if weights.smoothness:
        depth, image = patch(rendering.depth), patch(truth)
        per_patch = inverse_depth_smoothness(depth, image, jnp.broadcast_to(near[:, None], depth.shape[:2]))
        terms["smoothness"] = jnp.mean(per_patch, axis=-1)
    if weights.lpips:
        terms["lpips"] = jnp.mean(perceptual(patch(rendering.rgb), patch((truth + 1) / 2)), axis=-1)
    return terms
