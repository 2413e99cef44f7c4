"""A solver that is fitted to a model: its noise levels and coefficients are numbers in a file, as is what the denoiser
is told of the levels. `studies/fit_solver.py` finds them. Notation as in `samplers.py`.

Every solver of one evaluation a step computes its states from the initial noise and the predictions so far, and so does
this one (Shaul et al., *Bespoke Non-Stationary Solvers*, 2024; Frankel et al., *S4S*, 2025):
  x_s = alpha_s D + sigma_s noise,  noise = (x_T - alpha_T D) / sigma_T
with `D` an average of all predictions so far. Averages, so that a state has the noise of its level and a denoiser that
knows x0 leads to it; a weight may be negative, as it is where a solver extrapolates.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float, Num

from dfm_jax.diffusion.samplers import Callback, DenoiseFn, Sampled, Times
from dfm_jax.diffusion.schedule import Schedule


@struct.dataclass
class FittedSolver:
    """Arrays, of which no program that they are given to is a function: it fits all solvers of `n` steps."""

    timesteps: Num[Array, "n"]  # what the denoiser is told, falling from T - 1; whole numbers
    log_snr: Float[Array, "n-1"]  # lambda of the states after the first, rising
    # Row i is for the step after prediction i, column j < i for what prediction j counts for in its `D`; the latest
    # prediction has the rest, up to 1. All else is 0.
    weights: Float[Array, "n n"]

    @property
    def num_steps(self) -> int:
        return self.weights.shape[0]


def fitted(
    denoise_fn: DenoiseFn,
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    solver: FittedSolver,
    *,
    carry: Any = None,
    callback: Callback | None = None,
) -> Sampled:
    """Samples with a fitted solver, in the place of the `times` of other samplers; all else is as of these."""
    alpha_T, sigma_T = schedule.signal_rate[-1], schedule.noise_rate[-1]

    def step(state: tuple, levels: tuple) -> tuple[tuple, Any]:
        (x_t, predictions, carry), (number, t, weights, alpha_s, sigma_s) = state, levels
        x0, carry = denoise_fn(x_t, jnp.full(len(x_t), t), carry)
        D = x0 + jnp.tensordot(weights, predictions - x0[None], axes=1)  # those to come have no weight
        noise = (x_T - alpha_T * D) / sigma_T
        x_s = alpha_s * D + sigma_s * noise
        return (x_s, predictions.at[number].set(x0), carry), callback and callback(t, x_t, x0)

    n = solver.num_steps
    alpha, sigma = (jnp.sqrt(jax.nn.sigmoid(sign * 2 * solver.log_snr)) for sign in (1, -1))
    levels = (jnp.arange(n), solver.timesteps, solver.weights, jnp.append(alpha, 1.0), jnp.append(sigma, 0.0))
    (x0, *_), seen = jax.lax.scan(step, (x_T, jnp.zeros((n, *x_T.shape), x_T.dtype), carry), levels)
    return (x0, seen) if callback else x0


def dpm_solver_weights(log_snr: Float[Array, "n"]) -> Float[Array, "n n"]:
    """The weights with which `fitted` is `samplers.dpm_solver`.

    Its step, divided by sigma_s, adds (q_s - q_t) D to x_t / sigma_t, with q = exp(lambda) and its own extrapolated D:
    the state holds the average of all these, with q_s - q_t for weights.
    """
    n = len(log_snr)
    h, q = jnp.diff(log_snr), jnp.exp(log_snr)
    half_over_r = jnp.zeros(n).at[1:-1].set(h[1:] / (2 * h[:-1]))
    extrapolated = (1 + half_over_r)[:, None] * jnp.eye(n) - half_over_r[:, None] * jnp.eye(n, k=-1)
    # After the last step, to q = infinity, the last prediction is all that is left.
    shares = jnp.tril(jnp.broadcast_to(jnp.append(jnp.diff(q), 0.0), (n, n))) / jnp.append(q[1:] - q[0], 1.0)[:, None]
    shares = shares.at[-1].set(jnp.eye(n)[-1])
    return jnp.tril(shares @ extrapolated, -1)


def dpm_solver_as_fitted(schedule: Schedule, times: Times) -> FittedSolver:
    """DPM-Solver++(2M) over `times` [n + 1], as a solver that could be fitted."""
    t = np.asarray(times)[:-1]
    log_snr = schedule.log_snr[t]
    return FittedSolver(jnp.asarray(t), log_snr[1:], dpm_solver_weights(log_snr))
