"""DISTS (Ding et al. 2020, arXiv 2004.07728): how different the structure and the texture of two images are.

Of the image itself and of the five blocks of VGG16, whose max-poolings are replaced by blurred ones, every channel is
compared by its mean (texture) and by its covariance (structure) over all pixels; the weights of these sum to 1. 0 for
equal images; lower is better.

Letters: `n` images, `h w` pixels, `c` channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array, lax
from jaxtyping import Float

from dfm_jax.models.lpips import BLOCKS, PRECISION, SCALE, SHIFT

CHANNELS = (3, *(channels for _, channels in BLOCKS))  # of what is compared
STABLE = 1e-6  # added to numerators and denominators
SMALLEST_IMAGE = 16  # pixels; the poolings leave one
# Of the blur before every second pixel is taken: a Hann window.
WINDOW = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25]).astype(np.float32)


@struct.dataclass
class Dists:
    """The distance with its weights; a pytree, as `lpips.Distance`."""

    vgg16: Mapping[str, Any]  # as in the weights of LPIPS, which are torchvision's
    texture: Array  # [sum of CHANNELS]
    structure: Array  # [sum of CHANNELS]

    def __call__(self, a: Float[Array, "n h w 3"], b: Float[Array, "n h w 3"]) -> Float[Array, "n"]:
        """Distances of images in [0, 1]."""
        total = jnp.sum(self.texture) + jnp.sum(self.structure)
        edges = np.cumsum(CHANNELS)[:-1]
        weights = zip(jnp.split(self.texture / total, edges), jnp.split(self.structure / total, edges), strict=True)
        alike = jnp.zeros(len(a))
        for x, y, (texture, structure) in zip(self.features(a), self.features(b), weights, strict=True):
            alike += _similarity(x, y, texture, structure)
        return 1 - alike

    def features(self, images: Float[Array, "n h w 3"]) -> Sequence[Float[Array, "n _ _ _"]]:
        shift, scale = (jnp.array(values).reshape(1, 1, 1, 3) for values in (SHIFT, SCALE))
        x, taps = (2 * images - 1 - shift) / scale, [images]
        for block, (convolutions, _) in enumerate(BLOCKS, start=1):
            x = _pooled(x) if block > 1 else x
            for i in range(1, convolutions + 1):
                layer = self.vgg16[f"conv{block}_{i}"]
                bias = layer["bias"].reshape(1, 1, 1, -1)
                x = jax.nn.relu(_convolution(x, layer["kernel"], 1, 1) + bias)
            taps.append(x)
        return taps


def _similarity(x: Array, y: Array, texture: Array, structure: Array) -> Float[Array, "n"]:
    """What one block adds, from its features [n, h, w, c] and weights [c]."""
    mean = lambda z: jnp.mean(z, axis=(1, 2), keepdims=True)
    mean_x, mean_y = mean(x), mean(y)
    covariance = mean(x * y) - mean_x * mean_y
    variances = mean(jnp.square(x - mean_x)) + mean(jnp.square(y - mean_y))
    of_means = (2 * mean_x * mean_y + STABLE) / (mean_x**2 + mean_y**2 + STABLE)
    of_structure = (2 * covariance + STABLE) / (variances + STABLE)
    both = of_means[:, 0, 0] * texture[None] + of_structure[:, 0, 0] * structure[None]
    return jnp.sum(both, axis=-1)


def _pooled(x: Float[Array, "n h w c"]) -> Float[Array, "n _ _ c"]:
    """Root of the blurred squares, at every second pixel."""
    kernel = jnp.tile(WINDOW[:, :, None, None], (1, 1, 1, x.shape[-1]))
    return jnp.sqrt(_convolution(jnp.square(x), kernel, 2, x.shape[-1]) + 1e-12)


def _convolution(x: Array, kernel: Array, stride: int, groups: int) -> Array:
    padding = [(1, 1), (1, 1)]
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, None, None, numbers, groups, precision=PRECISION
    )
