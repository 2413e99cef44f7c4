"""Where along a ray to look.

Notation: `d` are distances along unit rays, ascending; `w` the weight that volume rendering gives each of them;
`u` uniform numbers in [0, 1]. One leading `*ray` stands for any batch axes.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

# Added to every weight before it becomes a probability, so that no ray is without samples (published value).
WEIGHT_PADDING = 1e-5


def coarse_distances(near: Float[Array, "*ray"], far: Float[Array, "*ray"], count: int) -> Float[Array, "*ray count"]:
    """`count` distances, evenly spaced from near to far, both included."""
    return near[..., None] + jnp.multiply.outer(far - near, jnp.linspace(0.0, 1.0, count))


def deterministic_uniforms(count: int) -> Float[Array, "count"]:
    """The centres of `count` equal parts of [0, 1]: what stands for uniform draws when nothing may be random."""
    return (jnp.arange(count, dtype=jnp.float32) + 0.5) / count


def importance_distances(
    d: Float[Array, "*#ray n"], w: Float[Array, "*#ray n"], u: Float[Array, "*#ray m"]
) -> Float[Array, "*ray m"]:
    """Distances drawn from the piecewise constant density that the weights `w` at `d` describe.

    Inverse transform sampling (NeRF, section 5.2): the bins lie between the mid-points of `d`, and `w[1:-1]` are their
    masses. The result is in the order of `u`, not sorted.
    """
    midpoints = 0.5 * (d[..., 1:] + d[..., :-1])
    mass = w[..., 1:-1] + WEIGHT_PADDING
    cdf = jnp.cumsum(mass / jnp.sum(mass, axis=-1, keepdims=True), axis=-1)
    cdf = jnp.concatenate([jnp.zeros_like(cdf[..., :1]), cdf], axis=-1)
    # A left search, written as a comparison with every bin: bins are few, and this form is fast on every backend.
    index = jnp.sum(cdf[..., None, :] < u[..., :, None], axis=-1)
    below = jnp.maximum(index - 1, 0)
    above = jnp.minimum(index, cdf.shape[-1] - 1)

    def at(values: Array, indices: Array) -> Array:
        shape = (*indices.shape[:-1], values.shape[-1])
        return jnp.take_along_axis(jnp.broadcast_to(values, shape), indices, axis=-1)

    cdf_below, cdf_above = at(cdf, below), at(cdf, above)
    d_below, d_above = at(midpoints, below), at(midpoints, above)
    width = cdf_above - cdf_below
    fraction = (u - cdf_below) / jnp.where(width < WEIGHT_PADDING, 1.0, width)
    return d_below + fraction * (d_above - d_below)
