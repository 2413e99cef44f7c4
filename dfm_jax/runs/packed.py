"""Packed checkpoints: a trained model in one `.npz`, its averaged parameters by their paths, its step and its settings.

`dfm_jax/pretrained/NAME.npz` are those that come with the package, each known by its name.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dfm_jax.errors import UserError
from dfm_jax.runs.array_files import read_arrays
from dfm_jax.runs.compatibility import complete
from dfm_jax.runs.output_folders import writing_file
from dfm_jax.runs.train_state import Params

SETTINGS, STEP = "settings", "step"
BETWEEN = "|"  # the parts of a parameter's path


def read(file: str | os.PathLike) -> tuple[Params, int, dict[str, Any]]:
    """Parameters, their step, and the settings of the run, as a nested dict.

    Raises:
      UserError: there is no such file, it is damaged, or it is no packed checkpoint.
    """
    arrays = read_arrays(file)
    try:
        step, settings = int(arrays.pop(STEP)), json.loads(arrays.pop(SETTINGS).tobytes())
    except (KeyError, ValueError) as error:
        raise UserError(f"{file} is no packed checkpoint: it has no settings or no step") from error
    return unflatten_dict(arrays, sep=BETWEEN), step, complete(settings)


def write(file: Path, params: Params, step: int, settings: dict[str, Any]) -> None:
    """Writes such a file, whole or not at all.

    Raises:
      UserError: it cannot be written.
    """
    arrays = {name: np.asarray(array) for name, array in flatten_dict(params, sep=BETWEEN).items()}
    text = np.frombuffer(json.dumps(settings).encode(), np.uint8)
    with writing_file(file) as unfinished, unfinished.open("wb") as opened:
        np.savez_compressed(opened, **arrays, **{SETTINGS: text, STEP: np.array(step)})
