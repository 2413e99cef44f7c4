"""Other processes that tests start: on the CPU, with this process's settings."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Most of a test's time is compiling, and what runs on small arrays is not worth optimising: a fifth of the time.
QUICK_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
USERS_OPTIONS = {
    "xla_backend_optimization_level": 3,
    "xla_llvm_disable_expensive_passes": False,
    "xla_cpu_use_fusion_emitters": True,
}


def as_flags(options: dict[str, int | bool]) -> str:
    return " ".join(f"--{name}={str(value).lower()}" for name, value in options.items())


QUICKLY, AS_USERS_DO = as_flags(QUICK_OPTIONS), as_flags(USERS_OPTIONS)


def environment(flags: str = "", devices: int | None = None, **variables: object) -> dict[str, str]:
    """For another process: the package can be imported, and the compiler gets more `flags` (the last one holds)."""
    if devices is not None:
        flags += f" --xla_force_host_platform_device_count={devices}"
    of_tests = {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }
    return os.environ | of_tests | {name: str(value) for name, value in variables.items()}
