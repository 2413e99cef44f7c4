"""Other processes that tests start: on the CPU, with this process's settings."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE = 1200  # seconds until a test gives up on one: a machine may be busy with other things

# Most of a test's time is compiling, and what runs on small arrays is not worth optimising. With these, compiling takes
# a fifth of the time.
QUICK_OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
USERS_OPTIONS = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
QUICKLY = " ".join(
    ["--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters"]
    + [f"--{name}={str(value).lower()}" for name, value in QUICK_OPTIONS.items()]
)


def compiler_flags() -> str:
    """What whoever starts the tests has set."""
    return os.environ.get("XLA_FLAGS", "").removeprefix(QUICKLY).strip()


def environment(devices: int | None = None, *, quickly: bool = True, **variables: object) -> dict[str, str]:
    """For another process, which can import the package and compiles quickly, unless it is to run as users' do."""
    flags = [QUICKLY] * quickly + [compiler_flags()]
    if devices is not None:
        flags.append(f"--xla_force_host_platform_device_count={devices}")  # of two that disagree, the last one holds
    of_tests = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": " ".join(flags).strip()}
    return os.environ | of_tests | {name: str(value) for name, value in variables.items()}
