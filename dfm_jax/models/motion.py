"""The last layers of a network that infers a motion field.

Letters: `b` the batch, `h w` pixels, `k` input channels.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

MOST_IMPORTANCE = 6.0  # its size, which the network's output approaches
FLOW_SCALE = 4.0  # pixels per unit of time, of an output of 1
OPAQUE = 3.0  # the logit of a new network's opacity
small = nn.initializers.normal(0.02)


class MotionHead(nn.Module):
    """From feature maps, and the images that they are of, to what a warp needs at every pixel. New parameters move
    nearly nothing."""

    width: int
    dtype: Any

    @nn.compact
    def __call__(
        self, features: Float[Array, "b h w k"]
    ) -> tuple[Float[Array, "b h w 2"], Float[Array, "b h w"], Float[Array, "b h w"], Float[Array, "b h w 3"]]:
        """Flow, pixels per unit of time; importance; opacity; and the appearance of what is uncovered, in [-1, 1]."""
        x = nn.gelu(nn.Conv(self.width, (3, 3), dtype=self.dtype, name="hidden")(features))
        x = nn.Conv(7, (3, 3), kernel_init=small, dtype=self.dtype, name="out")(x).astype(jnp.float32)
        importance = MOST_IMPORTANCE * jnp.tanh(x[..., 2] / MOST_IMPORTANCE)
        opacity = nn.sigmoid(OPAQUE + x[..., 3])
        return FLOW_SCALE * x[..., :2], importance, opacity, jnp.tanh(x[..., 4:])
