"""Forward warping: pixels of an image are carried along a motion field, and splatted where they arrive.

Softmax splatting (Niklaus & Liu 2020): where several pixels arrive, they are averaged with weights `exp(importance)`,
so that the more important ones, which are nearer, hide the others. It is written as products with the bilinear kernels
of rows and of columns: every sum has one order, on every device, and its gradient is that of two products. An image of
`p` pixels costs `p^2` multiplications a channel.

Letters: `b` the batch, `h w` pixels, `p` the same in a row, `c` channels. Displacements are `(x, y)` in pixels, to the
right and down.
"""

import functools

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array, lax
from jaxtyping import Float

# They are pixels, and not features: accelerators would multiply them with 8 to 11 bits.
_products = functools.partial(jnp.einsum, precision="highest")


def splat(values: Float[Array, "b h w c"], displacement: Float[Array, "b h w 2"]) -> Float[Array, "b h w c"]:
    """The sum of all pixels' values where these arrive, shared out to the four pixels around each place by the bilinear
    kernel. What leaves the image is lost."""
    b, height, width, _ = values.shape
    rows, columns = _kernels(_places(height, width) + displacement, height, width)
    carried = columns[..., None] * rearrange(values, "b h w c -> b (h w) 1 c")
    summed = _products("bpy,bpk->byk", rows, carried.reshape(b, height * width, -1))
    return summed.reshape(values.shape)


def look_up(values: Float[Array, "b h w c"], places: Float[Array, "b h w 2"]) -> Float[Array, "b h w c"]:
    """Values at places `(x, y)` of the image by bilinear interpolation; beyond the border is what lies at it. Inside,
    it is the transpose of `splat`."""
    _, height, width, _ = values.shape
    inside = jnp.clip(places, 0, np.float32([[[[width - 1, height - 1]]]]))
    rows, columns = _kernels(inside, height, width)
    found = _products("bpx,bpxc->bpc", columns, _products("bpy,byxc->bpxc", rows, values))
    return found.reshape(*places.shape[:-1], values.shape[-1])


def displacement(
    flow: Float[Array, "b h w 2"], time: Float[Array, "b"], integration_steps: int = 0
) -> Float[Array, "b h w 2"]:
    """Where each pixel is after some time, relative to where it was.

    Args:
      flow: velocities, pixels per unit of time.
      integration_steps: 0: each pixel keeps its velocity, as things do that move on their way. Otherwise the field
        stays, and pixels drift through it, as water does (Holynski et al. 2021): Euler's method in so many steps.
    """
    time = time[:, None, None, None]
    if integration_steps == 0:
        return time * flow
    start, step = _places(*flow.shape[1:3]), time / integration_steps
    drift = lambda moved, _: (moved + step * look_up(flow, start + moved), None)
    return lax.scan(drift, jnp.zeros_like(flow), length=integration_steps)[0]


def warp(
    values: Float[Array, "b h w c"], displacement: Float[Array, "b h w 2"], importance: Float[Array, "b h w"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w"]]:
    """Softmax splatting.

    Returns:
      the weighted mean of what arrives at each pixel, 0 where nothing does; and how much of a pixel arrives, at most 1.
    """
    weight = jnp.exp(importance)[..., None]
    summed = splat(jnp.concatenate([weight * values, weight, jnp.ones_like(weight)], axis=-1), displacement)
    mean = summed[..., :-2] / jnp.maximum(summed[..., -2:-1], 1e-6)
    return mean, jnp.minimum(summed[..., -1], 1.0)


def visibility(displacement: Float[Array, "b h w 2"], importance: Float[Array, "b h w"]) -> Float[Array, "b h w"]:
    """How much of each pixel is seen where it arrives, and not hidden by more important ones: 1 of what is alone."""
    weight = jnp.exp(importance)[..., None]
    there = look_up(splat(weight, displacement), _places(*importance.shape[1:]) + displacement)
    return jnp.minimum(1.0, weight / jnp.maximum(there, 1e-6))[..., 0]


def _places(height: int, width: int) -> Float[np.ndarray, "1 h w 2"]:
    """`(x, y)` of all pixels."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)[None].astype(np.float32)


def _kernels(
    places: Float[Array, "b h w 2"], height: int, width: int
) -> tuple[Float[Array, "b p h"], Float[Array, "b p w"]]:
    """How much of what lies at each place belongs to each row, and to each column."""
    x, y = (rearrange(places[..., axis], "b h w -> b (h w) 1") for axis in (0, 1))
    near = lambda at, count: jnp.maximum(0, 1 - jnp.abs(at - np.arange(count, dtype=np.float32)[None, None]))
    return near(y, height), near(x, width)
