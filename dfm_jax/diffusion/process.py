"""The forward process: from data to noise, and back by algebra.

Notation. `x0` data in the diffusion range, `noise` standard normal, `x_t` the data at noise level `t`:
  x_t = signal_rate_t x0 + noise_rate_t noise,   signal_rate^2 + noise_rate^2 = 1.
Any two of the three give the third. `b` is the batch; every example has its own timestep.
"""

from jax import Array
from jaxtyping import Float, Int, Shaped

from dfm_jax.diffusion.schedule import Schedule


def add_noise(
    schedule: Schedule, x0: Float[Array, "b *data"], timestep: Int[Array, " b"], noise: Float[Array, "b *data"]
) -> Float[Array, "b *data"]:
    """`x_t`: the data at the noise levels `timestep`, each in [0, T)."""
    signal_rate, noise_rate = _rates(schedule, timestep, x0)
    return signal_rate * x0 + noise_rate * noise


def noise_from_x0(
    schedule: Schedule, x_t: Float[Array, "b *data"], timestep: Int[Array, " b"], x0: Float[Array, "b *data"]
) -> Float[Array, "b *data"]:
    """The noise that turns `x0` into `x_t`."""
    signal_rate, noise_rate = _rates(schedule, timestep, x_t)
    return (x_t - signal_rate * x0) / noise_rate


def x0_from_noise(
    schedule: Schedule, x_t: Float[Array, "b *data"], timestep: Int[Array, " b"], noise: Float[Array, "b *data"]
) -> Float[Array, "b *data"]:
    """The data that `noise` turns into `x_t`; ill-conditioned where `signal_rate` is close to 0."""
    signal_rate, noise_rate = _rates(schedule, timestep, x_t)
    return (x_t - noise_rate * noise) / signal_rate


def along(values: Shaped[Array, " b"], like: Shaped[Array, "b *data"]) -> Shaped[Array, "b *ones"]:
    """One value an example, to be multiplied with data."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _rates(schedule: Schedule, timestep: Int[Array, " b"], like: Float[Array, "b *data"]) -> tuple[Array, Array]:
    """Both rates at each example's timestep, [b, 1, ...]."""
    return along(schedule.signal_rate[timestep], like), along(schedule.noise_rate[timestep], like)
