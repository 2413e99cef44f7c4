"""ReLUs whose results can be kept for the backward pass, by names that `jax.checkpoint` policies choose from.

The result of a ReLU is what the matrix product behind it takes, and tells where the gradient passes: with it, nothing
before it needs to be computed again.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.ad_checkpoint import checkpoint_name

# Of a radiance field: before and after its views are averaged.
OF_VIEWS, JOINT = "activations_of_views", "joint_activations"


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def relu(x: Array, name: str) -> Array:
    """As `nn.relu`, with a name; '': none."""
    return jnp.maximum(x, 0)


@relu.defjvp
def _jvp(name: str, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    result = jnp.maximum(primals[0], 0)
    if name:
        result = checkpoint_name(result, name)
    return result, jnp.where(result > 0, tangents[0], 0)
