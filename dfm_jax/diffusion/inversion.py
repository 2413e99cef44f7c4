"""DDIM backwards: the noise that would lead to given pictures. Notation as in `distillation.py`."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from dfm_jax.diffusion.distillation import Denoiser
from dfm_jax.diffusion.process import add_noise, along, noise_from_x0
from dfm_jax.diffusion.schedule import Schedule

# Share of the noise levels at which an inversion looks first: lower, the noise is a small difference divided by a small
# number, and a picture that is none of the model's is said to hold enormous noise.
FIRST_LEVEL = 0.05


def inverted(
    denoiser: Denoiser,
    schedule: Schedule,
    x: Float[Array, "b *data"],
    t: Int[Array, " b"],
    num_steps: int,
    first_level: float = FIRST_LEVEL,
) -> tuple[Float[Array, "b *data"], Float[Array, "b *data"]]:
    """x_t at levels t, and the noise in it that leads back to x: DDIM's steps the other way round (Song et al.,
    *Denoising Diffusion Implicit Models*, 2021, section 4.3), of which each picture takes `num_steps`, even in time.

    Looks at the picture itself first, as if level `first_level` (or t, if that is lower) held no noise. Evaluates the
    denoiser `num_steps` times, at t not yet.
    """
    first = jnp.minimum(t, round(first_level * schedule.num_timesteps))
    levels = jnp.linspace(first, t, num_steps + 1)
    levels = jnp.round(levels).astype(t.dtype)  # [num_steps + 1, b]

    def step(x_s: Array, between: tuple[Array, Array]) -> tuple[Array, Array]:
        s, next_level = between
        x0 = denoiser(x_s, s)
        noise = noise_from_x0(schedule, x_s, s, x0)
        return add_noise(schedule, x0, next_level, noise), noise

    x_first = along(schedule.signal_rate[first], x) * x
    x_t, noises = jax.lax.scan(step, x_first, (levels[:-1], levels[1:]))
    return x_t, noises[-1]
