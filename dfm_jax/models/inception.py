"""Inception v3 (Szegedy et al. 2016, arXiv 1512.00567), up to its last pooling: the features of FID and KID.

Two networks of this form are in use. `torchvision`'s was trained there; the one that published FIDs are computed with
(Heusel et al. 2017) was trained in TensorFlow and differs in four poolings: averages do not count the padding, and the
very last block takes a maximum instead of an average. Batch normalisation is folded into the convolutions when
weights are read (`interop.inception`).

Parameters are named as torchvision names its convolutions, 'Mixed_5b.branch1x1'. Letters: `n` images, `h w` pixels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float

SIZE = 299  # pixels a side of what the network was trained on
FEATURES = 2048
# Float32 means float32 on accelerators too: distances of distributions are differences of large numbers.
PRECISION = jax.lax.Precision.HIGHEST

# A convolution with the relu behind it: suffix of its name, channels, (height, width) of the kernel, stride, and
# whether it is padded to keep the size.
Layer = tuple[str, int, tuple[int, int], int, bool]


def _layer(suffix: str, channels: int, height: int, width: int = 0, stride: int = 1, padded: bool = True) -> Layer:
    return suffix, channels, (height, width or height), stride, padded


STEM = (
    _layer("Conv2d_1a_3x3", 32, 3, stride=2, padded=False),
    _layer("Conv2d_2a_3x3", 32, 3, padded=False),
    _layer("Conv2d_2b_3x3", 64, 3),
)
STEM_AFTER_POOLING = (_layer("Conv2d_3b_1x1", 80, 1), _layer("Conv2d_4a_3x3", 192, 3, padded=False))


class InceptionV3(nn.Module):
    """Images in [-1, 1] to features, the mean over the last map."""

    published_fid: bool  # the network of published FIDs; False: torchvision's

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> Float[Array, "n 2048"]:
        x = _max(self._chain(images, "", STEM))
        x = _max(self._chain(x, "", STEM_AFTER_POOLING))
        for name, channels in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = self._block_a(x, name, channels)
        x = self._block_b(x, "Mixed_6a")
        for name, channels in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = self._block_c(x, name, channels)
        x = self._block_d(x, "Mixed_7a")
        x = self._block_e(x, "Mixed_7b", self._average(x))
        x = self._block_e(x, "Mixed_7c", _max(x, stride=1, padding=1) if self.published_fid else self._average(x))
        return jnp.mean(x, axis=(1, 2))

    def _chain(self, x: Array, prefix: str, layers: Sequence[Layer]) -> Array:
        for suffix, channels, kernel, stride, padded in layers:
            padding = [(side // 2 if padded else 0,) * 2 for side in kernel]
            name = prefix + suffix
            x = nn.relu(nn.Conv(channels, kernel, stride, padding=padding, precision=PRECISION, name=name)(x))
        return x

    def _average(self, x: Array) -> Array:
        return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=not self.published_fid)

    def _block_a(self, x: Array, name: str, pool_channels: int) -> Array:
        name += ".branch"
        triple = [_layer("3x3dbl_1", 64, 1), _layer("3x3dbl_2", 96, 3), _layer("3x3dbl_3", 96, 3)]
        return _concatenate(
            self._chain(x, name, [_layer("1x1", 64, 1)]),
            self._chain(x, name, [_layer("5x5_1", 48, 1), _layer("5x5_2", 64, 5)]),
            self._chain(x, name, triple),
            self._chain(self._average(x), name, [_layer("_pool", pool_channels, 1)]),
        )

    def _block_b(self, x: Array, name: str) -> Array:
        name += ".branch"
        last = _layer("3x3dbl_3", 96, 3, stride=2, padded=False)
        return _concatenate(
            self._chain(x, name, [_layer("3x3", 384, 3, stride=2, padded=False)]),
            self._chain(x, name, [_layer("3x3dbl_1", 64, 1), _layer("3x3dbl_2", 96, 3), last]),
            _max(x),
        )

    def _block_c(self, x: Array, name: str, channels: int) -> Array:
        name += ".branch"
        single = [_layer("7x7_1", channels, 1), _layer("7x7_2", channels, 1, 7), _layer("7x7_3", 192, 7, 1)]
        double = [
            _layer("7x7dbl_1", channels, 1),
            _layer("7x7dbl_2", channels, 7, 1),
            _layer("7x7dbl_3", channels, 1, 7),
            _layer("7x7dbl_4", channels, 7, 1),
            _layer("7x7dbl_5", 192, 1, 7),
        ]
        return _concatenate(
            self._chain(x, name, [_layer("1x1", 192, 1)]),
            self._chain(x, name, single),
            self._chain(x, name, double),
            self._chain(self._average(x), name, [_layer("_pool", 192, 1)]),
        )

    def _block_d(self, x: Array, name: str) -> Array:
        name += ".branch"
        whole = [_layer("7x7x3_1", 192, 1), _layer("7x7x3_2", 192, 1, 7), _layer("7x7x3_3", 192, 7, 1)]
        return _concatenate(
            self._chain(x, name, [_layer("3x3_1", 192, 1), _layer("3x3_2", 320, 3, stride=2, padded=False)]),
            self._chain(x, name, [*whole, _layer("7x7x3_4", 192, 3, stride=2, padded=False)]),
            _max(x),
        )

    def _block_e(self, x: Array, name: str, pooled: Array) -> Array:
        name += ".branch"
        split = lambda y, stem: [
            self._chain(y, name, [_layer(f"{stem}a", 384, 1, 3)]),
            self._chain(y, name, [_layer(f"{stem}b", 384, 3, 1)]),
        ]
        return _concatenate(
            self._chain(x, name, [_layer("1x1", 320, 1)]),
            *split(self._chain(x, name, [_layer("3x3_1", 384, 1)]), "3x3_2"),
            *split(self._chain(x, name, [_layer("3x3dbl_1", 448, 1), _layer("3x3dbl_2", 384, 3)]), "3x3dbl_3"),
            self._chain(pooled, name, [_layer("_pool", 192, 1)]),
        )


def features(params: dict, images: Float[Array, "n h w 3"], *, published_fid: bool) -> Float[Array, "n 2048"]:
    """Features of images in [0, 1] of any size, resized bilinearly (not antialiased, as in published FIDs)."""
    resized = jax.image.resize(images, (len(images), SIZE, SIZE, 3), "bilinear", antialias=False)
    return InceptionV3(published_fid).apply({"params": params}, 2 * resized - 1)


def shapes() -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes of the parameters, {convolution: {'kernel', 'bias'}}."""
    image = jnp.zeros((1, SIZE, SIZE, 3))
    return jax.eval_shape(InceptionV3(False).init, jax.random.key(0), image)["params"]


def _max(x: Array, stride: int = 2, padding: int = 0) -> Array:
    return nn.max_pool(x, (3, 3), (stride, stride), ((padding, padding),) * 2)


def _concatenate(*branches: Array) -> Array:
    return jnp.concatenate(branches, axis=-1)
