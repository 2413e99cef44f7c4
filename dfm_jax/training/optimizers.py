"""Adam behind global-norm clipping, with linear warm-up and cosine decay of the learning rate."""

import jax
import jax.numpy as jnp
import optax

from dfm_jax.config import OptimizerConfig


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """Rises linearly from 0 over `warmup_steps`, falls along half a cosine to 0 over `decay_steps`, and stays there."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=config.warmup_steps + config.decay_steps,
    )


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scales all gradients by the same factor, so that their joint norm is at most `max_norm`.

    A plain product fuses into what comes next; optax's own, a selection, holds every gradient twice at once (3 GB for
    the published model).
    """

    def update(gradients: optax.Updates, state: optax.EmptyState, params: optax.Params | None = None) -> tuple:
        scale = jnp.minimum(1.0, max_norm / optax.tree.norm(gradients))
        return jax.tree.map(lambda x: x * scale, gradients), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimiser. Its state holds the current `learning_rate`, so that a step can report it."""
    adam = optax.inject_hyperparams(optax.adam, static_args=("b1", "b2", "eps", "eps_root"))
    return optax.chain(
        clip_by_global_norm(config.clip_norm),
        adam(learning_rate=learning_rate_schedule(config), b1=config.b1, b2=config.b2),
    )
