"""A stack of equal blocks, run one after the other, whose gradient is added up in place.

Letters: `l` the blocks; `x` what runs through them, `c` what all of them see.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

Params = Any  # pytree
Block = Callable[[Params, Array, Array], Array]  # parameters of one block, x, c -> x


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def run_stack(block: Block, params: Params, x: Array, c: Array) -> tuple[Array, Params]:
    """Runs all blocks. In the backward pass, each is computed again from what entered it.

    Args:
      block: a hashable function.
      params: leaves [l, ...].

    Returns:
      x, and `params`. Where a function runs the same stack once more, it should do so with these: the gradient of the
      later run is then what that of the earlier is added to, block by block. With the same `params` for both there
      would be two whole gradients, and then their sum (2.9 GB each in the published model).
    """
    return lax.scan(lambda x, p: (block(p, x, c), None), x, params)[0], params


def _forward(block: Block, params: Params, x: Array, c: Array) -> tuple[tuple[Array, Params], tuple]:
    last, entered = lax.scan(lambda x, p: (block(p, x, c), x), x, params)
    return (last, params), (params, entered, c)


def _backward(block: Block, kept: tuple, gradients: tuple[Array, Params]) -> tuple[Params, Array, Array]:
    params, entered, c = kept
    num_blocks = entered.shape[0]

    def step(i: Array, carry: tuple[Array, Array, Params]) -> tuple[Array, Array, Params]:
        of_x, of_c, of_params = carry
        at = lambda stacked: lax.dynamic_index_in_dim(stacked, num_blocks - 1 - i, keepdims=False)
        put = lambda stacked, new: lax.dynamic_update_index_in_dim(stacked, at(stacked) + new, num_blocks - 1 - i, 0)
        _, pull_back = jax.vjp(block, jax.tree.map(at, params), at(entered), c)
        of_block, of_x, new_of_c = pull_back(of_x)
        return of_x, of_c + new_of_c, jax.tree.map(put, of_params, of_block)

    of_x, of_params = gradients
    of_x, of_c, of_params = lax.fori_loop(0, num_blocks, step, (of_x, jnp.zeros_like(c), of_params))
    return of_params, of_x, of_c


run_stack.defvjp(_forward, _backward)
