"""The weights of DISTS: `weights.pt` of the package dists-pytorch (12 kB, MIT licence), where that is installed, or a
file of that form. Its VGG16 is that of LPIPS, whose weights are read with it."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.interop.state_files import read_state
from dfm_jax.models import lpips
from dfm_jax.models.dists import CHANNELS, Dists

PACKAGE = "DISTS_pytorch"
NAMES = {"alpha": "texture", "beta": "structure"}


def load(path: str, distance: lpips.Distance | None) -> Dists:
    """The distance.

    Args:
      path: .pt (which needs torch), .safetensors or .npz; '': the package's.
      distance: whose VGG16 is taken; None: its weights are missing.

    Raises:
      UserError: weights are missing, or are none of DISTS.
    """
    file = path or _of_package()
    if not file:
        raise UserError(
            "there are no weights of DISTS: pip install --no-deps dists-pytorch, or name a file of them in "
            "config.evaluate.dists_file"
        )
    if distance is None:
        raise UserError("DISTS needs the VGG16 of LPIPS: run `make lpips-weights`")
    state = read_state(file)
    arrays = {ours: np.ravel(state.get(name, ())).astype(np.float32) for name, ours in NAMES.items()}
    if any(len(x) != sum(CHANNELS) or not np.isfinite(x).all() for x in arrays.values()):
        raise UserError(f"{file} does not hold the weights of DISTS: alpha and beta, {sum(CHANNELS)} numbers each")
    return Dists(distance.params["vgg16"], **{name: jnp.asarray(x) for name, x in arrays.items()})


def _of_package() -> str:
    found = importlib.util.find_spec(PACKAGE)
    folders = found.submodule_search_locations if found else ()
    files = [Path(folder) / "weights.pt" for folder in folders or ()]
    return next((str(file) for file in files if file.is_file()), "")
