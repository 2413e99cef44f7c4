"""The loop around `distillation.py`: something is rendered, and follows the gradients on its renderings.

Letters: `b` results that are optimised at once, each by itself.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int, Key

Share = float | Float[Array, ""]
# From what is optimised, leaves [b, ...], and keys [b]: renderings, and what else the gradient has to know of them.
Render = Callable[[Any, Array], tuple[Any, Any]]
# From renderings, what else is known of them, the share of all steps that is done [], keys [b] and a carry: gradients
# on the renderings, and the carry for the next step.
Estimate = Callable[[Any, Any, Array, Array, Any], tuple[Any, Any]]


def optimised(
    render: Render,
    estimate: Estimate,
    start: Any,
    keys: Key[Array, " b"],
    num_steps: int | Int[Array, ""],
    optimiser: optax.GradientTransformation,
    carry: Any = None,
) -> Any:
    """What `start` has become after `num_steps` steps of `optimiser`; nothing can be differentiated through them.

    Args:
      keys: of the results: the randomness of a step depends on the result's key and the number of the step only.
      carry: what the first step's estimate is given.
    """

    def step(number: Array, state: tuple) -> tuple:
        current, optimiser_state, carry = state
        render_keys, estimate_keys = _step_keys(keys, number)
        rendered, backwards, known = jax.vjp(lambda it: render(it, render_keys), current, has_aux=True)
        gradient, carry = estimate(rendered, known, number / num_steps, estimate_keys, carry)
        updates, optimiser_state = optimiser.update(*backwards(gradient), optimiser_state, current)
        return optax.apply_updates(current, updates), optimiser_state, carry

    return jax.lax.fori_loop(0, num_steps, step, (start, optimiser.init(start), carry))[0]


def falling_rate(rate: Share, num_steps: int | Int[Array, ""]) -> optax.Schedule:
    """From `rate` to 0 along a cosine."""
    return lambda step: 0.5 * rate * (1 + jnp.cos(jnp.pi * step / num_steps))


def draw_levels(keys: Key[Array, " b"], lowest: Share, highest: Share, num_timesteps: int) -> Int[Array, " b"]:
    """Noise levels [b] between two shares of all, each its own."""
    share = jax.vmap(lambda key: jax.random.uniform(key, minval=lowest, maxval=highest))(keys)
    return jnp.round(share * (num_timesteps - 1)).astype(jnp.int32)


def draw_noise(keys: Key[Array, " b"], like: Float[Array, "b *data"]) -> Float[Array, "b *data"]:
    """Standard normal noise, each its own."""
    return jax.vmap(lambda key: jax.random.normal(key, like.shape[1:]))(keys)


def _step_keys(keys: Key[Array, " b"], number: Array) -> tuple[Array, Array]:
    of_step = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, number)))(keys)
    return of_step[:, 0], of_step[:, 1]
