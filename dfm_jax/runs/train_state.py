"""Everything that training carries from one step to the next, as one pytree."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import Array

Params = Any  # nested dict of arrays


@struct.dataclass
class TrainState:
    step: Array  # [] int32, optimiser steps taken
    params: Params  # float32
    opt_state: optax.OptState
    ema: Params  # moving average of `params`, of the same structure


def create(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step. The average is a copy: a donated state must not hold one buffer twice."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        ema=jax.tree.map(jnp.copy, params),
    )
