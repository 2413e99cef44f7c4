"""Files of arrays by name (`.npz`): read without pickles, so that nothing in one is run."""

import os
import pathlib
import zipfile
import zlib

import numpy as np

from dfm_jax.errors import UserError


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file.

    Raises:
      UserError: there is no such file, it is damaged, or it is something else.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is damaged, or is no .npz file: {reason}") from error
