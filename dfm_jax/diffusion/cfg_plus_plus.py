"""CFG++ (Chung et al., *CFG++: Manifold-constrained Classifier Free Guidance for Diffusion Models*, 2024, algorithm 2):
DDIM whose predictions are interpolated between those without and with the condition, and noised with what was seen
without. Notation as in `samplers.py`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dfm_jax.diffusion.samplers import Times, levels_of_steps
from dfm_jax.diffusion.schedule import Schedule


def cfg_plus_plus(
    denoise_both: Callable[[Array, Array], tuple[Array, Array]],
    x_T: Float[Array, "b *data"],
    schedule: Schedule,
    times: Times,
    share: float | Float[Array, ""],
) -> Float[Array, "b *data"]:
    """x0 after DDIM's steps, each to `x0_u + share (x0_c - x0_u)` with the noise that x0_u leaves.

    A step is DDIM's with guidance of scale `share / (1 - exp(-h))`, where h is its length in log signal-to-noise: the
    finer the steps, the stronger is the guidance (`guidance_scales`).

    Args:
      denoise_both: `(x_t [b, ...], timestep [b])` to x0 with and without the condition.
      share: of the condition, in [0, 1]; the paper takes 0.6 where others guide with 7.5.
    """

    def step(x_t: Array, level: tuple) -> tuple[Array, None]:
        t, alpha_t, sigma_t, alpha_s, sigma_s = level
        x0_c, x0_u = denoise_both(x_t, jnp.full(len(x_t), t))
        noise = (x_t - alpha_t * x0_u) / sigma_t
        return alpha_s * (x0_u + share * (x0_c - x0_u)) + sigma_s * noise, None

    return jax.lax.scan(step, x_T, levels_of_steps(schedule, times))[0]


def guidance_scales(schedule: Schedule, times: Times, share: float) -> Float[Array, "n"]:
    """The scales of guidance with which DDIM takes the same steps; that of the last is `share`."""
    log_snr = schedule.log_snr[jnp.asarray(times)[:-1]]
    return share / (1 - jnp.append(jnp.exp(-jnp.diff(log_snr)), 0.0))
