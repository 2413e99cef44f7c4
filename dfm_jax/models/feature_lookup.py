"""Bilinear lookup of feature maps at image points.

Letters: `b` scene, `v` feature view, `p` places (pixels) of a map, `k` the four corners around a point, `n` points, `c`
channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax, vmap
from jaxtyping import Float, Int

from dfm_jax.geometry import to_pixels

# Gradients that are added to a map at once. For a TPU they are sorted by place first, and its compiler is slow with
# long sorts: it computes for 14 s over one of 65536, for 2 s over one of 16384.
ADDED_AT_ONCE = 2048


@jax.named_scope("lookup")
def lookup_features(maps: Float[Array, "b v h w c"], uv: Float[Array, "b v n 2"], grid: str) -> Float[Array, "b v n c"]:
    """Features at normalised image points `uv`; points outside take the value at the nearest border.

    Args:
      grid: where pixels lie in [0, 1]: 'centres' or 'corners', see `geometry.pixel_grid`.
    """
    index, weights = bilinear_weights(to_pixels(uv, *maps.shape[2:4], grid), *maps.shape[2:4], maps.dtype)
    return _weighted_rows(rearrange(maps, "b v h w c -> b v (h w) c"), index, weights)


def bilinear_weights(
    xy: Float[Array, "*batch 2"], height: int, width: int, dtype: Any = jnp.float32
) -> tuple[Int[Array, "k *batch"], Float[Array, "k *batch"]]:
    """The four pixels around points, as row-major indices, and their weights. Points outside are moved to the border.

    Args:
      xy: in pixels.
    """
    last = jnp.array([width, height], xy.dtype).reshape(*[1] * (xy.ndim - 1), 2) - 1
    xy = jnp.clip(xy, 0.0, last)
    corner = jnp.minimum(jnp.floor(xy), jnp.maximum(last - 1, 0))
    fx, fy = jnp.moveaxis((xy - corner).astype(dtype), -1, 0)
    x, y = jnp.moveaxis(corner.astype(jnp.int32), -1, 0)
    right, below = jnp.minimum(x + 1, width - 1), jnp.minimum(y + 1, height - 1)
    index = jnp.stack([y * width + x, y * width + right, below * width + x, below * width + right])
    return index, jnp.stack([(1 - fy) * (1 - fx), (1 - fy) * fx, fy * (1 - fx), fy * fx])


@jax.custom_vjp
def _weighted_rows(
    table: Float[Array, "b v p c"], index: Int[Array, "k b v n"], weights: Float[Array, "k b v n"]
) -> Float[Array, "b v n c"]:
    """The rows that `index` names, times their weightss, summed over k."""
    return sum(weights[k][..., None] * _rows(table, index[k]) for k in range(index.shape[0]))


def _rows(table: Float[Array, "b v p c"], index: Int[Array, "b v n"]) -> Float[Array, "b v n c"]:
    return vmap(vmap(lambda table, i: table.at[i].get(mode="promise_in_bounds")))(table, index)


def _forward(table: Array, index: Array, weights: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _weighted_rows(table, index, weights), (table, index, weights)


def _backward(kept: tuple[Array, Array, Array], gradient: Float[Array, "b v n c"]) -> tuple[Array, None, Array]:
    """The plain gradient; that of the table is added up as the platform does it best."""
    table, index, weights = kept
    views = index.shape[2]
    places = table.shape[2]
    # Of little cost: where nobody asks for it, it is not computed.
    of_weights = jnp.stack([jnp.sum(gradient * _rows(table, i), axis=-1) for i in index])
    index = rearrange(index + places * jnp.arange(views)[None, None, :, None], "k b v n -> k b (v n)")
    weights = rearrange(weights, "k b v n -> k b (v n)")
    gradient = rearrange(gradient, "b v n c -> b (v n) c")
    added = lax.platform_dependent(
        jnp.zeros((table.shape[0], views * places, table.shape[3]), table.dtype),
        index,
        weights,
        gradient,
        cuda=add_at_once,
        default=add_in_pieces,
    )
    return rearrange(added, "b (v p) c -> b v p c", v=views), None, of_weights


def add_in_pieces(
    total: Float[Array, "b p c"],
    index: Int[Array, "k b n"],
    weights: Float[Array, "k b n"],
    gradient: Float[Array, "b n c"],
) -> Float[Array, "b p c"]:
    """Adds weighted gradients to the rows that `index` names, a few points at a time."""
    corners, _, points = index.shape
    size = min(ADDED_AT_ONCE, points)
    pieces = -(-points // size)
    missing = pieces * size - points
    index, weights = (jnp.pad(x, [(0, 0), (0, 0), (0, missing)]) for x in (index, weights))  # adds 0 to the first place
    gradient = jnp.pad(gradient, [(0, 0), (0, missing), (0, 0)])

    def add(i: Array, total: Float[Array, "b p c"]) -> Float[Array, "b p c"]:
        k, first = i % corners, i // corners * size
        some = lambda x, axis: lax.dynamic_slice_in_dim(x, first, size, axis)
        return _add_rows(total, some(index[k], 1), some(weights[k], 1), some(gradient, 1))

    return lax.fori_loop(0, corners * pieces, add, total)


def add_at_once(
    total: Float[Array, "b p c"],
    index: Int[Array, "k b n"],
    weights: Float[Array, "k b n"],
    gradient: Float[Array, "b n c"],
) -> Float[Array, "b p c"]:
    """The same for a GPU, which adds with atomic operations: all points of a corner, in float32."""
    wide = total.astype(jnp.float32)
    for k in range(index.shape[0]):
        wide = _add_rows(wide, index[k], weights[k].astype(jnp.float32), gradient.astype(jnp.float32))
    return wide.astype(total.dtype)


def _add_rows(
    total: Float[Array, "b p c"],
    index: Int[Array, "b n"],
    weights: Float[Array, "b n"],
    gradient: Float[Array, "b n c"],
) -> Float[Array, "b p c"]:
    update = weights[..., None] * gradient
    return vmap(lambda total, i, x: total.at[i].add(x, mode="promise_in_bounds"))(total, index, update)


_weighted_rows.defvjp(_forward, _backward)
