"""Evaluating a field only where it matters: the samples that a first pass expects to weigh most, of all rays of a chunk
together, moved side by side into a bucket of a fixed size and back.

What lies in empty space or behind something opaque is expected to weigh nothing. A bucket that is too small for the
rest drops the samples of the least expected weight. A sample that is not evaluated counts as empty; a pixel's colour is
then wrong by at most what the exact weights of the dropped samples of its ray add up to.

Letters: `n` samples in a bucket, which are numbered as in `[r, s]` (row-major).
"""

from collections.abc import Callable
from math import ceil

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct
from jax import Array, lax
from jaxtyping import Float, Int

from dfm_jax.rendering.compositing import volume_weights
from dfm_jax.structs import Rays

# A field as in `ray_marching`, of the samples `index [b, n]` alone: densities [b, n] and radiance [b, n, k].
FieldOfSamples = Callable[[Rays, Float[Array, "b r s"], Int[Array, "b n"]], tuple[Array, Array]]


@struct.dataclass
class Compaction:
    """That a field is evaluated at a share of its samples only."""

    share: float = struct.field(pytree_node=False)  # of the samples of a chunk: the bucket
    field: FieldOfSamples = struct.field(pytree_node=False)

    def __call__(
        self, rays: Rays, distances: Float[Array, "b r s"], expected: Float[Array, "b r s"]
    ) -> tuple[Float[Array, "b r s"], Float[Array, "b r s k"]]:
        """The field at samples along rays, zeros where it was not evaluated.

        Args:
          expected: how much each sample will weigh.
        """
        b, r, s = distances.shape
        index = _heaviest(expected, ceil(self.share * r * s))
        density, radiance = self.field(rays, distances, index)

        def put_back(x: Array) -> Array:
            empty = jnp.zeros((b, r * s, *x.shape[2:]), x.dtype)
            scattered = jax.vmap(lambda all, i, some: all.at[i].set(some, unique_indices=True))(empty, index, x)
            return scattered.reshape(b, r, s, *x.shape[2:])

        return put_back(density), put_back(radiance)


@jax.named_scope("compaction")
def _heaviest(weights: Float[Array, "b r s"], count: int) -> Int[Array, "b n"]:
    """The samples of the largest weights, in the order in which they lie."""
    _, index = lax.top_k(rearrange(lax.stop_gradient(weights), "b r s -> b (r s)"), count)
    return jnp.sort(index, axis=-1)


@jax.named_scope("compaction")
def expected_weights(
    even: Float[Array, "b r m"], density: Float[Array, "b r m"], distances: Float[Array, "b r s"]
) -> Float[Array, "b r s"]:
    """What samples in any order will weigh, if the density is linear between `even` distances, at which it is known."""
    order = jnp.argsort(distances, axis=-1)
    ascending = jnp.take_along_axis(distances, order, axis=-1)
    first, last = even[..., :1], even[..., -1:]
    place = (ascending - first) / (last - first) * (even.shape[-1] - 1)
    below = jnp.clip(jnp.floor(place).astype(jnp.int32), 0, even.shape[-1] - 2)
    at = lambda i: jnp.take_along_axis(density, i, axis=-1)
    fraction = jnp.clip(place - below, 0, 1)
    weights = volume_weights((1 - fraction) * at(below) + fraction * at(below + 1), ascending)
    return jnp.take_along_axis(weights, jnp.argsort(order, axis=-1), axis=-1)
