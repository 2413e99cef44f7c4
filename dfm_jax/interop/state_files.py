"""State dicts in files that others wrote: .safetensors, and PyTorch's .pth and .pt. All of them are untrusted input."""

import pathlib
import pickle

import numpy as np

from dfm_jax.errors import UserError

TORCH_SUFFIXES = (".pth", ".pt")
SUFFIXES = (".safetensors", *TORCH_SUFFIXES)


def read_state(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name, in PyTorch's layout; floats as float32.

    Nothing in the file is run: PyTorch's files are read by its weights-only unpickler.

    Raises:
      UserError: there is no such file, the library to read it is missing, or it is damaged or holds anything but
        arrays by name.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} is no state dict: its name must end in one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        state = _read_torch(path) if path.suffix in TORCH_SUFFIXES else _read_safetensors(path)
    except ImportError as error:
        raise UserError(f"reading {path} needs the library {error.name}: pip install -e '.[convert]'") from error
    except pickle.UnpicklingError as error:  # PyTorch's own text advises to read the file unsafely
        raise UserError(f"{path} is damaged, or holds something else than arrays, and is not read") from error
    except Exception as error:  # of torch, zipfile, safetensors or the operating system
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} cannot be read; is it damaged or incomplete? ({reason})") from error
    return state


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it does not map names to arrays")
    return {name: (x.float() if x.is_floating_point() else x).detach().numpy() for name, x in state.items()}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    float32 = lambda x: x.astype(np.float32) if np.issubdtype(x.dtype, np.floating) else x
    return {name: float32(array) for name, array in load_file(path).items()}
