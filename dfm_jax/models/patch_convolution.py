"""A convolution as the product of its kernel and the patches of the image.

Letters: `n` images, `h w` pixels, `i j` places that the kernel is put on, `c` input channels, `k` features.
"""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from flax.linen.dtypes import promote_dtype
from jax import Array, lax
from jaxtyping import Float


def patches(x: Float[Array, "n h w c"], size: int, stride: int) -> Float[Array, "n i j {size}*{size}*c"]:
    """What a square kernel sees at each of its places, rows first; `size // 2` pixels around the image are 0."""
    n, height, width, channels = x.shape
    border = size // 2
    x = jnp.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    end = lambda first, length: first + length + 2 * border - size + 1
    seen = [
        lax.slice(x, (0, i, j, 0), (n, end(i, height), end(j, width), channels), (1, stride, stride, 1))
        for i in range(size)
        for j in range(size)
    ]
    return jnp.concatenate(seen, axis=-1)


class PatchConv(nn.Module):
    """`flax.linen.Conv` with a square kernel and `size // 2` of padding, with the same parameters and results.

    For large kernels on few channels, as first layers have. XLA's compiler for TPUs takes half a minute to more than a
    minute for the gradient of such a convolution by its kernel (77 s for 7 x 7 on three images of 128 x 128 with three
    channels), and 13 s for this.
    """

    features: int
    size: int
    stride: int = 1
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j k"]:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        y = patches(x, self.size, self.stride) @ rearrange(kernel, "i j c k -> (i j c) k")
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        return y + bias.astype(y.dtype).reshape(1, 1, 1, -1)
