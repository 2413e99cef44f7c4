"""How a solver is fitted: by gradients through its few steps, towards samples in many steps from the same noise.

First the best of some solvers is found that differ in their levels, with the coefficients of DPM-Solver++; then Adam
moves levels, timesteps and weights. `b` is the batch, `n` the number of steps.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax import Array
from jaxtyping import Float, Key

from dfm_jax.diffusion.fitted_solver import FittedSolver, dpm_solver_weights
from dfm_jax.diffusion.schedule import Schedule
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler

# A sample whose mean squared distance (in [-1, 1] units) is this is half missed: at 20 dB, below which it has chosen
# otherwise than the reference (`steps_sweep.SAME_PSNR`). How far off such a sample is does not count any more: an
# average of what it might have chosen would be nearer, and is what must not come out.
HALF_MISSED = 4 * 10 ** (-20 / 10)
LEARNING_RATE = 0.03
KEPT = 0.9  # of the average of earlier solvers, in every update
# The levels to start from: that of the second prediction, that of the last, and how the others lie between: evenly, or
# more of them at high noise. In log-SNR.
SECOND, LAST, POWERS = (-3.2, -2.7, -2.2, -1.7), (0.0, 1.0, 2.5), (1.0, 2.0)


@struct.dataclass
class Reference:
    """What samples are to be."""

    example: Any  # [b]
    keys: Key[Array, "b"]
    wanted: tuple[Array, Array]  # `samples` in many steps, from the same noise


@struct.dataclass
class Free:
    """A solver in numbers that can take any values."""

    log_snr: Float[Array, "n-1"]
    told: Float[Array, "n-1"]  # log-SNR of the level that the denoiser is told, less that of the state
    weights: Float[Array, "n n"]

    def solver(self, schedule: Schedule) -> FittedSolver:
        """Levels in their order, and whole timesteps; gradients take the rounding for none."""
        log_snr = jnp.sort(self.log_snr)
        last = schedule.num_timesteps - 1
        timesteps = jnp.interp(jnp.sort(log_snr + self.told), schedule.log_snr[::-1], jnp.arange(last, -1.0, -1.0))
        whole = timesteps + jax.lax.stop_gradient(jnp.round(timesteps) - timesteps)
        return FittedSolver(jnp.append(float(last), whole), log_snr, jnp.tril(self.weights, -1))


def starts(schedule: Schedule, num_steps: int) -> list[Free]:
    """Solvers of at least two steps to begin with, with the weights of DPM-Solver++."""
    first = float(schedule.log_snr[-1])
    found = {}
    for second, last, power in itertools.product(SECOND, LAST, POWERS):
        levels = second + (last - second) * np.linspace(0, 1, num_steps - 1) ** power
        found[tuple(levels.round(6))] = levels
    weights = [dpm_solver_weights(jnp.append(first, jnp.asarray(levels, jnp.float32))) for levels in found.values()]
    made = zip(found.values(), weights, strict=True)
    return [Free(jnp.asarray(x, jnp.float32), jnp.zeros(num_steps - 1), weights) for x, weights in made]


def misses(x0: Float[Array, "b ..."], wanted: Float[Array, "b ..."]) -> Float[Array, "b"]:
    """How far each observation misses what it should be: from 0, equal, to 1, something else."""
    squared = jnp.mean(jnp.square(x0 - wanted), axis=tuple(range(1, x0.ndim)))
    return squared / (squared + HALF_MISSED)


@jax.jit
def samples(sampler: DiffusionSampler, free: Free | None, example: Any, keys: Key[Array, "b"]) -> tuple[Array, Array]:
    """What diffusion ends with, and what the signal (scene) behind it looks like at the target, [b, ...] both.

    With the sampler's own settings; or with a solver that is fitted, if it is given.
    """
    if free is not None:
        sampler = sampler.replace(solver=free.solver(sampler.schedule))
    finished, model = sampler.sample(example, keys), sampler.model
    signal, _ = sampler.scene(finished)
    query = sampler.cache_context(example).conditional(len(keys)).query
    observed = model.to_x0(model.observe(sampler.params, signal, query, None))
    return finished.x0, observed.reshape(finished.x0.shape)


def missed(sampler: DiffusionSampler, free: Free, references: Sequence[Reference], told: Callable[[], None]) -> float:
    """The mean over all samples; `told` is called after each batch."""
    found = []
    for reference in references:
        found.append(_missed(sampler, free, reference))
        told()
    return float(np.mean(found))


@jax.jit
def _missed(sampler: DiffusionSampler, free: Free, reference: Reference) -> Float[Array, ""]:
    found = samples(sampler, free, reference.example, reference.keys)
    return jnp.mean(jnp.stack([misses(x0, wanted) for x0, wanted in zip(found, reference.wanted, strict=True)]))


def improved(
    sampler: DiffusionSampler, start: Free, references: Sequence[Reference], updates: int, told: Callable[[], None]
) -> Free:
    """The average of the last solvers of `updates` by Adam, each of the next of the references.

    Args:
      told: called after each update.
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, updates), b2=0.99)

    @jax.jit
    def update(sampler: DiffusionSampler, free: Free, state: Any, average: Free, reference: Reference) -> tuple:
        gradient = jax.grad(_missed, argnums=1)(sampler, free, reference)
        changes, state = optimizer.update(gradient, state)
        free = optax.apply_updates(free, changes)
        return free, state, jax.tree.map(lambda old, new: KEPT * old + (1 - KEPT) * new, average, free)

    free, state, average = start, optimizer.init(start), start
    for reference in itertools.islice(itertools.cycle(references), updates):
        free, state, average = update(sampler, free, state, average, reference)
        jax.block_until_ready(average)
        told()
    return average
