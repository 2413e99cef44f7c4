"""Volume rendering along a ray, by quadrature (Max 1995; NeRF, equation 3).

Notation: `d` distances along the ray, ascending; `delta` the length that each sample stands for; `sigma` densities
(>= 0, per unit length); `w` weights: the probability that the ray ends at a sample.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def sample_lengths(d: Float[Array, "*ray s"]) -> Float[Array, "*ray s"]:
    """Distance from each sample to the next; the last repeats the one before."""
    delta = jnp.diff(d, axis=-1)
    return jnp.concatenate([delta, delta[..., -1:]], axis=-1)


def volume_weights(sigma: Float[Array, "*ray s"], d: Float[Array, "*#ray s"]) -> Float[Array, "*ray s"]:
    """`w_i = (1 - exp(-sigma_i delta_i)) prod_{j<i} exp(-sigma_j delta_j)`; not negative, at most 1 in sum."""
    optical_depth = sigma * sample_lengths(d)
    # Shifted, not `cumsum - optical_depth`: behind an opaque wall that difference has lost what lies before the wall.
    before = jnp.cumsum(optical_depth[..., :-1], axis=-1)
    before = jnp.concatenate([jnp.zeros_like(optical_depth[..., :1]), before], axis=-1)
    return -jnp.expm1(-optical_depth) * jnp.exp(-before)


def composite(w: Float[Array, "*ray s"], values: Float[Array, "*#ray s c"]) -> Float[Array, "*ray c"]:
    """Expected value along the ray, not divided by the opacity."""
    return jnp.sum(w[..., None] * values, axis=-2)


def add_background(rgb: Float[Array, "*ray 3"], w: Float[Array, "*ray s"], background: float) -> Float[Array, "*ray 3"]:
    """Fills what the weights leave transparent with a grey of value `background`."""
    return rgb + (1.0 - jnp.sum(w, axis=-1, keepdims=True)) * background
