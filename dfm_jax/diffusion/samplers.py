"""Samplers: free functions over any callable that returns the denoised data, each with the loop of its paper.

Notation, that of the papers. A step goes from noise level `t` to the next lower one, `s`; `t = T - 1` is the noisiest,
`t = -1` clean data. `x_T` initial noise, `x_t` data at level `t`, `x0` the denoiser's prediction of clean data.
  alpha_t, sigma_t   signal and noise rate: x_t = alpha_t x0 + sigma_t noise (DDPM and DDIM write sqrt(alpha_bar_t) and
                     sqrt(1 - alpha_bar_t)); 1 and 0 at t = -1, so that each sampler ends with its last x0
  lambda_t           log(alpha_t / sigma_t), which grows without bound as t falls to -1
  h                  lambda_s - lambda_t
`b` is the batch, `n` the number of steps.

All of them take
  denoise_fn   `(x_t [b, ...], timestep [b] int32, carry) -> (x0 [b, ...], carry)`
  x_T          the initial noise, scaled by the temperature if there is one
  times        [n + 1] falling from T - 1 to -1: `timesteps.py`
  carry        arrays that `denoise_fn` hands from step to step (the momentum of guidance, say): what the first is given
  callback     `(timestep [], x_t, x0) -> arrays`, called in every step with what goes into `denoise_fn` and what comes
               out; traced like the loop around it, so that effects need `jax.debug.callback`
and return x0; with a callback also what it returned, stacked over the steps [n, ...].

A new sampler is a function here, and a line in `SAMPLERS` of `config/sampling.py`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int, Key

from dfm_jax.diffusion.schedule import Schedule

DenoiseFn = Callable[[Array, Array, Any], tuple[Array, Any]]
Callback = Callable[[Array, Array, Array], Any]
Times = Int[Array | np.ndarray, "levels"]
Sampled = Float[Array, "b *data"] | tuple[Float[Array, "b *data"], Any]


def ddim(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    *,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """Deterministic DDIM (Song et al., *Denoising Diffusion Implicit Models*, 2021, eq. 12 with sigma = 0)."""

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, carry), (t, alpha_t, sigma_t, alpha_s, sigma_s) = state, levels
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        noise = (x_t - alpha_t * x0) / sigma_t
        x_s = alpha_s * x0 + sigma_s * noise
        return (x_s, carry), callback and callback(t, x_t, x0)

    (x0, _), seen = jax.lax.scan(step, (x_T, carry), levels_of_steps(schedule, times))
    return (x0, seen) if callback else x0


def ddpm(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    *,
    keys: Key[Array, " b"],
    temperature: float = 1.0,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """Ancestral sampling (Ho et al., *Denoising Diffusion Probabilistic Models*, 2020, algorithm 2, with the posterior
    variance), also over levels that are not neighbours, as DDIM with eta = 1 (Song et al. 2021, eq. 16).

    Args:
      keys: of the examples; the noise of each step depends on the example's key and the number of the step only.
      temperature: scales the noise that is drawn.
    """

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, carry), (number, t, alpha_t, sigma_t, alpha_s, sigma_s) = state, levels
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        kept = alpha_t / alpha_s  # sqrt(1 - beta) of the step
        weight = 1 - (kept * sigma_s / sigma_t) ** 2  # beta / (1 - alpha_bar_t), exactly 1 in the last step
        mean = alpha_s * weight * x0 + kept * (sigma_s / sigma_t) ** 2 * x_t  # eq. 7, as the next line
        deviation = jnp.sqrt(weight) * sigma_s
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), x_t.shape[1:]))(keys)
        return (mean + temperature * deviation * noise, carry), callback and callback(t, x_t, x0)

    levels = levels_of_steps(schedule, times)
    (x0, _), seen = jax.lax.scan(step, (x_T, carry), (jnp.arange(len(times) - 1), *levels))
    return (x0, seen) if callback else x0


def dpm_solver(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    *,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """DPM-Solver++(2M) (Lu et al., *DPM-Solver++*, 2022, algorithm 2): second order, at the cost of DDIM.

    A step is DDIM's with the prediction `D` instead of x0: x0 extrapolated to the middle of the step, along the
    line through the last two predictions over lambda. `sigma_s / sigma_t x_t - alpha_s (exp(-h) - 1) D` of the paper is
    the same, but not finite at clean data.
    """
    h = _steps_in_lambda(schedule, times)
    # 1 / (2 r) of the paper; 0 in the first step, which has no last prediction, and in the last, whose h is infinite.
    half_over_r = jnp.zeros(len(times) - 1).at[1:-1].set(h[1:] / (2 * h[:-1]))

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, last_x0, carry), (half_over_r, t, alpha_t, sigma_t, alpha_s, sigma_s) = state, levels
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        D = x0 + half_over_r * (x0 - last_x0)
        noise = (x_t - alpha_t * D) / sigma_t
        x_s = alpha_s * D + sigma_s * noise
        return (x_s, x0, carry), callback and callback(t, x_t, x0)

    levels = (half_over_r, *levels_of_steps(schedule, times))
    (x0, *_), seen = jax.lax.scan(step, (x_T, jnp.zeros_like(x_T), carry), levels)
    return (x0, seen) if callback else x0


def dpm_solver_3m(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    *,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """DPM-Solver++(3M): third order, at the cost of DDIM (Lu et al., *DPM-Solver++*, 2022, section 4, with
    k = 3 and the derivatives of x0 by differences of predictions).

    The exact solution is DDIM's step with the average of x0 over it, weighted by exp(lambda), instead of x0
    (proposition 4.1). `D` is that average of the parabola through the last three predictions over lambda. The first
    steps are of lower order, so that the third shows only with steps even in lambda, where x0 hardly changes in them.
    """
    newest, older = _third_order_weights(_steps_in_lambda(schedule, times))

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, x0_1, x0_2, carry), (newest, older, t, alpha_t, sigma_t, alpha_s, sigma_s) = state, levels
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        D = x0 + newest * (x0 - x0_1) - older * (x0_1 - x0_2)
        noise = (x_t - alpha_t * D) / sigma_t
        x_s = alpha_s * D + sigma_s * noise
        return (x_s, x0, x0_1, carry), callback and callback(t, x_t, x0)

    start = (x_T, jnp.zeros_like(x_T), jnp.zeros_like(x_T), carry)
    (x0, *_), seen = jax.lax.scan(step, start, (newest, older, *levels_of_steps(schedule, times)))
    return (x0, seen) if callback else x0


def unipc(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    *,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """UniPC-2 with B(h) = exp(h) - 1 (Zhao et al., *UniPC*, 2023, algorithm 1, in predictions of x0): third order, at
    the cost of DDIM.

    A prediction at `t` first corrects the step that led to `t`, which is taken again with `D` of the parabola through
    it and the two predictions before (UniC-2); the next step is predicted by DPM-Solver++(2M), which is UniP-2. The
    denoiser does not see the corrected `x_t`: that would cost another evaluation.
    """
    h = _steps_in_lambda(schedule, times)
    half_over_r = jnp.zeros(len(times) - 1).at[1:-1].set(h[1:] / (2 * h[:-1]))
    rise, bend = _corrector_weights(h)

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, corrected_from, x0_1, x0_2, carry), (half_over_r, corrector, rates) = state, levels
        t, alpha_t, sigma_t, alpha_s, sigma_s = rates
        rise, bend, alpha_r, sigma_r = corrector  # of the step from r, the level before, to t
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        seen = callback and callback(t, x_t, x0)
        D = x0_1 + rise * (x0 - x0_1) - bend * (x0_1 - x0_2)
        noise = (corrected_from - alpha_r * D) / sigma_r
        x_t = alpha_t * D + sigma_t * noise
        D = x0 + half_over_r * (x0 - x0_1)
        noise = (x_t - alpha_t * D) / sigma_t
        x_s = alpha_s * D + sigma_s * noise
        return (x_s, x_t, x0, x0_1, carry), seen

    rates = levels_of_steps(schedule, times)
    # Nothing led to the first level: it is "corrected" from x_T at its own noise rate with D = 0, to x_T.
    before = (jnp.append(0.0, rates[1][:-1]), jnp.append(rates[2][:1], rates[2][:-1]))
    start = (x_T, x_T, jnp.zeros_like(x_T), jnp.zeros_like(x_T), carry)
    (x0, *_), seen = jax.lax.scan(step, start, (half_over_r, (rise, bend, *before), rates))
    return (x0, seen) if callback else x0


def consistency(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    *,
    keys: Key[Array, " b"],
    temperature: float = 1.0,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """Multistep consistency sampling (Song et al., *Consistency Models*, 2023, algorithm 1), of models that are
    distilled to say where a trajectory ends: each step starts anew, from what the one before ended in with noise of its
    own level.

    Args:
      keys, temperature: as of `ddpm`.
    """

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, _, carry), (number, t, _, _, alpha_s, sigma_s) = state, levels
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        noise = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), x_t.shape[1:]))(keys)
        return (alpha_s * x0 + temperature * sigma_s * noise, x0, carry), callback and callback(t, x_t, x0)

    # x0 is carried: the last state is x0 but for rounding, which a callback would change.
    levels = (jnp.arange(len(times) - 1), *levels_of_steps(schedule, times))
    (_, x0, _), seen = jax.lax.scan(step, (x_T, jnp.zeros_like(x_T), carry), levels)
    return (x0, seen) if callback else x0


# Those that draw noise in every step, and are given `keys` and a `temperature`.
STOCHASTIC = frozenset({ddpm, consistency})


def levels_of_steps(schedule: Schedule, times: Times) -> tuple[Array, Array, Array, Array, Array]:
    """What all steps are told, [n] each: t, alpha_t, sigma_t, alpha_s, sigma_s."""
    t = jnp.asarray(times)[:-1]
    alpha_t, sigma_t = schedule.signal_rate[t], schedule.noise_rate[t]
    return t, alpha_t, sigma_t, jnp.append(alpha_t[1:], 1.0), jnp.append(sigma_t[1:], 0.0)


def _steps_in_lambda(schedule: Schedule, times: Times) -> Float[Array, "finite"]:
    """`h` of all steps but the last, which is infinite."""
    t = jnp.asarray(times)[:-1]
    return jnp.diff(schedule.log_snr[t])


def _third_order_weights(h: Float[Array, "finite"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """What `x0 - x0_1`, the difference of the last two predictions, and `x0_1 - x0_2` count for in `D`.

    Newton's form of the parabola over u = lambda - lambda_t, through x0 at 0, x0_1 at -h_1 and x0_2 at -h_1 - h_2, is
      x0 + u slope + u (u + h_1) bend
    with slope = (x0 - x0_1) / h_1 and bend = (slope - (x0_1 - x0_2) / h_2) / (h_1 + h_2). The first step has no slope,
    the first two have no bend, and the last, to clean data, has neither.
    """
    mean_u, mean_square = _means_over_step(h)
    slope, bend = jnp.zeros(len(h) + 1), jnp.zeros(len(h) + 1)
    slope = slope.at[1:-1].set(mean_u[1:])
    bend = bend.at[2:-1].set((mean_square[2:] + h[1:-1] * mean_u[2:]) / (h[1:-1] + h[:-2]))
    h_1, h_2 = jnp.ones_like(slope).at[1:].set(h), jnp.ones_like(slope).at[2:].set(h[:-1])
    return (slope + bend) / h_1, bend / h_2


def _corrector_weights(h: Float[Array, "finite"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """What `x0 - x0_1`, the difference of the predictions at both ends of the step that is corrected, and `x0_1 - x0_2`
    count for in its `D`: as above, with u = 0 where the step began, x0 at h, x0_1 at 0 and x0_2 at -h_1:
      x0_1 + u rise + u (u - h) bend
    with rise = (x0 - x0_1) / h and bend = (rise - (x0_1 - x0_2) / h_1) / (h + h_1), which the first step lacks.
    """
    mean_u, mean_square = _means_over_step(h)
    bend = jnp.zeros_like(h).at[1:].set((mean_square - h * mean_u)[1:] / (h[1:] + h[:-1]))
    h_1 = jnp.ones_like(h).at[1:].set(h[:-1])
    # Prediction i corrects step i - 1; there is none before prediction 0.
    return jnp.append(0.0, (mean_u + bend) / h), jnp.append(0.0, bend / h_1)


def _means_over_step(h: Float[Array, "finite"]) -> tuple[Float[Array, "finite"], Float[Array, "finite"]]:
    """Means of u and u^2 over a step, from u = 0 to h, with weight exp(u)."""
    mean_u = h / -jnp.expm1(-h) - 1
    return mean_u, h**2 / -jnp.expm1(-h) - 2 * mean_u
