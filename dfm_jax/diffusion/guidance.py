"""What is done to x0-predictions between the denoiser and the sampler.

Notation. `x0` predictions in the diffusion range, where data lies in [-1, 1]; `b` batch.
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float


def classifier_free_guidance(
    x0_cond: Float[Array, "b *data"], x0_uncond: Float[Array, "b *data"], scale: float
) -> Float[Array, "b *data"]:
    """`x0_uncond + scale (x0_cond - x0_uncond)` (Ho and Salimans, *Classifier-Free Diffusion Guidance*, 2022).

    Written so that scale 1 returns the conditional prediction exactly.
    """
    return x0_cond + (scale - 1) * (x0_cond - x0_uncond)


def dynamic_threshold(x0: Float[Array, "b *data"], quantile: float) -> Float[Array, "b *data"]:
    """Brings each example back into [-1, 1] (Saharia et al., *Imagen*, 2022, section 2.3).

    `s = max(1, quantile of |x0|)` per example; the result is `clip(x0, -s, s) / s`. Examples in range are returned
    as they are, and so is everything when `quantile` is 1 (no thresholding).
    """
    if quantile == 1:
        return x0
    data_axes = tuple(range(1, x0.ndim))
    limit = jnp.maximum(1, jnp.quantile(jnp.abs(x0), quantile, axis=data_axes, keepdims=True))
    return jnp.clip(x0, -limit, limit) / limit
