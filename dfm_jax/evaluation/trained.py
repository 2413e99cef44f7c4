"""The trained model that is sampled, evaluated or measured."""

import dataclasses
import os
from typing import Any

from dfm_jax.config import Config
from dfm_jax.data import pipeline
from dfm_jax.evaluation.draw import Params
from dfm_jax.training.checkpoints import restore_params
from dfm_jax.training.compatibility import check_same_config


def restore_trained(config: Config, workdir: str | os.PathLike) -> tuple[Params, int, dict[str, Any]]:
    """The latest averaged parameters of `workdir`, their step, and the settings that they were trained with.

    The config may have its own seed and data; what the parameters mean may not change.

    Raises:
      UserError: there is no checkpoint, or it is of another model.
    """
    params, step, saved = restore_params(workdir)
    check_same_config({**saved, "seed": config.seed, "data": dataclasses.asdict(config.data)}, config, workdir)
    return params, step, saved


def with_data_set(config: Config) -> Config:
    """The settings with the name of the data set that they ask for: a toy one is generated where it is missing.

    Raises:
      UserError: it cannot be made.
    """
    return dataclasses.replace(config, data=pipeline.ensure_toy(config.data, config.image_size))
