"""Noise schedules.

Notation. Timesteps `t = 0 .. T-1`; `t = -1` stands for clean data.
  beta_t       variance added from t-1 to t
  alpha_bar_t  prod_{s <= t} (1 - beta_s), the share of the signal's variance that is left at t
  x_t          sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) noise
"""

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array


@struct.dataclass
class Schedule:
    """Every rate that the diffusion process uses, per timestep, float32.

    They are stored, not derived, because each is rounded once from float64: in float32 `1 - alpha_bar` has no correct
    digit left beyond the fourth where `alpha_bar` is close to 1.
    """

    beta: Array  # [T]
    alpha_bar: Array  # [T], falling
    signal_rate: Array  # [T] sqrt(alpha_bar)
    noise_rate: Array  # [T] sqrt(1 - alpha_bar)
    posterior_variance: Array  # [T] variance of x_{t-1} given x_t and x0; 0 at t = 0

    @property
    def num_timesteps(self) -> int:
        return self.alpha_bar.shape[0]

    @property
    def log_snr(self) -> Array:
        """[T] lambda = log(signal rate / noise rate), falling."""
        return jnp.log(self.signal_rate) - jnp.log(self.noise_rate)


def schedule_from_betas(betas: np.ndarray) -> Schedule:
    """The schedule with these variances.

    Args:
      betas: [T] in (0, 1); taken to float64.
    Raises:
      ValueError: if there is no beta or one lies outside (0, 1).
    """
    beta = np.asarray(betas, np.float64)
    if beta.ndim != 1 or beta.size == 0 or not np.all((beta > 0) & (beta < 1)):
        raise ValueError("betas must be a non-empty vector of numbers in (0, 1)")
    alpha_bar = np.cumprod(1 - beta)
    previous = np.concatenate([[1.0], alpha_bar[:-1]])
    rates = {
        "beta": beta,
        "alpha_bar": alpha_bar,
        "signal_rate": np.sqrt(alpha_bar),
        "noise_rate": np.sqrt(1 - alpha_bar),
        "posterior_variance": beta * (1 - previous) / (1 - alpha_bar),
    }
    return Schedule(**{name: jnp.asarray(rate, jnp.float32) for name, rate in rates.items()})


def cosine_schedule(num_timesteps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """The cosine schedule of Nichol and Dhariwal, *Improved Denoising Diffusion Probabilistic Models* (2021), eq. 17.

    Args:
      num_timesteps: T, at least 1.
      offset: keeps the first betas from vanishing.
      max_beta: bound on beta, without which the last step would erase the signal altogether.
    """
    edges = np.linspace(0, 1, num_timesteps + 1, dtype=np.float64)
    signal_variance = np.cos((edges + offset) / (1 + offset) * np.pi / 2) ** 2
    return schedule_from_betas(np.minimum(1 - signal_variance[1:] / signal_variance[:-1], max_beta))
