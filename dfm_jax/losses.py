"""What training minimises, whatever the forward model: its terms (`ForwardModel.loss_terms`), weighted and averaged."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key, Num

from dfm_jax.config import DiffusionConfig, LossConfig
from dfm_jax.denoiser import Params, predict
from dfm_jax.diffusion.schedule import Schedule
from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import ForwardModel
from dfm_jax.forward_models.terms import Terms

Metrics = dict[str, Array]


def sample_timestep(key: Key[Array, ""], diffusion: DiffusionConfig) -> Num[Array, ""]:
    """A timestep, uniform but for the extra share that falls on high noise levels."""
    choose, low, high = jax.random.split(key, 3)
    anywhere = jax.random.randint(low, (), 0, diffusion.num_timesteps)
    noisy = jax.random.randint(high, (), diffusion.high_noise_from, diffusion.num_timesteps)
    return jnp.where(jax.random.bernoulli(choose, diffusion.high_noise_fraction), noisy, anywhere)


def training_loss(
    params: Params,
    example: Any,
    key: Key[Array, ""],
    *,
    model: ForwardModel,
    schedule: Schedule,
    diffusion: DiffusionConfig,
    weights: LossConfig,
    perceptual: Callable[[Array, Array], Array] | None = None,
) -> tuple[Float[Array, ""], Metrics]:
    """The loss of a batch, and its terms, each averaged over the batch.

    Args:
      key: the key of the step. It is folded with every example's global index, so that neither the layout of the
        batch nor the number of devices changes what is drawn.
      perceptual: LPIPS, where `weights.lpips` is not 0. It is no part of `params`: nothing trains it.
    """
    keys = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i), 4))(example.index)
    time_keys, noise_keys, drop_keys, predict_keys = jnp.moveaxis(keys, 1, 0)
    shape = jax.eval_shape(model.target, example)[0].shape[1:]
    timestep = jax.vmap(partial(sample_timestep, diffusion=diffusion))(time_keys)
    noise = jax.vmap(lambda k: jax.random.normal(k, shape))(noise_keys)
    dropped = jax.vmap(lambda k: jax.random.bernoulli(k, diffusion.guidance_dropout))(drop_keys)
    example = model.drop_context(example, dropped)
    prediction = predict(params, model, schedule, example, timestep, noise, predict_keys)
    terms = model.loss_terms(example, prediction, weights, perceptual)
    if "estimate" in terms:  # it has nothing to go by where there is no context
        terms["estimate"] = jnp.where(dropped, 0.0, terms["estimate"])
    return weighted(terms, weights)


def weighted(terms: Terms, weights: LossConfig) -> tuple[Float[Array, ""], Metrics]:
    """The weighted sum of terms `[b]`, and the terms, each averaged over the batch."""
    loss = jnp.mean(sum(_weight(weights, name) * term for name, term in terms.items()))
    return loss, {name: jnp.mean(term) for name, term in terms.items()} | {"loss": loss}


def _weight(weights: LossConfig, name: str) -> float:
    """Of a term: 1 of that on the target views; a term without a setting is an error, not a weight."""
    if name != "target" and not hasattr(weights, name):
        raise UserError(f"the model's loss_terms has a term {name!r}, and LossConfig no such weight: add it there")
    return 1.0 if name == "target" else getattr(weights, name)
