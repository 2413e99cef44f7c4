"""Samplers: free functions over any callable that returns the denoised data.

Notation. `x_t` data at noise level `t` of T, `x_T` initial noise, `x0` the denoiser's prediction of the clean data,
`t = -1` clean data; `b` batch, `n` sampling steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from dfm_jax.diffusion.process import noise_from_x0
from dfm_jax.diffusion.schedule import Schedule

# (x_t [b, ...], timestep [b] int32, step [] int32: 0 for the first denoising step) -> x0 [b, ...]
DenoiseFn = Callable[[Array, Array, Array], Array]
# The same with what it carries from step to step: (x_t, timestep, step, memory) -> (x0, memory)
RememberingFn = Callable[[Array, Array, Array, Any], tuple[Array, Any]]
# (schedule, num_steps) -> the noise levels that a sampler visits, `num_steps + 1` falling integers from T - 1 to -1
Spacing = Callable[[Schedule, int], Array | np.ndarray]

# Logarithm of signal over noise below which steps need not be even in it: the signal is lost in 150 times its noise.
NOISIEST = -5.0


def uniform_timesteps(schedule: Schedule, num_steps: int) -> Int[np.ndarray, "levels"]:
    """The noise levels that a sampler visits, even in time: `n + 1` falling integers from `T - 1` to -1.

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
    log_snr = jnp.log(schedule.signal_rate) - jnp.log(schedule.noise_rate)
    wanted = jnp.linspace(jnp.maximum(log_snr[-1], NOISIEST), log_snr[last], num_steps)
    nearest = jnp.argmin(jnp.abs(log_snr[:, None] - wanted[None]), axis=0).at[0].set(total - 1)
    # Where steps are finer than timesteps, the nearest ones repeat: move on to the next, but leave enough for the rest.
    number = jnp.arange(num_steps)
    falling = jax.lax.cummin(nearest + number) - number
    times = jnp.maximum(falling, last + number[::-1])
    return jnp.append(times, -1).astype(jnp.int32)


def ddim(
    denoise_fn: DenoiseFn | RememberingFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    num_steps: int,
    *,
    spacing: Spacing = uniform_timesteps,
    memory: Any = None,
    x0_transform: Callable[[Array], Array] = lambda x0: x0,
    return_trajectory: bool = False,
) -> Float[Array, "b *data"] | tuple[Float[Array, "b *data"], Float[Array, "states b *data"]]:
    """Deterministic DDIM (Song et al., *Denoising Diffusion Implicit Models*, 2021, eq. 12 with sigma = 0).

    Args:
      denoise_fn: `(x_t, timestep [b] int32, step [] int32) -> x0`; `step` counts from 0, for keys folded with it.
      x_T: the initial noise, scaled by the temperature if there is one.
      num_steps: denoising steps, at most T.
      spacing: which noise levels they visit.
      memory: arrays that `denoise_fn` carries from step to step (the momentum of guidance, say): with any, it takes
        them as fourth argument, and returns `(x0, memory)`.
      x0_transform: applied to every prediction (dynamic thresholding, say); the noise is computed from its result.
      return_trajectory: whether to return the states as well.
    Returns:
      x0, and with `return_trajectory` the states [num_steps + 1, b, ...], from x_T to x0.
    Raises:
      ValueError: unless 1 <= num_steps <= T.
    """
    times = jnp.asarray(spacing(schedule, num_steps))
    predict = _prediction(denoise_fn, x0_transform, memory)
    x0, states = _integrate(predict, x_T, memory, schedule, times, jnp.zeros(num_steps))
    return (x0, states) if return_trajectory else x0


def dpm_solver(
    denoise_fn: DenoiseFn | RememberingFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    num_steps: int,
    *,
    spacing: Spacing = uniform_timesteps,
    memory: Any = None,
    x0_transform: Callable[[Array], Array] = lambda x0: x0,
    return_trajectory: bool = False,
) -> Float[Array, "b *data"] | tuple[Float[Array, "b *data"], Float[Array, "states b *data"]]:
    """DPM-Solver++(2M) (Lu et al., *DPM-Solver++*, 2022, algorithm 2): DDIM of second order, at the same cost a step.

    Each step extrapolates the prediction from the one before it, linearly in `lambda = log(signal rate / noise rate)`.
    Arguments, result and errors are those of `ddim`.
    """
    times = jnp.asarray(spacing(schedule, num_steps))
    predict = _prediction(denoise_fn, x0_transform, memory)
    x0, states = _integrate(predict, x_T, memory, schedule, times, _extrapolation(schedule, times))
    return (x0, states) if return_trajectory else x0


def _prediction(
    denoise_fn: DenoiseFn | RememberingFn, x0_transform: Callable[[Array], Array], memory: Any
) -> RememberingFn:
    """The transformed prediction, in the form that carries a memory, even if there is none."""

    def predict(x_t: Array, timestep: Array, step: Array, memory_now: Any) -> tuple[Array, Any]:
        if memory is None:
            return x0_transform(denoise_fn(x_t, timestep, step)), None
        x0, remembered = denoise_fn(x_t, timestep, step, memory_now)
        return x0_transform(x0), remembered

    return predict


def _extrapolation(schedule: Schedule, times: Int[Array, "levels"]) -> Float[Array, "n"]:
    """How far each step goes beyond its prediction, as a multiple of the change since the last one: `h / (2 h_last)`
    with `h` the step in lambda. Nothing in the first step; nor in the last, whose `h` is infinite."""
    rate = jnp.log(schedule.signal_rate[times[:-1]]) - jnp.log(schedule.noise_rate[times[:-1]])
    h = jnp.diff(rate)
    return jnp.zeros(len(times) - 1).at[1:-1].set(h[1:] / (2 * h[:-1]))


def _integrate(
    predict: RememberingFn,
    x_T: Float[Array, "b *data"],
    memory: Any,
    schedule: Schedule,
    times: Int[Array, "levels"],
    extrapolation: Float[Array, "n"],
) -> tuple[Float[Array, "b *data"], Float[Array, "states b *data"]]:
    """x0 and all states on the way through the noise levels `times`, `n + 1` of them."""
    # At t = -1 there is no noise: with rates 1 and 0 the last step returns x0 like any other.
    next_signal_rate = jnp.append(schedule.signal_rate[times[1:-1]], 1.0)
    next_noise_rate = jnp.append(schedule.noise_rate[times[1:-1]], 0.0)

    def denoising_step(carry: tuple[Array, Array, Any], inputs: tuple[Array, ...]) -> tuple[tuple, Array]:
        (x_t, last_x0, memory), (step, time, signal_rate, noise_rate, beyond) = carry, inputs
        timestep = jnp.full(x_t.shape[0], time)
        x0, memory = predict(x_t, timestep, step, memory)
        ahead = x0 + beyond * (x0 - last_x0)
        noise = noise_from_x0(schedule, x_t, timestep, ahead)
        x_next = signal_rate * ahead + noise_rate * noise
        return (x_next, x0, memory), x_next

    steps = jnp.arange(len(times) - 1, dtype=jnp.int32)
    inputs = (steps, times[:-1], next_signal_rate, next_noise_rate, extrapolation)
    (x0, *_), states = jax.lax.scan(denoising_step, (x_T, jnp.zeros_like(x_T), memory), inputs)
    return x0, jnp.concatenate([x_T[None], states])
