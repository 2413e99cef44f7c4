"""Bilinear lookup of feature maps at image points."""

import jax.numpy as jnp
from einops import rearrange
from jax import Array, vmap
from jaxtyping import Float


def lookup_features(maps: Float[Array, "b v h w c"], uv: Float[Array, "b v n 2"], grid: str) -> Float[Array, "b v n c"]:
    """Features at normalised image points `uv`; points outside take the value at the nearest border.

    Args:
      grid: where pixels lie in [0, 1]: 'centres' or 'corners', see `geometry.pixel_grid`.
    """
    height, width = maps.shape[2:4]
    size = jnp.array([width, height], uv.dtype).reshape(1, 1, 1, 2)
    if grid == "centres":
        xy = uv * size - 0.5
    elif grid == "corners":
        xy = uv * (size - 1)
    else:
        raise ValueError(f"unknown pixel grid {grid!r}: 'centres' or 'corners'")
    xy = jnp.clip(xy, 0.0, size - 1)
    corner = jnp.minimum(jnp.floor(xy), jnp.maximum(size - 2, 0))
    fraction = (xy - corner).astype(maps.dtype)
    x, y = jnp.moveaxis(corner.astype(jnp.int32), -1, 0)
    right, below = jnp.minimum(x + 1, width - 1), jnp.minimum(y + 1, height - 1)
    rows = rearrange(maps, "b v h w c -> b v (h w) c")

    def at(row: Array, column: Array) -> Array:
        index = row * width + column
        return vmap(vmap(lambda table, i: table.at[i].get(mode="promise_in_bounds")))(rows, index)

    fx, fy = fraction[..., :1], fraction[..., 1:]
    top = (1 - fx) * at(y, x) + fx * at(y, right)
    bottom = (1 - fx) * at(below, x) + fx * at(below, right)
    return (1 - fy) * top + fy * bottom
