"""What training a config needs, as functions: the model with its loss and optimiser, ready to be compiled."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from jax import Array

from dfm_jax.config import Config
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.precision import exact_products
from dfm_jax.forward_models.protocol import frozen_groups
from dfm_jax.losses import training_loss
from dfm_jax.models import lpips
from dfm_jax.runs.train_state import TrainState, create
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.preview import preview
from dfm_jax.sampling.solver_files import with_solver_file
from dfm_jax.training.distillation import distillation_loss
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.step import train_step
from dfm_jax.training.teacher import load_teacher


@dataclasses.dataclass(frozen=True)
class TrainSetup:
    """What a training run computes, as functions."""

    init: Callable[[Array], TrainState]  # key -> state before the first step
    step: Callable[..., tuple[TrainState, dict[str, Array]]]  # state, example, key, *frozen_params
    preview: Callable[[Any, Any, Array], np.ndarray]  # parameters, example, key -> uint8 [h, w, 3]
    # Frozen, and of other networks than the model: LPIPS (or None), and the teacher. They are not saved.
    frozen_params: tuple = ()


def make_train_setup(config: Config, frozen_params: tuple | None = None) -> TrainSetup:
    """Puts model, loss and optimiser together.

    Args:
      frozen_params: those of the setup, or their shapes; None: they are loaded.

    Raises:
      UserError: the weights of LPIPS or a fitted solver are needed, and they are not there; or the teacher cannot teach
        this model.
    """
    if frozen_params is None:
        frozen_params = _load_frozen(config)
    model, sampled = make_model(config), with_solver_file(config)
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    optimizer = config.train.optimizer
    tx = make_optimizer(optimizer)
    if config.distillation.teacher:
        loss = partial(distillation_loss, model=model, settings=config.distillation, weights=config.loss)
    else:
        loss = partial(training_loss, model=model, schedule=schedule, diffusion=config.diffusion, weights=config.loss)

    def step(state: TrainState, example: Any, key: Array, *frozen: Any) -> tuple:
        named = dict(zip(("perceptual", "teacher"), frozen, strict=False))
        with exact_products(config.model):  # also in the backward pass, where it traces the model once more
            return train_step(
                state,
                example,
                key,
                tx=tx,
                loss=partial(loss, **named),
                accumulate=config.train.accumulate,
                ema_decay=optimizer.ema_decay,
                ema_every=optimizer.ema_every,
                ema_on_host=optimizer.ema_memory == "host",
            )

    def show(params: Any, example: Any, key: Array) -> np.ndarray:
        return preview(DiffusionSampler.from_config(sampled, params), example, key)

    return TrainSetup(
        init=lambda key: create(model.init(key), tx, frozen_groups(model)),
        step=step,
        preview=show,
        frozen_params=frozen_params,
    )


def _load_frozen(config: Config) -> tuple:
    """LPIPS where the loss needs it, and the teacher if there is one."""
    perceptual = _load_lpips(config) if config.loss.lpips else None
    if config.distillation.teacher:
        return perceptual, load_teacher(config)
    return (perceptual,) if perceptual else ()


def _load_lpips(config: Config) -> lpips.Distance:
    try:
        return lpips.load_default(config.model.compute_dtype)
    except UserError as error:
        raise UserError(
            f"config.loss.lpips={config.loss.lpips:g}, but {error}; to train without it: --config.loss.lpips=0"
        ) from error


def rays_per_step(config: Config) -> int | None:
    """Rays that a training step renders; None: the model does not render."""
    rays = config.model.rays_per_example(config)
    return None if rays is None else config.train.batch_size * rays
