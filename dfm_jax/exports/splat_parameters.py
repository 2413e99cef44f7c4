"""What is fitted of gaussians: numbers without bounds, instead of scales, rotations and opacities.

Letters: `n` gaussians.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dfm_jax import geometry
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.exports.rasterizer import Splats

# Of opacities and sizes that are to be fitted, as shares of what they can be: nothing at a bound moves.
_LEAST, _MOST = 1e-3, 0.999


class Parameters(NamedTuple):
    """Also used for other things of the same names, such as learning rates."""

    means: Array  # [n, 3]
    sizes: Array  # [n, 3] logits of scales between two bounds
    quaternions: Array  # [n, 4] (w, x, y, z) of any length
    opacities: Array  # [n] logits
    colours: Array  # [n, 3]


def from_gaussians(gaussians: Gaussians, smallest: float, largest: float, count: int) -> Parameters:
    """Of gaussians, and of as many more as `count` lacks, which cannot be seen: so that all scenes have one shape."""
    missing = count - len(gaussians)
    share = (gaussians.scales - smallest) / (largest - smallest)
    parts = (
        (gaussians.means, 0.0),
        (_logit(share), 0.0),
        (gaussians.quaternions, 1.0),
        (_logit(gaussians.opacities), -20.0),
        (gaussians.colours, 0.0),
    )
    padded = (np.concatenate([x, np.full((missing, *x.shape[1:]), filling)]) for x, filling in parts)
    return Parameters(*(jnp.asarray(x, jnp.float32) for x in padded))


def to_splats(params: Parameters, smallest: Array, largest: Array) -> Splats:
    """Differentiable."""
    turns = _matrices(params.quaternions / jnp.linalg.norm(params.quaternions, axis=-1, keepdims=True))
    axes = turns * (smallest + (largest - smallest) * jax.nn.sigmoid(params.sizes))[:, None]
    covariances = geometry.compose(axes, jnp.swapaxes(axes, -1, -2))
    return Splats(params.means, covariances, jax.nn.sigmoid(params.opacities), params.colours)


def to_gaussians(params: Parameters, smallest: float, largest: float) -> Gaussians:
    means, sizes, quaternions, opacities, colours = (np.asarray(x, np.float64) for x in params)
    return Gaussians(
        means=means,
        scales=smallest + (largest - smallest) / (1 + np.exp(-sizes)),
        quaternions=quaternions / np.linalg.norm(quaternions, axis=-1, keepdims=True),
        opacities=1 / (1 + np.exp(-opacities)),
        colours=colours.clip(0, 1),
    )


def _logit(share: np.ndarray) -> np.ndarray:
    share = np.clip(share, _LEAST, _MOST)
    return np.log(share / (1 - share))


def _matrices(quaternions: Array) -> Array:
    """Rotations [n, 3, 3] of unit quaternions."""
    w, x, y, z = quaternions.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
