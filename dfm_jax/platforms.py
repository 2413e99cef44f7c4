"""What jax computes on, decided before it starts a device."""

import contextlib
import glob
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator

import jax

from dfm_jax.errors import UserError

TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")  # up to v4, and since
TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "JAX_FORCE_TPU_INIT")
NVIDIA_DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/dxg")
HOW = "leave JAX_PLATFORMS unset for what this machine has, or set JAX_PLATFORMS=cpu"


def skip_absent_tpu() -> None:
    """Keeps jax from looking for a TPU where there is none, if nothing says what to run on.

    The extra [tpu] is installed on such machines to compile for others. Its library would be asked at every start, wait
    for answers of a network that is not there, and print what went wrong.
    """
    if jax.config.jax_platforms or importlib.util.find_spec("libtpu") is None or _is_there(TPU_DEVICES):
        return
    if any(os.environ.get(name) for name in TPU_VARIABLES):
        return
    plugins = {plugin.name for plugin in _plugins()}
    if plugins <= {"xla_cuda12", "xla_cuda13"}:  # of others, jax alone knows when they are of use
        jax.config.update("jax_platforms", "cuda,cpu" if plugins and _is_there(NVIDIA_DEVICES) else "cpu")


def start() -> None:
    """Starts jax's devices; to be called once this process has joined the others of its run, if there are any.

    Raises:
      UserError: what JAX_PLATFORMS asks for is not there, or a device does not start.
    """
    skip_absent_tpu()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = jax.config.jax_platforms
        where = f"JAX_PLATFORMS={asked}" if asked else "the devices of this machine"
        raise UserError(f"jax cannot start on {where}: {_reason(asked or '', error)}; {HOW}") from error


def may_have_accelerator() -> bool:
    """Whether jax could have found more than the CPU here."""
    if jax.config.jax_platforms == "cpu":
        return False
    return bool(_plugins()) or importlib.util.find_spec("libtpu") is not None


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """Within it, a device's or the machine's memory that is not enough is a UserError."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(
            f"memory is not enough ({_first_line(error)}): lower config.train.batch_size or split it with "
            "config.train.accumulate, or lower loss.patch_size, model.ray_marching.chunk_size, image_size or the model"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _reason(asked: str, error: Exception) -> str:
    """Why a platform does not start, for a person. jax itself speaks of plugins, or fails an assertion."""
    names = asked.split(",")
    plugins = {plugin.name for plugin in _plugins()}
    known = {"cpu", "cuda", "gpu", "tpu", "rocm", *plugins}
    if unknown := [name for name in names if name not in known]:
        return f"{unknown[0]!r} is none of cpu, cuda, tpu"
    if {"cuda", "gpu"} & set(names):
        if not _is_there(NVIDIA_DEVICES):
            return "this machine shows no NVIDIA GPU"
        if not any("cuda" in name for name in plugins):
            return "jax is installed without support for GPUs (pip install 'dfm_jax[cuda]')"
    if "tpu" in names and importlib.util.find_spec("libtpu") is None:
        return "libtpu is not installed (pip install 'dfm_jax[tpu]')"
    return _first_line(error)


def _plugins() -> list[importlib.metadata.EntryPoint]:
    """jax's extensions for accelerators."""
    return list(importlib.metadata.entry_points(group="jax_plugins"))


def _is_there(patterns: tuple[str, ...]) -> bool:
    return any(glob.glob(pattern) for pattern in patterns)
