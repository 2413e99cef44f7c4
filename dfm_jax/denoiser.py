"""Diffusion through a forward model: the denoiser's x0-prediction is an observation of the signal that it infers.

Written against `protocol.ForwardModel`: nothing here knows what a signal is. Letters: `b` the batch; `...` the
shape of an observation. Notation as in the paper (Tewari et al. 2023): `x_t` the noisy target observation.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jaxtyping import Float, Key, Num

from dfm_jax.diffusion.guidance import Guidance
from dfm_jax.diffusion.process import add_noise, along
from dfm_jax.diffusion.schedule import Schedule
from dfm_jax.forward_models.protocol import ForwardModel, Params, Prediction


@struct.dataclass
class StepCache:
    """What all denoising steps of an example share; leaves `[b, ...]`, so that examples can be joined and told apart.

    With guidance, the examples without their contexts come after those with them.
    """

    context: Any  # as the model encodes it
    query: Any  # that makes the target observation
    other_queries: tuple = ()  # the same of further models, which observe at other noise levels

    def conditional(self, b: int) -> "StepCache":
        """That of the `b` examples with their contexts, guided or not."""
        return jax.tree.map(lambda x: x[:b], self)


@struct.dataclass
class Denoised:
    """One denoising step: the x0-prediction, the signal that was observed to make it, its observation and the
    deterministic estimate (both at the target), if the model makes one."""

    x0: Array  # [b, ...] in diffusion's range
    signal: Any
    observation: Any
    estimate: Any | None


def cache_context(
    params: Params,
    model: ForwardModel | Sequence[ForwardModel],
    example: Any,
    *,
    guided: bool = False,
    cache_bytes: int = 0,
) -> StepCache:
    """What can be computed before the first denoising step.

    Args:
      model: or several, which differ only in how they observe.
      guided: whether steps will be guided, so that the example is needed without its context as well.
      cache_bytes: what an example may take beside what is always kept.
    """
    models = model if isinstance(model, Sequence) else (model,)
    model = models[0]
    if guided:
        num_examples = jax.tree.leaves(example)[0].shape[0]
        dropped = jnp.repeat(jnp.array([False, True]), num_examples)
        example = model.drop_context(_twice(example), dropped)
    context = model.encode_context(params, example)
    queries = []
    for each in models:
        asked = each.target(example)[1]
        query = each.cache(params, context, asked, cache_bytes)
        cache_bytes -= _bytes_per_example(query) - _bytes_per_example(asked)
        queries.append(query)
    return StepCache(context, queries[0], tuple(queries[1:]))


def _bytes_per_example(tree: Any) -> int:
    return sum(x.nbytes // x.shape[0] for x in jax.tree.leaves(tree))


def denoise(
    params: Params,
    model: ForwardModel,
    x_t: Float[Array, "b ..."],
    timestep: Num[Array, "b"],
    cache: StepCache,
    keys: Key[Array, "b"] | None = None,
) -> Denoised:
    """Infers the signal behind the context and the noisy observation `x_t`, and observes it where `x_t` was."""
    signal, estimate = model.infer(params, cache.context, x_t, timestep)
    observation = model.observe(params, signal, cache.query, keys)
    x0 = model.to_x0(observation).reshape(x_t.shape)
    return Denoised(x0, signal, observation, estimate)


def guided_denoise(
    params: Params,
    model: ForwardModel,
    x_t: Float[Array, "b ..."],
    timestep: Num[Array, "b"],
    cache: StepCache,
    guidance: Guidance,
    average: Float[Array, "b ..."],
    keys: Key[Array, "b"] | None = None,
    *,
    interval: tuple[int, int] | None = None,
) -> tuple[Denoised, Float[Array, "b ..."]]:
    """`denoise` with guidance; and what the next step is to be given as `average`. Only `x0` is guided: the signal, its
    observation and the estimate are those of the conditional branch.

    The two branches run as one batch, and see the same random numbers.

    Args:
      cache: of guided examples `[2 b]`.
      average: what guidance carries from the step before; 0 in the first.
      interval: first and last timestep at which to guide (Kynkäänniemi et al. 2024, *Applying Guidance in a Limited
        Interval*); where no example lies in it, the branch without context is not computed. None: all timesteps.
    """
    b = x_t.shape[0]
    inside = jnp.ones(b, bool) if interval is None else (timestep >= interval[0]) & (timestep <= interval[1])

    def guided() -> tuple[Denoised, Array]:
        doubled = None if keys is None else _twice(keys)
        denoised = denoise(params, model, _twice(x_t), _twice(timestep), cache, doubled)
        conditional = jax.tree.map(lambda x: x[:b], denoised)
        new = guidance(conditional.x0, denoised.x0[b:], average)
        x0, carried = (jnp.where(along(inside, x), x, y) for x, y in zip(new, (conditional.x0, average), strict=True))
        return conditional.replace(x0=x0), carried

    if interval is None:
        return guided()
    plain = lambda: (denoise(params, model, x_t, timestep, cache.conditional(b), keys), average)
    return jax.lax.cond(jnp.any(inside), guided, plain)


def _twice(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.concatenate([x, x]), tree)


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
    signal, estimate = model.infer(params, model.encode_context(params, example), x_t, timestep)
    query_keys, observe_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    query, truth = model.supervision(example, query_keys)
    return Prediction(model.observe(params, signal, query, observe_keys), truth, estimate)
