"""Trajectories of a trained diffusion model, for one that is to learn where they end (distillation).

Notation as in `samplers.py`: a trajectory is the states `x_t` that a deterministic sampler goes through, from noise
`x_T` to the sample that it ends in; the consistency function `f(x_t, t)` maps each of them to that end (Song et al.,
*Consistency Models*, 2023, section 3), and at `t = -1`, clean data, is the identity. `b` is the batch.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int, Key

from dfm_jax.diffusion.process import along, noise_from_x0
from dfm_jax.diffusion.schedule import Schedule


def pseudo_huber(error: Float[Array, "b ..."], c: float) -> Float[Array, "b"]:
    """`sqrt(e^2 + c^2) - c` of the root mean square `e` over all axes but the first (Song and Dhariwal, *Improved
    Techniques for Training Consistency Models*, 2024, section 3.3).

    Where `e` is far above `c`, the best answer to several truths is their geometric median, which of two truths is the
    likelier one; that of the squared error is their mean, which is none of them.
    """
    squared = jnp.mean(jnp.square(error), axis=tuple(range(1, error.ndim)))
    return jnp.sqrt(squared + c**2) - c


def step_along(
    schedule: Schedule,
    x_t: Float[Array, "b *data"],
    x0: Float[Array, "b *data"],
    t: Int[Array, "b"],
    s: Int[Array, "b"],
) -> Float[Array, "b *data"]:
    """One step of the probability flow from level `t` to the lower level `s` of each example, by DDIM (Song et al.,
    *Denoising Diffusion Implicit Models*, 2021, eq. 12), with the denoiser's `x0` at `x_t`; at `s = -1` it is `x0`."""
    at = lambda rates, clean: along(jnp.where(s < 0, clean, rates[jnp.maximum(s, 0)]), x_t)
    noise = noise_from_x0(schedule, x_t, t, x0)
    return at(schedule.signal_rate, 1.0) * x0 + at(schedule.noise_rate, 0.0) * noise


def state_between(
    schedule: Schedule,
    x_t: Float[Array, "b *data"],
    x_s: Float[Array, "b *data"],
    t: Int[Array, "b"],
    s: Int[Array, "b"],
    at: Int[Array, "b"],
) -> Float[Array, "b *data"]:
    """The state of a trajectory at a level between two neighbours `t` and `s`, both at least 0. A solver's step takes
    one x0 for all of it: `x / sigma` changes linearly with `alpha / sigma`."""
    ratio = lambda level: schedule.signal_rate[level] / schedule.noise_rate[level]
    passed = jnp.where(t == s, 0.0, (ratio(at) - ratio(t)) / jnp.where(t == s, 1.0, ratio(s) - ratio(t)))
    share, noise_rate = along(passed, x_t), lambda level: along(schedule.noise_rate[level], x_t)
    return noise_rate(at) * ((1 - share) * x_t / noise_rate(t) + share * x_s / noise_rate(s))


def choose_levels(keys: Key[Array, "b"], num_levels: int, count: int) -> Int[Array, "b count"]:
    """Numbers of levels of a trajectory, all different: the first, which is the noisiest, and others at random."""

    def choose(key: Array) -> Array:
        others = 1 + jax.random.permutation(key, num_levels - 1)[: count - 1]
        return jnp.append(jnp.zeros(1, others.dtype), others)

    return jax.vmap(choose)(keys)
