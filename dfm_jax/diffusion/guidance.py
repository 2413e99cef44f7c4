"""What is done to x0-predictions between the denoiser and the sampler.

Notation. `x0` predictions in the diffusion range, where data lies in [-1, 1]; `b` batch.
"""

import dataclasses

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

EPSILON = 1e-12  # keeps divisions by the size of a constant or black image finite


def classifier_free_guidance(
    x0_cond: Float[Array, "b *data"], x0_uncond: Float[Array, "b *data"], scale: float | Float[Array, ""]
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


def rescaled_guidance(
    x0_guided: Float[Array, "b *data"], x0_cond: Float[Array, "b *data"], factor: float
) -> Float[Array, "b *data"]:
    """A guided prediction with the contrast of the conditional one (Lin et al., *Common Diffusion Noise Schedules and
    Sample Steps are Flawed*, 2023, section 3.4).

    Each example is multiplied by the ratio of the two standard deviations, over all of its data; `factor` mixes the
    result (1) with the guided prediction itself (0).
    """
    if factor == 0:
        return x0_guided
    data_axes = tuple(range(1, x0_guided.ndim))
    spread, wanted = (jnp.std(x, axis=data_axes, keepdims=True) for x in (x0_guided, x0_cond))
    ratio = wanted / jnp.maximum(spread, EPSILON)
    return x0_guided * (factor * ratio + (1 - factor))


def adaptive_projected_guidance(
    x0_cond: Float[Array, "b *data"],
    x0_uncond: Float[Array, "b *data"],
    scale: float | Float[Array, ""],
    average: Float[Array, "b *data"],
    *,
    momentum: float,
    bound: float,
    parallel: float,
) -> tuple[Float[Array, "b *data"], Float[Array, "b *data"]]:
    """Guidance without the part that only adds contrast (Sadat et al., *Eliminating Oversaturation and Artifacts of
    High Guidance Scales in Diffusion Models*, 2024, algorithm 1).

    The difference of the two predictions is averaged over sampling steps, shortened to a bound, and split into a part
    parallel to the conditional prediction, which mostly makes it stronger, and one orthogonal to it.

    Args:
      average: what the step before returned; 0 in the first.
      momentum: weight of `average`; negative (the paper takes -0.5 and -0.75) drives away from earlier steps. 0: none.
      bound: largest root mean square of the averaged difference, so that it means the same at every image size (the
        paper bounds the norm, which is this times the square root of the number of values). Infinite: none.
      parallel: share of the parallel part that is kept; the paper's 0 drops it.
    Returns:
      The guided prediction, and the new average. With momentum 0, an infinite bound and all of the parallel part this
      is classifier-free guidance.
    """
    data_axes = tuple(range(1, x0_cond.ndim))
    total = lambda x: jnp.sum(x, axis=data_axes, keepdims=True)
    average = (x0_cond - x0_uncond) + momentum * average
    size = jnp.sqrt(jnp.mean(jnp.square(average), axis=data_axes, keepdims=True))
    difference = average * jnp.minimum(1, bound / jnp.maximum(size, EPSILON))
    along = total(difference * x0_cond) / jnp.maximum(total(jnp.square(x0_cond)), EPSILON) * x0_cond
    return x0_cond + (scale - 1) * (difference - (1 - parallel) * along), average


@dataclasses.dataclass(frozen=True)
class Guidance:
    """How two predictions become one: projected, then rescaled guidance, either of which may be switched off."""

    scale: float | Float[Array, ""]  # 1: the conditional prediction
    rescale: float = 0.0  # `factor` of `rescaled_guidance`; 0: off
    momentum: float = 0.0  # these three of `adaptive_projected_guidance`; so they are off
    bound: float = float("inf")
    parallel: float = 1.0

    def __call__(
        self, x0_cond: Float[Array, "b *data"], x0_uncond: Float[Array, "b *data"], average: Float[Array, "b *data"]
    ) -> tuple[Float[Array, "b *data"], Float[Array, "b *data"]]:
        """The guided prediction; and what to hand over as `average` in the next step, 0 in the first."""
        settings = {"momentum": self.momentum, "bound": self.bound, "parallel": self.parallel}
        if settings == {"momentum": 0.0, "bound": float("inf"), "parallel": 1.0}:
            x0 = classifier_free_guidance(x0_cond, x0_uncond, self.scale)
        else:
            x0, average = adaptive_projected_guidance(x0_cond, x0_uncond, self.scale, average, **settings)
        return rescaled_guidance(x0, x0_cond, self.rescale), average
