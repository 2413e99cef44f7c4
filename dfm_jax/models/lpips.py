"""LPIPS (Zhang et al. 2018, arXiv 1801.03924): how different two images look, as a distance of features of VGG16.

Version 0.1 with the linear heads, as the `lpips` package computes it with `net='vgg'`: features after the last relu of
each of the five blocks are scaled to unit length over the channels; their squared differences are weighted by a head
(a non-negative number a channel), averaged over the pixels and summed over the blocks. 0 for equal images; lower is
better.

Letters: `n` images, `h w` pixels, `c` channels, `a b` the two images that are compared.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import linen as nn
from flax import struct, traverse_util
from jax import Array
from jaxtyping import Float

from dfm_jax.errors import UserError
from dfm_jax.paths import cache_folder, expand_home

Params = Mapping[str, Any]

BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # convolutions and channels; a pooling between two blocks
SMALLEST_IMAGE = 2 ** (len(BLOCKS) - 1)  # pixels; the poolings leave one
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of images in [-1, 1]
EPSILON = 1e-10  # added to the length of a feature vector
# Float32 means float32 on accelerators too. The time is next to none: a patch is small.
PRECISION = jax.lax.Precision.HIGHEST
ENVIRONMENT = "DFM_JAX_LPIPS"  # names the file of the weights


class VGG16(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman 2015), up to the last relu of each block."""

    dtype: Any

    @nn.compact
    def __call__(self, images: Float[Array, "n h w 3"]) -> list[Float[Array, "n _ _ _"]]:
        x, taps = images, []
        for block, (convolutions, channels) in enumerate(BLOCKS, start=1):
            if block > 1:
                x = nn.max_pool(x, (2, 2), strides=(2, 2))
            for i in range(1, convolutions + 1):
                convolution = nn.Conv(
                    channels, (3, 3), padding=1, dtype=self.dtype, precision=PRECISION, name=f"conv{block}_{i}"
                )
                x = nn.relu(convolution(x))
            taps.append(x)
        return taps


class LPIPS(nn.Module):
    """Features in `dtype`; their comparison in float32."""

    dtype: Any

    @nn.compact
    def __call__(self, a: Float[Array, "n h w 3"], b: Float[Array, "n h w 3"]) -> Float[Array, "n"]:
        """The distance of images in [-1, 1]."""
        features = VGG16(self.dtype, name="vgg16")
        # Not as one batch: where only `a` has a gradient, there is no backward pass through the features of `b`.
        taps_a, taps_b = (features(_scaled(x)) for x in (a, b))
        total = jnp.zeros(a.shape[0])
        for block, (x, y) in enumerate(zip(taps_a, taps_b, strict=True), start=1):
            head = self.param(f"head{block}", nn.initializers.ones_init(), (x.shape[-1],))
            total += _distance(_unit(x), _unit(y), head)
        return total


def _scaled(images: Float[Array, "n h w 3"]) -> Float[Array, "n h w 3"]:
    """Images in [-1, 1] as VGG16 takes them."""
    shift, scale = (jnp.array(values).reshape(1, 1, 1, 3) for values in (SHIFT, SCALE))
    return (images - shift) / scale


def _distance(x: Float[Array, "n h w c"], y: Float[Array, "n h w c"], head: Float[Array, "c"]) -> Float[Array, "n"]:
    """What one block adds, from its features of unit length."""
    weighted = jnp.einsum("nhwc,c->nhw", jnp.square(x - y), head, precision=PRECISION)
    return jnp.mean(weighted, axis=(1, 2))


def _unit(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Vectors of unit length, in float32; those of length 0 stay 0, with a gradient that is finite."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / (jnp.sqrt(jnp.maximum(square, EPSILON**2)) + EPSILON)


@struct.dataclass
class Distance:
    """LPIPS with its weights, as a function of two images.

    It is a pytree: hand it to a compiled function as an argument, where a closure would compile the weights (59 MB)
    into the program. It is frozen: it passes gradients to the images, none to the weights.
    """

    params: Params  # float32
    dtype: str = struct.field(pytree_node=False)  # that the features are computed in

    def __call__(self, a: Float[Array, "*batch h w 3"], b: Float[Array, "*batch h w 3"]) -> Float[Array, "*batch"]:
        """The distances of float images in [0, 1], in float32.

        Raises:
          ValueError: the images are not floats, differ in shape, have no 3 channels, or a side below 16 pixels.
        """
        a, b = jnp.asarray(a), jnp.asarray(b)
        if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in (a, b)):
            raise ValueError(f"LPIPS compares float images in [0, 1], not {a.dtype} and {b.dtype}")
        if a.shape != b.shape or a.ndim < 3 or a.shape[-1] != 3 or min(a.shape[-3:-1]) < SMALLEST_IMAGE:
            raise ValueError(
                f"LPIPS compares images [..., h, w, 3] of one shape and at least {SMALLEST_IMAGE} pixels a side, "
                f"not {a.shape} and {b.shape}"
            )
        flat = lambda x: rearrange(2.0 * x.astype(jnp.float32) - 1.0, "... h w c -> (...) h w c")
        variables = {"params": jax.lax.stop_gradient(self.params)}
        return LPIPS(jnp.dtype(self.dtype)).apply(variables, flat(a), flat(b)).reshape(a.shape[:-3])

    def features(self, images: Float[Array, "n h w 3"]) -> list[Float[Array, "n _ _ _"]]:
        """What `between` compares, of images in [0, 1]: where one image is compared with many, it is seen once."""
        taps = VGG16(jnp.dtype(self.dtype)).apply({"params": self.params["vgg16"]}, _scaled(2.0 * images - 1.0))
        return [_unit(x) for x in taps]

    def between(self, a: Sequence[Float[Array, "n _ _ _"]], b: Sequence[Float[Array, "n _ _ _"]]) -> Float[Array, "n"]:
        """The distances of images from their features."""
        heads = [self.params[f"head{block}"] for block in range(1, len(BLOCKS) + 1)]
        return sum(_distance(x, y, head) for x, y, head in zip(a, b, heads, strict=True))


# --- the file of the weights ------------------------------------------------------------------------------------------


def default_path() -> pathlib.Path:
    """Where the weights are looked for: $DFM_JAX_LPIPS, or dfm_jax/lpips_vgg16.npz in the user's cache folder (in the
    current one, where the user has no home)."""
    if named := os.environ.get(ENVIRONMENT):
        return pathlib.Path(expand_home(named))
    cache = cache_folder()
    return pathlib.Path("lpips_vgg16.npz") if cache is None else cache / "dfm_jax" / "lpips_vgg16.npz"


def load_default(dtype: str = "float32") -> Distance:
    """The distance with the weights at `default_path()`.

    Raises:
      UserError: as `load`.
    """
    return load(default_path(), dtype)


def abstract(dtype: str = "float32") -> Distance:
    """The distance with the shapes of its weights: to compile with, where they need not be there."""
    arrays = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes().items()}
    return Distance(traverse_util.unflatten_dict(arrays, sep="/"), dtype)


def load(path: str | pathlib.Path, dtype: str = "float32") -> Distance:
    """The distance with weights from a file that `save` wrote.

    Args:
      dtype: that features are computed in, 'float32' or 'bfloat16'. The latter is for training: distances come within
        0.2 % of float32's where images differ plainly, but nearly equal images (0.01 and less) are off by more.

    Raises:
      UserError: there is no such file, or it does not hold these weights.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(
            f"there are no LPIPS weights at {path}: run `make lpips-weights`, or put a file there that "
            f"`python -m dfm_jax.interop.lpips_weights` wrote, or name such a file in {ENVIRONMENT}"
        )
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # of zipfile, zlib, numpy or the operating system, depending on where it is damaged
        raise UserError(
            f"{path} is not a readable file of LPIPS weights ({error}): remove it, then run `make lpips-weights`"
        ) from error
    _check(arrays, path)
    return Distance(jax.tree.map(jnp.asarray, traverse_util.unflatten_dict(arrays, sep="/")), dtype)


def save(path: pathlib.Path, params: Params) -> None:
    """Writes weights as an .npz file, all of it or nothing; folders above it are made.

    Raises:
      UserError: they are not the weights of this network.
    """
    arrays = {name: np.asarray(array) for name, array in traverse_util.flatten_dict(dict(params), sep="/").items()}
    _check(arrays, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writing = path.with_name(f".{path.name}.{os.getpid()}.incomplete")
    try:
        with writing.open("wb") as file:
            np.savez(file, **arrays)
        writing.replace(path)
    finally:
        writing.unlink(missing_ok=True)


def shapes() -> dict[str, tuple[int, ...]]:
    """Names ('vgg16/conv1_1/kernel', 'head1', ...) and shapes of all weights."""
    image = jnp.zeros((1, SMALLEST_IMAGE, SMALLEST_IMAGE, 3))
    variables = jax.eval_shape(LPIPS(jnp.float32).init, jax.random.key(0), image, image)
    return {name: x.shape for name, x in traverse_util.flatten_dict(variables["params"], sep="/").items()}


def _check(arrays: Mapping[str, np.ndarray], where: pathlib.Path) -> None:
    """Raises UserError, which lists all that is wrong."""
    needed = shapes()
    problems = [f"missing: {name} {shape}" for name, shape in needed.items() if name not in arrays]
    for name, array in arrays.items():
        if name not in needed:
            problems.append(f"unexpected: {name} {array.shape}")
        elif array.shape != needed[name] or array.dtype != np.float32:
            problems.append(f"{name} is {array.dtype} {array.shape}, not float32 {needed[name]}")
        elif not np.isfinite(array).all():
            problems.append(f"{name} has numbers that are not finite")
        elif name.startswith("head") and (array < 0).any():
            problems.append(f"{name} has negative numbers")
    if problems:
        raise UserError(f"these are no weights of LPIPS ({where}):\n  " + "\n  ".join(problems))
