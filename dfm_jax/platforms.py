"""What jax computes on, decided before it starts a device."""

import contextlib
import dataclasses
import glob
import importlib.metadata
import importlib.util
import os
import pathlib
from collections.abc import Iterator

import jax

from dfm_jax.errors import UserError

TPU_DEVICES = ("/dev/accel*", "/dev/vfio/[0-9]*")  # up to v4, and since
TPU_VARIABLES = ("TPU_NAME", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES", "JAX_FORCE_TPU_INIT")
NVIDIA_DEVICES = ("/dev/nvidia[0-9]*", "/dev/nvidiactl", "/dev/dxg")
CUDA_PLUGINS = {"xla_cuda12", "xla_cuda13"}
# XLA would fuse matrix products into kernels of its own (Triton) where cuBLAS is faster: a denoising step of
# realestate10k.py:64 in bfloat16 takes 21.0 ms so, and 17.1 ms with cuBLAS alone (H200, docs/gpu.md). What cuBLAS was
# seen to get wrong, products of many 3 x 3 matrices, is written out (geometry.py).
GPU_FLAGS = {"xla_gpu_enable_triton_gemm": "false"}
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of containers
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")  # in what the runtime says
HOW = "leave JAX_PLATFORMS unset for what this machine has, or set JAX_PLATFORMS=cpu"


@dataclasses.dataclass(frozen=True)
class Machine:
    """What is there to compute on, and what jax is installed with."""

    plugins: frozenset[str] = frozenset()  # jax's extensions for accelerators
    libtpu: bool = False
    tpu: bool = False  # a device, or an environment that names one
    nvidia: bool = False  # a device


def inspect_machine() -> Machine:
    there = lambda patterns: any(glob.glob(pattern) for pattern in patterns)
    return Machine(
        plugins=frozenset(plugin.name for plugin in importlib.metadata.entry_points(group="jax_plugins")),
        libtpu=importlib.util.find_spec("libtpu") is not None,
        tpu=there(TPU_DEVICES) or any(os.environ.get(name) for name in TPU_VARIABLES),
        nvidia=there(NVIDIA_DEVICES),
    )


def skip_absent_tpu() -> None:
    """Keeps jax from looking for a TPU where there is none, if nothing says what to run on.

    The extra [tpu] is installed on such machines to compile for others. Its library would be asked at every start, wait
    for answers of a network that is not there, and print what went wrong.
    """
    if chosen := without_absent_tpu(jax.config.jax_platforms or "", inspect_machine()):
        jax.config.update("jax_platforms", chosen)


def without_absent_tpu(asked: str, machine: Machine) -> str:
    """The platforms that jax should look for; '' where that is left to it."""
    # Of other plugins than those for CUDA, jax alone knows when they are of use.
    if asked or not machine.libtpu or machine.tpu or not machine.plugins <= CUDA_PLUGINS:
        return ""
    return "cuda,cpu" if machine.plugins and machine.nvidia else "cpu"


def with_gpu_flags(given: str, machine: Machine) -> str:
    """XLA_FLAGS with those of `GPU_FLAGS` that it does not name, where there is a GPU."""
    added = [f"--{name}={value}" for name, value in GPU_FLAGS.items() if machine.nvidia and name not in given]
    return " ".join([given, *added]).strip()


def start() -> None:
    """Starts jax's devices; to be called once this process has joined the others of its run, if there are any.

    Raises:
      UserError: what JAX_PLATFORMS asks for is not there, or a device does not start.
    """
    skip_absent_tpu()
    if flags := with_gpu_flags(os.environ.get("XLA_FLAGS", ""), inspect_machine()):  # XLA reads them when it starts
        os.environ["XLA_FLAGS"] = flags
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        raise UserError(not_started(jax.config.jax_platforms or "", inspect_machine(), error)) from error


def not_started(asked: str, machine: Machine, error: Exception) -> str:
    """Why no device starts, for a person: jax itself speaks of plugins, or fails an assertion."""
    where = f"JAX_PLATFORMS={asked}" if asked else "the devices of this machine"
    return f"jax cannot start on {where}: {_reason(asked.split(','), machine, error)}; {HOW}"


def _reason(names: list[str], machine: Machine, error: Exception) -> str:
    known = {"", "cpu", "cuda", "gpu", "tpu", "rocm", *machine.plugins}
    if unknown := [name for name in names if name not in known]:
        return f"{unknown[0]!r} is none of cpu, cuda, tpu"
    if {"cuda", "gpu"} & set(names):
        if not machine.nvidia:
            return "this machine shows no NVIDIA GPU"
        if not machine.plugins & CUDA_PLUGINS:
            return "jax is installed without support for GPUs (pip install 'dfm_jax[cuda]')"
    if "tpu" in names and not machine.libtpu:
        return "libtpu is not installed (pip install 'dfm_jax[tpu]')"
    return _first_line(error)


@contextlib.contextmanager
def memory_told() -> Iterator[None]:
    """Within it, a device's or the machine's memory that is not enough is a UserError."""
    try:
        yield
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise UserError(
            f"memory is not enough ({_first_line(error)}): lower config.train.batch_size or split it with "
            "config.train.accumulate, or lower loss.patch_size, model.ray_marching.chunk_size, image_size or the model"
        ) from error


def memory_bytes() -> float:
    """Of each of jax's devices; of a CPU what the machine has, or what this process may use of it."""
    stats = jax.local_devices()[0].memory_stats() if jax.default_backend() != "cpu" else None
    if stats and stats.get("bytes_limit"):
        return float(stats["bytes_limit"])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else []
    for file in MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(pathlib.Path(file).read_text()))
    return float(min(limits, default=float("inf")))


def may_have_accelerator() -> bool:
    """Whether jax could find more than the CPU here."""
    machine = inspect_machine()
    return jax.config.jax_platforms != "cpu" and (bool(machine.plugins) or machine.libtpu)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
