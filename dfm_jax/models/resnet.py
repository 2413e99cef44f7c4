"""The image encoder of pixelNeRF (Yu et al. 2021, arXiv 2012.02190): the multi-scale pyramid of a ResNet34 (He et al.
2016), here told the noise level of its view.

Four maps are tapped: the first convolution (7 x 7, stride 2, relu) at 1/2 of the image's size; layer 1, behind a
3 x 3 max-pooling of stride 2, at 1/4; layer 2 at 1/8; layer 3 at 1/16. With 64 channels first they have 64, 64, 128 and
256. As in pixelNeRF they are resized bilinearly, corner on corner, to the size of the first, and concatenated (512).
The whole is then resized in the same manner to the image's size.

There is no batch normalisation, hence nothing that depends on the rest of a batch: ImageNet's statistics are folded
into the convolutions when weights are imported (`interop.imagenet`), and every convolution has a bias. New weights must
do without, too: convolutions keep the second moment of what a relu lets through (He et al. 2015), and the last one of
a residual block begins at zero, so that the signal does not grow from block to block (Zhang et al. 2019, 'Fixup').

Letters: `n` views, `h w` pixels, `k` input channels, `c` channels, `e` channels of the code of time and pose.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from jax import Array
from jaxtyping import Float

from dfm_jax.models.encoder import Encoder
from dfm_jax.models.patch_convolution import PatchConv

BLOCKS = (3, 4, 6)  # residual blocks of layers 1, 2 and 3
# What torchvision subtracts from images in [0, 1], and then divides by.
IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)
he = nn.initializers.he_normal()
zeros = nn.initializers.zeros_init()


def normalise(colours: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Colours in [-1, 1] as networks trained on ImageNet expect them."""
    shape = (1, 1, 1, 3)
    return ((colours + 1) / 2 - IMAGENET_MEAN.reshape(shape)) / IMAGENET_STD.reshape(shape)


def resize_aligned(x: Float[Array, "n h w c"], height: int, width: int) -> Float[Array, "n height width c"]:
    """Bilinear resizing that keeps the corner pixels at the corners (PyTorch's `align_corners=True`)."""
    rows, columns = (_interpolation(x.shape[axis], size) for axis, size in ((1, height), (2, width)))
    return jnp.einsum("nhwc,ih,jw->nijc", x, rows.astype(x.dtype), columns.astype(x.dtype))


def _interpolation(size: int, new_size: int) -> Float[np.ndarray, "new_size size"]:
    """Weights of the old samples in the new ones."""
    position = np.linspace(0, size - 1, new_size)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(size)))


class ResidualBlock(nn.Module):
    """`relu(shortcut(x) + conv_1(relu(film(conv_0(x)))))`; at first the modulation does nothing."""

    channels: int
    stride: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n h w k"], code: Float[Array, "n e"]) -> Float[Array, "n h2 w2 c"]:
        conv = lambda size, **kw: nn.Conv(self.channels, (size, size), padding=size // 2, dtype=self.dtype, **kw)
        film = nn.Dense(2 * self.channels, kernel_init=zeros, dtype=self.dtype, name="film")(nn.silu(code))
        scale, shift = jnp.split(rearrange(film, "n c -> n 1 1 c"), 2, axis=-1)
        h = conv(3, strides=self.stride, kernel_init=he, name="conv_0")(x)
        h = conv(3, kernel_init=zeros, name="conv_1")(nn.relu(h * (1 + scale) + shift))
        if x.shape[-1] != self.channels:
            x = conv(1, strides=self.stride, kernel_init=he, name="shortcut")(x)
        return nn.relu(x + h)


class ResNet34Encoder(Encoder):
    """The encoder of pixelNeRF; its config is a `ResNet34Config`."""

    def setup(self) -> None:
        base, dtype = self.config.base, self.dtype
        stem = lambda: PatchConv(base, 7, stride=2, kernel_init=he, dtype=dtype)
        self.clean_stem, self.noisy_stem = stem(), stem()
        self._setup_conditioning(4 * base)
        block = nn.remat(ResidualBlock) if self.config.remat else ResidualBlock
        layer = lambda count, channels, stride: [block(channels, 1 if i else stride, dtype) for i in range(count)]
        self.layer1 = layer(BLOCKS[0], base, 1)
        self.layer2 = layer(BLOCKS[1], 2 * base, 2)
        self.layer3 = layer(BLOCKS[2], 4 * base, 2)

    def pyramid(self, stem: nn.Module, inputs: Array, timestep: Array, pose: Array) -> list[Array]:
        """The four maps that are tapped, finest first."""
        colours = [normalise(inputs[..., i : i + 3]) for i in range(0, min(6, inputs.shape[-1]), 3)]
        code = self._conditioning(timestep, pose)
        x = nn.relu(stem(jnp.concatenate([*colours, inputs[..., 6:]], axis=-1)))
        maps = [x]
        x = nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for layer in (self.layer1, self.layer2, self.layer3):
            for block in layer:
                x = block(x, code)
            maps.append(x)
        return maps

    def _encode(self, stem: nn.Module, inputs: Array, timestep: Array, pose: Array) -> Float[Array, "n h w c"]:
        maps = self.pyramid(stem, inputs, timestep, pose)
        finest = maps[0].shape[1:3]
        features = jnp.concatenate([resize_aligned(x, *finest) for x in maps], axis=-1)
        return resize_aligned(features, *inputs.shape[1:3])
