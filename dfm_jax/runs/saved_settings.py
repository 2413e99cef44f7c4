"""The settings in a checkpoint, for programs that must know them before they start a device."""

import json
import pathlib
from typing import Any

from dfm_jax.errors import UserError
from dfm_jax.runs import checkpoint_files, packed
from dfm_jax.runs.compatibility import complete
from dfm_jax.runs.workdirs import shipped_model

FILE = "metadata"  # of an item that orbax stores as JSON


def saved_settings(workdir: str | pathlib.Path) -> dict[str, Any]:
    """Those of the run behind the parameters that `checkpoints.restore_params` gives, as a nested dict.

    Raises:
      UserError: if there is no checkpoint.
    """
    if file := shipped_model(workdir):
        return packed.read(file)[2]
    step = checkpoint_files.newest_whole(workdir, ("ema", "frozen", "config"))
    file = checkpoint_files.directory_of(workdir) / str(step) / "config" / FILE
    try:
        return complete(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error})") from error
