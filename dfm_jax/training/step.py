"""One training step as a pure function of state, batch and key. It is compiled and sharded in `sharding.py` only."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from einops import rearrange
from jax import Array

from dfm_jax.runs.train_state import Params, TrainState, with_frozen
from dfm_jax.training.optimizers import SpikeState

Batch = Any  # pytree of arrays [b, ...]; an `Example` for the radiance field
Metrics = dict[str, Array]  # scalars
Loss = Callable[[Params, Batch, Array], tuple[Array, Metrics]]


def train_step(
    state: TrainState,
    example: Batch,
    key: Array,
    *,
    tx: optax.GradientTransformation,
    loss: Loss,
    accumulate: int,
    ema_decay: float,
    ema_every: int,
    ema_on_host: bool = False,
) -> tuple[TrainState, Metrics]:
    """One optimiser step.

    Args:
      example: leaves [b, ...].
      key: the same for the whole run; it is folded with the step here.
      loss: (params, example, key) -> (mean over the examples, scalar metrics that are means over the examples too). Its
        parameters are all of the model; of those that the state holds as frozen no gradient is taken.
      accumulate: micro-batches that the batch is split into, one after the other, to save memory; divides b.
      ema_decay: of the parameters' average, reached after a ramp (see `update_average`).
      ema_every: steps between updates of the average.
      ema_on_host: whether the average lies in the memory of the host.

    Returns:
      the next state, and the loss's metrics with `loss`, `gradient_norm` (before clipping), `learning_rate` (where the
      optimiser tells it), `skipped` (where it may leave out spikes: whether this was one, and only the step was
      counted) and `finite`: whether the loss and all gradients are finite. The caller must discard a state that was
      made of gradients that are not.
    """
    step_key = jax.random.fold_in(key, state.step)
    of_trained = lambda params, *rest: loss(with_frozen(params, state.frozen), *rest)
    (value, metrics), gradients = _mean_gradients(of_trained, state.params, example, step_key, accumulate)
    gradient_norm = optax.tree.norm(gradients)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    step = state.step + 1
    old_ema = jax.device_put(state.ema, jax.memory.Space.Device) if ema_on_host else state.ema
    ema = update_average(old_ema, params, step, decay=ema_decay, every=ema_every)
    finite = jnp.isfinite(value) & jnp.isfinite(gradient_norm)  # one bad element makes the norm bad too
    metrics = metrics | {"loss": value, "gradient_norm": gradient_norm, "finite": finite}
    if isinstance(opt_state, SpikeState):
        metrics["skipped"] = opt_state.skipped
        ema = jax.tree.map(lambda old, new: jnp.where(opt_state.skipped, old, new), old_ema, ema)
    learning_rate = optax.tree.get(opt_state, "learning_rate", filtering=lambda _, value: isinstance(value, Array))
    if learning_rate is not None:
        metrics["learning_rate"] = learning_rate
    ema = jax.device_put(ema, jax.memory.Space.Host) if ema_on_host else ema
    return state.replace(step=step, params=params, opt_state=opt_state, ema=ema), metrics


def update_average(ema: Params, params: Params, step: Array, *, decay: float, every: int) -> Params:
    """The exponential moving average after `step` steps; unchanged unless `every` divides `step`.

    Update n uses min(decay, (1 + n) / (10 + n)): without this ramp, a short run's average would still hold much of
    the random initial parameters (0.999^1600 = 0.2).
    """

    count = step // every
    ramped = jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    # Not a `cond`: its result would be one more copy of all parameters.
    return optax.incremental_update(params, ema, jnp.where(step % every == 0, 1.0 - ramped, 0.0))


def _mean_gradients(loss: Loss, params: Params, example: Batch, key: Array, accumulate: int) -> tuple:
    """((loss, metrics), gradients), averaged over `accumulate` micro-batches."""
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    if accumulate == 1:
        return value_and_grad(params, example, key)
    # Every `accumulate`-th example makes a micro-batch: so a batch that is sharded over devices stays where it is.
    micro = jax.tree.map(lambda x: rearrange(x, "(b n) ... -> n b ...", n=accumulate), example)

    def add(total: Any, batch: Batch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, value_and_grad(params, batch, key)), None

    shapes = jax.eval_shape(value_and_grad, params, jax.tree.map(lambda x: x[0], micro), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, micro)
    return jax.tree.map(lambda x: x / accumulate, total)
