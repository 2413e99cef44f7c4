"""A small learnt score of some pictures: what variational score distillation compares the denoiser's with.

Notation. `n` particles (pictures) of one distribution, `d` their numbers, flat; x_t = alpha_t x + sigma_t noise.

D(x_t) = m + alpha_t v / (alpha_t^2 v + sigma_t^2) (x_t - alpha_t m) + correction(x_t, t), the denoiser of the Gaussian
with the particles' means m [d] and variances v [d], and a perceptron of two layers that learns what else there is to
the particles as they move. It begins with no correction: there is nothing of the prior in it.
"""

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array
from jaxtyping import Float, Int, Key

from dfm_jax.diffusion.process import add_noise
from dfm_jax.diffusion.schedule import Schedule

WIDTH = 64
OPTIMISER = optax.adam(3e-3)
NOISES = 4  # drawn for every particle in a step of learning
SMALLEST_VARIANCE = 1e-4


@struct.dataclass
class ParticleScore:
    weights: dict[str, Array]
    optimiser: optax.OptState

    @classmethod
    def new(cls, key: Key[Array, ""], d: int) -> "ParticleScore":
        first, second = jax.random.split(key)
        weights = {
            "in": jax.random.normal(first, (d + 2, WIDTH)) / jnp.sqrt(d + 2),
            "in_bias": jnp.zeros((1, WIDTH)),
            "hidden": jax.random.normal(second, (WIDTH, WIDTH)) / jnp.sqrt(WIDTH),
            "hidden_bias": jnp.zeros((1, WIDTH)),
            "out": jnp.zeros((WIDTH, d)),
        }
        return cls(weights, OPTIMISER.init(weights))

    def predict(
        self, schedule: Schedule, particles: Float[Array, "n d"], x_t: Float[Array, "k d"], t: Int[Array, " k"]
    ) -> Float[Array, "k d"]:
        """x0 of any x_t, if x0 is distributed as the particles are."""
        return _predict(self.weights, schedule, particles, x_t, t)

    def learned(
        self, schedule: Schedule, particles: Float[Array, "n d"], key: Key[Array, ""], num_steps: int
    ) -> "ParticleScore":
        """After that many more steps of denoising these particles."""

        def step(score: ParticleScore, key: Array) -> tuple[ParticleScore, None]:
            clean = jnp.tile(particles, (NOISES, 1))
            keys = jax.random.split(key)
            t = jax.random.randint(keys[0], clean.shape[:1], 0, schedule.num_timesteps)
            x_t = add_noise(schedule, clean, t, jax.random.normal(keys[1], clean.shape))

            def loss(weights: dict[str, Array]) -> Array:
                return jnp.mean(jnp.square(_predict(weights, schedule, particles, x_t, t) - clean))

            gradient = jax.grad(loss)(score.weights)
            updates, optimiser = OPTIMISER.update(gradient, score.optimiser)
            return ParticleScore(optax.apply_updates(score.weights, updates), optimiser), None

        return jax.lax.scan(step, self, jax.random.split(key, num_steps))[0]


def gaussian_prediction(
    schedule: Schedule, particles: Float[Array, "n d"], x_t: Float[Array, "k d"], t: Int[Array, " k"]
) -> Float[Array, "k d"]:
    """x0 of any x_t, if x0 is Gaussian with the particles' means and variances."""
    mean, variance = (moment(particles, axis=0, keepdims=True) for moment in (jnp.mean, jnp.var))
    variance = jnp.maximum(variance, SMALLEST_VARIANCE)
    alpha, sigma = schedule.signal_rate[t][:, None], schedule.noise_rate[t][:, None]
    return mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean)


def _predict(weights: dict[str, Array], schedule: Schedule, particles: Array, x_t: Array, t: Array) -> Array:
    rates = jnp.stack([schedule.signal_rate[t], schedule.noise_rate[t]], axis=-1)
    hidden = jnp.tanh(jnp.concatenate([x_t, rates], axis=-1) @ weights["in"] + weights["in_bias"])
    hidden = jnp.tanh(hidden @ weights["hidden"] + weights["hidden_bias"])
    return gaussian_prediction(schedule, particles, x_t, t) + hidden @ weights["out"]
