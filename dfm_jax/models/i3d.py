"""I3D (Carreira and Zisserman 2017, arXiv 1705.07750), the network of FVD: Inception v1 with convolutions over time.

FVD (Unterthiner et al. 2018, arXiv 1812.01717) compares its 400 logits for Kinetics, averaged over time. Batch
normalisation is folded into the convolutions when weights are read (`interop.i3d`).

Parameters are named as pytorch-i3d names its convolutions, 'Mixed_3b.b1a'. Letters: `n` videos, `t` frames, `h w`
pixels.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

SIZE = 224  # pixels a side
FRAMES = 16  # of a video; time is pooled by 8, and then 2 are averaged
CLASSES = 400
PRECISION = jax.lax.Precision.HIGHEST  # distances of distributions are differences of large numbers

# Channels of a block: 1x1; 1x1 and 3x3; 1x1 and 3x3; behind the pooling. A tuple: kernel and stride of a pooling.
BLOCKS = {
    "Mixed_3b": (64, (96, 128), (16, 32), 32),
    "Mixed_3c": (128, (128, 192), (32, 96), 64),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "Mixed_4b": (192, (96, 208), (16, 48), 64),
    "Mixed_4c": (160, (112, 224), (24, 64), 64),
    "Mixed_4d": (128, (128, 256), (24, 64), 64),
    "Mixed_4e": (112, (144, 288), (32, 64), 64),
    "Mixed_4f": (256, (160, 320), (32, 128), 128),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
    "Mixed_5b": (256, (160, 320), (32, 128), 128),
    "Mixed_5c": (384, (192, 384), (48, 128), 128),
}
FLAT = (1, 3, 3), (1, 2, 2)  # a pooling that keeps time


class I3D(nn.Module):
    """Videos in [-1, 1] of at least 9 frames to logits."""

    @nn.compact
    def __call__(self, videos: Float[Array, "n t h w 3"]) -> Float[Array, "n 400"]:
        x = _max(self._convolution(videos, "Conv3d_1a_7x7", 64, 7, stride=2), *FLAT)
        x = self._convolution(x, "Conv3d_2b_1x1", 64, 1)
        x = _max(self._convolution(x, "Conv3d_2c_3x3", 192, 3), *FLAT)
        for name, block in BLOCKS.items():
            x = self._block(x, name, *block) if name.startswith("Mixed") else _max(x, *block)
        x = nn.avg_pool(x, (2, *x.shape[2:4]))
        logits = nn.Conv(CLASSES, (1, 1, 1), precision=PRECISION, name="logits")(x)
        return jnp.mean(logits, axis=(1, 2, 3))

    def _convolution(self, x: Array, name: str, channels: int, side: int, stride: int = 1) -> Array:
        convolution = nn.Conv(channels, (side,) * 3, (stride,) * 3, padding="SAME", precision=PRECISION, name=name)
        return nn.relu(convolution(x))

    def _block(
        self, x: Array, name: str, single: int, middle: tuple[int, int], small: tuple[int, int], pooled: int
    ) -> Array:
        pair = lambda branch, channels: self._convolution(
            self._convolution(x, f"{name}.{branch}a", channels[0], 1), f"{name}.{branch}b", channels[1], 3
        )
        branches = [
            self._convolution(x, f"{name}.b0", single, 1),
            pair("b1", middle),
            pair("b2", small),
            self._convolution(_max(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b", pooled, 1),
        ]
        return jnp.concatenate(branches, axis=-1)


def features(params: dict, videos: Float[Array, "n t h w 3"]) -> Float[Array, "n 400"]:
    """Logits of videos in [0, 1] of any size, resized bilinearly (not antialiased)."""
    count, frames = videos.shape[:2]
    resized = jax.image.resize(videos, (count, frames, SIZE, SIZE, 3), "bilinear", antialias=False)
    return I3D().apply({"params": params}, 2 * resized - 1)


def shapes() -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes of the parameters, {convolution: {'kernel', 'bias'}}."""
    return jax.eval_shape(I3D().init, jax.random.key(0), jnp.zeros((1, FRAMES, 32, 32, 3)))["params"]


def _max(x: Array, window: tuple[int, int, int], strides: tuple[int, int, int]) -> Array:
    return nn.max_pool(x, window, strides, "SAME")
