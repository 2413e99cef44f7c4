"""Which pixels of the target views training looks at.

Letters: `t` target views, `r` pixels of each.
"""

import dataclasses

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Key, Num

from dfm_jax.config import LossConfig


@dataclasses.dataclass(frozen=True)
class Supervision:
    """What a loss looks at, without its weights."""

    pixels: str  # 'patch' or 'random', see `LossConfig`
    patch_size: int

    @classmethod
    def of(cls, loss: LossConfig) -> "Supervision":
        return cls(loss.pixels, loss.patch_size)


def sample_pixels(
    key: Key[Array, ""], *, num_views: int, image_size: int, supervision: Supervision
) -> Num[Array, "t r"]:
    """Row-major indices of the pixels of each target view that a loss looks at: one patch, or independent pixels."""
    size = supervision.patch_size
    if supervision.pixels == "random":
        return jax.random.randint(key, (num_views, size**2), 0, image_size**2)
    corner = jax.random.randint(key, (num_views, 2), 0, image_size - size + 1)
    return patch_pixels(corner[:, 0], corner[:, 1], size, image_size)


def patch_pixels(top: Num[Array, "t"], left: Num[Array, "t"], size: int, image_size: int) -> Num[Array, "t r"]:
    """Row-major indices of square patches, `r = size * size`."""
    offset = jnp.arange(size)
    rows, columns = top[:, None, None] + offset[None, :, None], left[:, None, None] + offset[None, None]
    return rearrange(rows * image_size + columns, "t i j -> t (i j)")
