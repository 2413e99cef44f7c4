"""Everything that training carries from one step to the next, as one pytree.

Parameters are trained or frozen. Frozen ones get no gradient, and have no moments and no average of their own. Those of
the model (`forward_models.protocol.frozen_groups`) are part of the state: they are saved and restored with it, and
split over devices as the others. Those of other networks that a loss needs, LPIPS and a teacher, are named by the
config and loaded again: they are given to each step beside the state (`training.setup.TrainSetup.frozen_params`).
"""

from collections.abc import Collection
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
    params: Params  # float32, those that are trained
    opt_state: optax.OptState
    ema: Params  # moving average of `params`, of the same structure
    frozen: Params = struct.field(default_factory=dict)  # the model's other groups of parameters, by name

    @property
    def model_params(self) -> Params:
        """All that the model takes."""
        return with_frozen(self.params, self.frozen)

    @property
    def averaged(self) -> Params:
        """All that the model takes, those that are trained as their average."""
        return with_frozen(self.ema, self.frozen)


def create(params: Params, tx: optax.GradientTransformation, frozen: Collection[str] = ()) -> TrainState:
    """The state before the first step. The average is a copy: a donated state must not hold one buffer twice.

    Args:
      params: all that the model takes.
      frozen: groups of these that are not trained.
    """
    params, of_frozen = split_frozen(params, frozen)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=tx.init(params),
        ema=jax.tree.map(jnp.copy, params),
        frozen=of_frozen,
    )


def split_frozen(params: Params, frozen: Collection[str]) -> tuple[Params, Params]:
    """A model's parameters as those that are trained and those of the groups `frozen`."""
    if not frozen:
        return params, {}
    trained = {name: group for name, group in params.items() if name not in frozen}
    return trained, {name: params[name] for name in frozen}


def with_frozen(params: Params, frozen: Params) -> Params:
    """The two parts of `split_frozen` as one."""
    return params | frozen if frozen else params
