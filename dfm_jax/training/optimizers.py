"""Adam behind global-norm clipping, with linear warm-up and cosine decay of the learning rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from dfm_jax.config import OptimizerConfig


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """Rises linearly from 0 over `warmup_steps`, falls along half a cosine to 0 over `decay_steps`, and stays there.
    Without decay it stays at its peak."""
    peak, warmup = config.learning_rate, config.warmup_steps
    if config.decay_steps:
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, decay_steps=warmup + config.decay_steps)
    return optax.linear_schedule(0.0, peak, warmup) if warmup else optax.constant_schedule(peak)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales all gradients by the same factor, so that their joint norm is at most `max_norm`.

    A plain product fuses into what comes next; optax's own, a selection, holds every gradient twice at once (3 GB for
    the published model).
    """

    def update(gradients: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None) -> tuple:
        scale = jnp.minimum(1.0, max_norm / optax.tree.norm(gradients))
        return jax.tree.map(lambda x: x * scale, gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class SpikeState(NamedTuple):
    """Of `skip_spikes`."""

    inner: Any
    mean_norm: Array  # [] moving average of the gradient norms that were no spikes
    num_taken: Array  # [] int32, steps that it is made of
    num_in_a_row: Array  # [] int32, steps left out just now, one after the other
    skipped: Array  # [] bool, whether the last step was left out


MEAN_OVER = 100  # steps that the moving average looks back, and that pass before any is a spike
MOST_IN_A_ROW = 10  # steps left out one after the other: what lasts longer is no spike


def skip_spikes(inner: optax.GradientTransformation, factor: float) -> optax.GradientTransformation:
    """Leaves a step out, with all of its state, whose gradient norm is above `factor` times the norms' average."""

    def init(params: optax.Params) -> SpikeState:
        zero = jnp.zeros((), jnp.int32)
        return SpikeState(inner.init(params), jnp.zeros(()), zero, zero, jnp.zeros((), bool))

    def update(gradients: optax.Updates, state: SpikeState, params: optax.Params | None = None) -> tuple:
        norm = optax.tree.norm(gradients)
        spike = (norm > factor * state.mean_norm) & (state.num_taken >= MEAN_OVER)
        skipped = spike & (state.num_in_a_row < MOST_IN_A_ROW)
        choose = lambda old, new: jax.tree.map(lambda x, y: jnp.where(skipped, x, y), old, new)
        updates, made = inner.update(gradients, state.inner, params)
        num_taken = state.num_taken + 1
        share = 1 / jnp.minimum(num_taken, MEAN_OVER)
        taken = SpikeState(
            inner=made,
            mean_norm=state.mean_norm + share * (norm - state.mean_norm),
            num_taken=num_taken,
            num_in_a_row=jnp.zeros_like(num_taken),
            skipped=skipped,
        )
        left_out = state._replace(num_in_a_row=state.num_in_a_row + 1, skipped=skipped)
        return choose(jax.tree.map(jnp.zeros_like, updates), updates), choose(left_out, taken)

    return optax.GradientTransformation(init, update)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimiser. Its state holds the current `learning_rate`, so that a step can report it."""
    adam = optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root", "mu_dtype"))
    tx = optax.chain(
        clip_by_global_norm(config.clip_norm),
        adam(
            learning_rate=learning_rate_schedule(config),
            b1=config.b1,
            b2=config.b2,
            mu_dtype=config.first_moment_dtype,
        ),
    )
    return skip_spikes(tx, config.skip_spikes) if config.skip_spikes else tx
