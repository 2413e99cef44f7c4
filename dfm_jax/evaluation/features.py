"""Features of images for distances of distributions: Inception's, from a file that the user names, or VGG16's.

FID and KID are defined by the network. Numbers of VGG16's features are none: they are called `vgg_fid` and `vgg_kid`,
and only compare with each other.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8

from dfm_jax.interop import inception as inception_weights
from dfm_jax.models import inception, lpips

IMAGES_AT_ONCE = 16
# VGG16 sees smaller images enlarged to this many pixels a side, so that something is left behind its four poolings.
SMALLEST_FOR_VGG = 32


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A network that gives each image a vector, and how distances of its vectors are called."""

    prefix: str  # of 'fid' and 'kid'
    description: str  # which network, for a person
    params: Any
    network: str  # 'inception', 'inception_torchvision' or 'vgg16'

    def __call__(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n d"]:
        """Features of images of 8 bits; some at a time, all of one shape, so that it compiles once."""
        return np.concatenate(list(self.stream([images])))

    def stream(self, parts: Iterable[UInt8[np.ndarray, "_ h w 3"]]) -> Iterator[Float[np.ndarray, "_ d"]]:
        """Features of the images of all parts, in their order; parts are taken when they are needed."""
        for images in _regrouped(parts, IMAGES_AT_ONCE):
            part = images.astype(np.float32) / 255
            filled = np.concatenate([part, np.repeat(part[-1:], IMAGES_AT_ONCE - len(part), axis=0)])
            yield np.asarray(_extract(self.params, filled, network=self.network))[: len(part)]


def _regrouped(parts: Iterable[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """The same rows, `count` at a time; fewer at the end."""
    waiting = None
    for part in parts:
        waiting = part if waiting is None else np.concatenate([waiting, part])
        while len(waiting) >= count:
            yield waiting[:count]
            waiting = waiting[count:]
    if waiting is not None and len(waiting):
        yield waiting


def load_inception(path: str) -> Extractor:
    """Inception v3 with the weights of a file.

    Raises:
      UserError: they are not its weights.
    """
    weights = inception_weights.load(path)
    params = jax.device_put(weights.params)
    if weights.published_fid:
        return Extractor("", f"Inception v3 of published FIDs, {path}", params, "inception")
    description = f"Inception v3 of torchvision (no numbers to compare with published FIDs), {path}"
    return Extractor("", description, params, "inception_torchvision")


def vgg(distance: lpips.Distance) -> Extractor:
    """VGG16 with the weights of LPIPS."""
    description = "VGG16, the mean over its last relu (not Inception's: no FID)"
    return Extractor("vgg_", description, distance.params["vgg16"], "vgg16")


@partial(jax.jit, static_argnames="network")
def _extract(params: Any, images: Float[Array, "n h w 3"], *, network: str) -> Float[Array, "n d"]:
    if network == "vgg16":
        return _vgg_features(params, images)
    return inception.features(params, images, published_fid=network == "inception")


def _vgg_features(params: Any, images: Float[Array, "n h w 3"]) -> Float[Array, "n 512"]:
    count, height, width, _ = images.shape
    larger = max(1.0, SMALLEST_FOR_VGG / min(height, width))
    images = jax.image.resize(images, (count, round(height * larger), round(width * larger), 3), "bilinear")
    shift, scale = (jnp.array(values).reshape(1, 1, 1, 3) for values in (lpips.SHIFT, lpips.SCALE))
    last = lpips.VGG16(jnp.float32).apply({"params": params}, (2 * images - 1 - shift) / scale)[-1]
    return jnp.mean(last, axis=(1, 2))
