"""A generator of glyphs: a small network from latents to pictures, trained beforehand, and its weights in a file.

`train_glyph_decoder.py` makes the file; the one that comes with the package was made by that command as it is.

Letters: `b` the batch, `h w` pixels.
"""

import functools
import pathlib
import zipfile
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from dfm_jax.errors import UserError
from dfm_jax.forward_models.glyphs import SIDE

LATENT = 16  # numbers of a latent; about standard normal where glyphs are
WIDTHS = (LATENT, 160, 224, SIDE * SIDE * 3)  # of the layers
SHIPPED = pathlib.Path(__file__).with_suffix(".npz")

Layers = dict[str, dict[str, Any]]  # "layer_0" ...: kernel and bias, arrays


def decode(layers: Layers, latent: Float[Array, "b z"]) -> Float[Array, "b h w 3"]:
    """Pictures in [0, 1]."""
    pixels = jax.nn.sigmoid(through(layers, latent))
    return pixels.reshape(-1, SIDE, SIDE, 3)


def through(layers: Layers, x: Float[Array, "b c"]) -> Float[Array, "b d"]:
    """Linear layers with SiLU between them."""
    for i in range(len(layers)):
        layer = layers[f"layer_{i}"]
        x = (jax.nn.silu(x) if i else x) @ layer["kernel"] + layer["bias"][None]
    return x


def load(file: str = "") -> Layers:
    """The decoder of a file, by default of that which comes with the package; float32 arrays of numpy.

    Raises:
      UserError: there is no such file, it is damaged, or it is of another network.
    """
    arrays = _read(pathlib.Path(file) if file else SHIPPED)
    return {f"layer_{i}": {part: arrays[f"layer_{i}/{part}"] for part in ("kernel", "bias")} for i in _numbers()}


def _numbers() -> range:
    return range(len(WIDTHS) - 1)


@functools.lru_cache(maxsize=4)
def _read(file: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name].astype(np.float32) for name in stored.files}
    except FileNotFoundError as error:
        raise UserError(f"config.model.decoder_file: there is no file {file}") from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"config.model.decoder_file: {file} is damaged, or is no .npz file: {error}") from error
    shapes = {f"layer_{i}/kernel": WIDTHS[i : i + 2] for i in _numbers()}
    shapes |= {f"layer_{i}/bias": WIDTHS[i + 1 : i + 2] for i in _numbers()}
    if {name: array.shape for name, array in arrays.items()} != shapes:
        raise UserError(
            f"config.model.decoder_file: {file} is of another network; "
            "python -m dfm_jax.forward_models.train_glyph_decoder makes one"
        )
    return arrays


def save(file: pathlib.Path, layers: Layers) -> None:
    """In half precision.

    Raises:
      OSError: it cannot be written.
    """
    arrays = {f"{name}/{part}": x for name, layer in layers.items() for part, x in layer.items()}
    with file.open("wb") as opened:
        np.savez_compressed(opened, **{name: np.asarray(x, np.float16) for name, x in arrays.items()})


def init(key: Array, widths: tuple[int, ...]) -> Layers:
    """New layers."""
    kernels = zip(jax.random.split(key, len(widths) - 1), widths[:-1], widths[1:], strict=True)
    normal = lambda key, before, after: jax.random.normal(key, (before, after)) * (before**-0.5)
    return {
        f"layer_{i}": {"kernel": normal(key, before, after), "bias": jnp.zeros(after)}
        for i, (key, before, after) in enumerate(kernels)
    }
