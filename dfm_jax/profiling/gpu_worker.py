"""A process of the GPU report that measures in jax. It is started by `gpu_report.py`, and tells it by events.

python -m dfm_jax.profiling.gpu_worker RESULTS.json SIZES NAME ...
"""

import json
import os
import pathlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax

from dfm_jax import platforms
from dfm_jax.errors import UserError
from dfm_jax.profiling.measure import describe
from dfm_jax.profiling.measurement_plan import JAX, SIZES, Measurement, make_plan
from dfm_jax.profiling.session import Session, Task
from dfm_jax.profiling.tasks import TASKS
from dfm_jax.profiling.worker_events import emit, take_standard_output
from dfm_jax.runs import log

COMPILED_AT_ONCE = 8


def work(session: Session, wave: Sequence[Measurement]) -> None:
    """Compiles all of a wave, then measures one after the other."""
    emit("compiling", names=[m.name for m in wave])
    tasks, ready = {}, {}
    for m in wave:
        try:
            tasks[m.name] = TASKS[m.kind](session, m.name, **m.settings)
        except Exception as error:  # whatever it is, the others are to be measured
            _failed(session, m.name, error)
    with ThreadPoolExecutor(min(COMPILED_AT_ONCE, os.cpu_count() or 1)) as pool:
        futures = {pool.submit(task.compile): name for name, task in tasks.items()}
        for future in as_completed(futures):
            name = futures[future]
            try:
                ready[name] = future.result()
            except Exception as error:
                _failed(session, name, error)
            else:
                emit("compiled", name=name)
    for m in wave:
        if m.name in ready:
            _measure(session, m.name, tasks[m.name], ready[m.name])


def _measure(session: Session, name: str, task: Task, compiled: Any) -> None:
    emit("begin", name=name)
    try:
        numbers = task.run(compiled)
    except Exception as error:
        _failed(session, name, error)
        return
    session.results[name] = numbers
    emit("result", name=name, numbers=numbers)


def _failed(session: Session, name: str, error: Exception) -> None:
    session.results[name] = {"failed": describe(error)}
    emit("result", name=name, numbers=session.results[name])


def device() -> dict[str, Any]:
    """The first device, and the versions that matter."""
    first = jax.local_devices()[0]
    stats = first.memory_stats() or {}
    return {
        "kind": first.device_kind,
        "platform": first.platform,
        "memory_bytes": stats.get("bytes_limit"),
        "jax": jax.__version__,
        "platform_version": " ".join(first.client.platform_version.split()),
    }


def main(arguments: Sequence[str]) -> int:
    take_standard_output()
    log.to_terminal()
    path, size, *names = arguments
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        raise UserError("this is started by dfm_jax.profiling.gpu_report")
    platforms.start()
    emit("device", **device())
    known = json.loads(pathlib.Path(path).read_text())["results"] if os.path.exists(path) else {}
    session = Session(SIZES[size], known)
    for wave in make_plan(session.sizes):
        chosen = [m for m in wave.measurements if m.name in names]
        if chosen and wave.process == JAX:
            work(session, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
