"""Which noise levels a sampler visits.

Notation. Timesteps `t = 0 .. T-1`, `t = -1` clean data; `n` sampling steps, which have `n + 1` levels.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Int

from dfm_jax.diffusion.schedule import Schedule

# Logarithm of signal over noise below which steps need not be even in it: the signal is lost in 150 times its noise.
MIN_LOG_SNR = -5.0


def uniform_timesteps(schedule: Schedule, num_steps: int) -> Int[np.ndarray, "levels"]:
    """Levels that are even in time: `n + 1` falling integers from `T - 1` to -1.

    They are `linspace(-1, T - 1, n + 1)`, rounded down (as published), in integer arithmetic: in floats, levels that
    are whole numbers would come out one too low here and there.

    Raises:
      ValueError: unless 1 <= num_steps <= T.
    """
    total = schedule.num_timesteps
    if not 1 <= num_steps <= total:
        raise ValueError(f"the number of sampling steps must lie between 1 and {total}, not {num_steps}")
    return (np.arange(num_steps, -1, -1) * total // num_steps - 1).astype(np.int32)


def log_snr_timesteps(schedule: Schedule, num_steps: int) -> Int[Array, "levels"]:
    """The same, but even in `lambda = log(signal rate / noise rate)`, in which the solution of the diffusion is smooth
    (Lu et al., *DPM-Solver*, 2022), down to the level that 50 uniform steps end at.

    Uniform steps make their last prediction at the lower a level, the more of them there are. Here that level is fixed,
    so that more steps come nearer to one and the same solution. The noisiest levels, at which there is nothing to be
    seen yet, take one step.

    Raises:
      ValueError: unless 1 <= num_steps <= T.
    """
    total = schedule.num_timesteps
    uniform = uniform_timesteps(schedule, num_steps)
    if num_steps < 3:  # there is nothing between the first level and the last
        return jnp.asarray(uniform)
    last = min(max(total // 50 - 1, 0), total - num_steps)
    log_snr = schedule.log_snr
    wanted = jnp.linspace(jnp.maximum(log_snr[-1], MIN_LOG_SNR), log_snr[last], num_steps)
    nearest = jnp.argmin(jnp.abs(log_snr[:, None] - wanted[None]), axis=0).at[0].set(total - 1)
    # Where steps are finer than timesteps, the nearest ones repeat: move on to the next, but leave enough for the rest.
    number = jnp.arange(num_steps)
    falling = jax.lax.cummin(nearest + number) - number
    times = jnp.maximum(falling, last + number[::-1])
    return jnp.append(times, -1).astype(jnp.int32)


# Share of all levels, the noisiest ones, over which the steps of a distilled model lie.
HIGH_NOISE_SHARE = 0.3


def high_noise_timesteps(schedule: Schedule, num_steps: int) -> Int[np.ndarray, "levels"]:
    """The same, but even in time over the noisiest levels alone: for distilled models, which end in one step whatever
    the level. There samples choose what they show, and there is nothing left to do where they have chosen.

    Raises:
      ValueError: unless 1 <= num_steps <= T.
    """
    total = schedule.num_timesteps
    uniform_timesteps(schedule, num_steps)  # checks the number
    span = max(num_steps, round(HIGH_NOISE_SHARE * total))
    times = total - 1 - np.arange(num_steps) * span // num_steps
    return np.append(times, -1).astype(np.int32)
