"""TPU slices that are not there: devices that programs can be compiled for, not run on."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from dfm_jax.errors import UserError

# Memory of a device by its kind, GiB, as published for the chip; of two-core chips that jax sees as two devices (v2,
# v3, 7x), half of it.
MEMORY_GIB = {
    "TPU v2": 8,
    "TPU v3": 16,
    "TPU v4": 32,
    "TPU v5 lite": 16,
    "TPU v5": 95,
    "TPU v6 lite": 32,
    "TPU7x": 96,
}
CHIPS_PER_HOST = 4
EXAMPLES = "v4:2x2x4, v5e:4x4, v5p:4x4x4, v6e:16x16"

# What libtpu would otherwise ask of the machine that it believes to be on.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


def describe(topology: str, num_slices: int = 1) -> Sequence[jax.Device]:
    """The devices of slices of a TPU pod. To be called before jax has started a device: it will see the CPU only.

    Args:
      topology: generation and chips along each axis, such as 'v5e:4x4' or 'v5p:4x4x4'.
      num_slices: slices of that form, joined by a data centre's network.

    Raises:
      UserError: libtpu is not installed, or knows no such topology.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError("compiling for TPUs needs libtpu, which is not installed: pip install 'dfm_jax[tpu]'")
    options = _options(topology)
    if num_slices > 1:
        options["num_slices"] = num_slices
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        return topologies.get_topology_desc(topology, platform="tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology} is none that libtpu knows, such as {EXAMPLES} ({error})") from error


def memory_bytes(device: jax.Device) -> int:
    """Memory of the device.

    Raises:
      UserError: for a kind of device that `MEMORY_GIB` does not list.
    """
    if device.device_kind not in MEMORY_GIB:
        raise UserError(f"the memory of {device.device_kind!r} is not known: add it to {__name__}.MEMORY_GIB")
    return MEMORY_GIB[device.device_kind] * 2**30


def _options(topology: str) -> dict:
    """What libtpu has to be told beside the name.

    Raises:
      UserError: the text is no topology.
    """
    match = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", topology)
    if not match:
        raise UserError(f"--topology={topology!r} is not GENERATION:CHIPSxCHIPS, such as {EXAMPLES}")
    sides = [int(side) for side in match[2].split("x")]
    options = {}
    if math.prod(sides) < CHIPS_PER_HOST:  # part of a host
        options["chips_per_host_bounds"] = (*sides, 1)[:3]
    if match[1] == "v4":
        options["chip_config_name"] = "megacore"  # one device a chip, as on Cloud TPU
    return options
