"""The trained model that is sampled, evaluated or measured."""

import dataclasses
import os
from typing import Any

from dfm_jax.config import Config
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
