"""Where a run starts: at its last checkpoint, with another run's parameters, with public weights, or from nothing."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from dfm_jax.config import Config
from dfm_jax.forward_models.build import make_model
from dfm_jax.interop import imagenet
from dfm_jax.models.dit import TOKEN_SIDE
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.train_state import Params, TrainState, split_frozen
from dfm_jax.training import sharding
from dfm_jax.training.transfer import transfer

logger = logging.getLogger(__name__)


def initial_state(
    config: Config,
    init: Callable[[Array], TrainState],
    checkpoints: Checkpoints,
    mesh: sharding.Mesh,
    key: Array,
    start_step: int,
) -> TrainState:
    """The state to start from: the checkpoint of step `start_step`; or, where that is 0, a new one from `init(key)`,
    with parameters of another run or of public weights where the config names them.

    Raises:
      UserError: what the config names cannot be read, or does not fit this model.
    """
    ema_memory = config.train.optimizer.ema_memory
    target = sharding.abstract_state(init, mesh, ema_memory)
    if start_step:
        logger.info(f"resuming from step {start_step} in {checkpoints.directory}")
        return checkpoints.restore(start_step, target)
    encoder = _public_encoder(config)
    state = _with_encoder(sharding.initialize(init, key, mesh, ema_memory), encoder)
    origin = config.init_from or config.distillation.teacher
    if not origin:
        return state
    source, step, settings = restore_params(origin)
    params, plan = transfer(source, state.model_params, config.init_rule)
    logger.info(f"starting from the averaged parameters of step {step} in {origin}\n{plan.report()}")
    compare_position_codes(settings, config, origin)
    params, frozen = split_frozen(params, state.frozen)
    return state.replace(params=params, ema=_average_of(params, state), frozen=frozen)


def compare_position_codes(saved: Mapping[str, Any], config: Config, source: str) -> None:
    """Says it where the transformer will be told other places than it learnt: no parameter shows that."""
    now = dataclasses.asdict(config)
    theirs, ours = (_position_grid(settings) for settings in (saved, now))
    if theirs and ours and theirs != ours:
        logger.info(
            f"position codes count {ours} tokens a side, those of {source} {theirs}: "
            f"with --config.model.encoder.position_grid={theirs} places would keep their codes"
        )


def _position_grid(settings: Mapping[str, Any]) -> int:
    """Tokens a side that position codes count; 0 for encoders that have none."""
    encoder = settings["model"].get("encoder")
    if encoder is None or encoder["name"] != "dit":
        return 0
    return encoder["position_grid"] or settings["image_size"] // TOKEN_SIDE


def _public_encoder(config: Config) -> Mapping[tuple[str, ...], np.ndarray]:
    """The encoder's arrays that the config takes from a file of public weights, by their paths."""
    if not config.model.init_file:
        return {}
    model = make_model(config)
    weights = imagenet.load_encoder(config.model.init_file, model)
    logger.info(weights.report)
    return weights.arrays


def _with_encoder(state: TrainState, arrays: Mapping[tuple[str, ...], np.ndarray]) -> TrainState:
    """The state with some of the encoder's arrays (and their averages) replaced, on the same devices."""
    if not arrays:
        return state
    encoder = flatten_dict(state.params["encoder"])
    for path, array in arrays.items():
        sharded = encoder[path].sharding
        encoder[path] = jax.make_array_from_callback(array.shape, sharded, array.__getitem__)
    params = state.params | {"encoder": unflatten_dict(encoder)}
    return state.replace(params=params, ema=_average_of(params, state))


def _average_of(params: Params, state: TrainState) -> Params:
    """What the average of new parameters begins with: a copy of them, where the state has its average."""
    return jax.tree.map(lambda new, old: jax.device_put(jnp.copy(new), old.sharding), params, state.ema)
