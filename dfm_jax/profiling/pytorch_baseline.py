"""A process of the GPU report that measures the yardstick: the published computation in plain PyTorch, from its file.

python -m dfm_jax.profiling.pytorch_baseline FILE SIZES NAME ...
"""

import contextlib
import importlib.util
import io
import json
import pathlib
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

from dfm_jax.profiling.measure import describe
from dfm_jax.profiling.measurement_plan import PYTORCH, SIZES, make_plan
from dfm_jax.profiling.worker_events import emit, take_standard_output


def load(path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("yardstick_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(
    yardstick: types.ModuleType, runs: int, *, what: str, size: int, precision: str, full: bool = False
) -> dict[str, Any]:
    """One of its functions, which print their numbers."""
    cuda = yardstick.torch.cuda
    if cuda.is_available():
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        getattr(yardstick, what)(size, runs, precision, full)
    numbers = json.loads(printed.getvalue().splitlines()[-1])
    seconds = next(value for key, value in numbers.items() if key.endswith("_step_s"))
    peak = next(value for key, value in numbers.items() if key.startswith("peak_"))
    return {"seconds": seconds, "peak_bytes": peak * 1e9, "runs": runs}


def step_of(yardstick: types.ModuleType, what: str, size: int) -> Callable[[], Any]:
    """What one of its functions times, in float32, to be run by the caller."""
    held: list[Callable[[], Any]] = []

    def hold(step: Callable[[], Any], runs: int) -> float:
        held.append(step)
        return 0.0

    yardstick.median_time = hold
    with contextlib.redirect_stdout(io.StringIO()):
        getattr(yardstick, what)(size, 1, "fp32", False)
    return held[0]


def main(arguments: Sequence[str]) -> int:
    take_standard_output()
    path, size, *names = arguments
    yardstick = load(pathlib.Path(path))
    yardstick.torch.set_default_device("cuda" if yardstick.torch.cuda.is_available() else "cpu")
    for wave in make_plan(SIZES[size]):
        for m in wave.measurements:
            if wave.process != PYTORCH or m.name not in names:
                continue
            emit("begin", name=m.name)
            try:
                numbers = call(yardstick, SIZES[size].rounds, **m.settings)
            except Exception as error:  # out of memory, for one
                numbers = {"failed": describe(error)}
            emit("result", name=m.name, numbers=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
