"""What the losses of all forward models are made of."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

Terms = dict[str, Array]  # each [b]


def mean_squared_error(a: Float[Array, "b ..."], b: Float[Array, "b ..."]) -> Float[Array, "b"]:
    """Mean over all axes but the first."""
    return jnp.mean(jnp.square(a - b), axis=tuple(range(1, a.ndim)))
