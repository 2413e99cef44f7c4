"""Diffusion through a forward model: the denoiser's x0-prediction is an observation of the signal that it infers.

Written against `forward_model.ForwardModel`: nothing here knows what a signal is. Letters: `b` the batch; `...` the
shape of an observation. Notation as in the paper (Tewari et al. 2023): `x_t` the noisy target observation.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, Key, Num

from dfm_jax.diffusion.guidance import classifier_free_guidance
from dfm_jax.diffusion.process import add_noise
from dfm_jax.diffusion.schedule import Schedule
from dfm_jax.forward_model import ForwardModel
from dfm_jax.structs import Denoised

Params = dict[str, Any]


@struct.dataclass
class Prediction:
    """What a training step compares: observations of the inferred signal, and what they should be."""

    observation: Any  # at the supervised queries
    truth: Array  # the same, in diffusion's range
    estimate: Any | None  # deterministic estimate of target 0, of models that make one
    estimate_truth: Array | None


def denoise(
    params: Params,
    model: ForwardModel,
    x_t: Float[Array, "b ..."],
    timestep: Num[Array, "b"],
    example: Any,
    keys: Key[Array, "b"] | None = None,
) -> Denoised:
    """Infers the signal behind the context and the noisy observation `x_t`, and observes it where `x_t` was."""
    signal, estimate = model.infer(params, example, x_t, timestep)
    _, query = model.target(example)
    observation = model.forward(params, signal, query, keys)
    x0 = model.to_x0(observation).reshape(x_t.shape)
    return Denoised(x0=x0, scene=signal, rendering=observation, estimate=estimate)


def guided_denoise(
    params: Params,
    model: ForwardModel,
    x_t: Float[Array, "b ..."],
    timestep: Num[Array, "b"],
    example: Any,
    guidance: float,
    keys: Key[Array, "b"] | None = None,
) -> Denoised:
    """`denoise` with classifier-free guidance; `guidance` 1 is none. Only `x0` is guided: the scene, its rendering
    and the estimate are those of the conditional branch.

    The two branches run as one batch, and see the same random numbers.
    """
    if guidance == 1.0:
        return denoise(params, model, x_t, timestep, example, keys)
    twice = lambda tree: jax.tree.map(lambda x: jnp.concatenate([x, x]), tree)
    dropped = jnp.repeat(jnp.array([False, True]), x_t.shape[0])
    both = model.drop_context(twice(example), dropped)
    denoised = denoise(params, model, twice(x_t), twice(timestep), both, None if keys is None else twice(keys))
    conditional = jax.tree.map(lambda x: x[: x_t.shape[0]], denoised)
    unconditional_x0 = denoised.x0[x_t.shape[0] :]
    return conditional.replace(x0=classifier_free_guidance(conditional.x0, unconditional_x0, guidance))


def predict(
    params: Params,
    model: ForwardModel,
    schedule: Schedule,
    example: Any,
    timestep: Num[Array, "b"],
    noise: Float[Array, "b ..."],
    keys: Key[Array, "b"],
) -> Prediction:
    """The training pass: noises target 0, infers the signal, and observes it at the supervised queries.

    Args:
      keys: one per example; choose the queries and the model's own random numbers.
    """
    x0, _ = model.target(example)
    x_t = add_noise(schedule, x0, timestep, noise)
    signal, estimate = model.infer(params, example, x_t, timestep)
    query_keys, forward_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    query, truth = model.supervision(example, query_keys)
    observation = model.forward(params, signal, query, forward_keys)
    estimate_truth = None if estimate is None else model.estimate_target(example)
    return Prediction(observation, truth, estimate, estimate_truth)
