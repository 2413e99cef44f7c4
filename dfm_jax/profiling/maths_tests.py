"""A process of the GPU report that runs tests of the maths on the device, several at once.

python -m dfm_jax.profiling.maths_tests FIXTURES SIZES NAME ...
"""

import os
import pathlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dfm_jax.profiling.device_name import device_name
from dfm_jax.profiling.measurement_plan import SIZES, TESTS, make_plan
from dfm_jax.profiling.worker_events import emit, take_standard_output

ROOT = pathlib.Path(__file__).resolve().parents[2]
AT_ONCE = 8
VERDICT = re.compile(r"(PASSED|FAILED|ERROR|SKIPPED|XFAIL)\b")
NAMED = re.compile(r"tests/\S+\.py::\S.*?(?= (?:PASSED|FAILED|ERROR|SKIPPED|XFAIL)| - |\s*$|\s+\[)")


def run(files: Sequence[str], fixtures: str) -> Iterable[dict[str, Any]]:
    """The numbers so far, after every test: a cut leaves what was tested."""
    at_once = min(AT_ONCE, os.cpu_count() or 1)
    command = [sys.executable, "-m", "pytest", "-v", "-rN", "--tb=line", "-p", "no:cacheprovider"]
    command += [f"--numprocesses={at_once}"] if at_once > 1 else []
    environment = (
        {"JAX_PLATFORMS": "cpu" if device_name() == "CPU" else "cuda"}
        | os.environ
        | {
            # Some devices multiply in TF32 unless told otherwise; what is tested here is exact.
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "DFM_JAX_FIXTURES": str(pathlib.Path(fixtures).resolve()),
        }
    )
    paths = [str(ROOT / "tests" / f"{name}.py") for name in files]
    process = subprocess.Popen(
        [*command, *paths], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
    )
    counts: Counter[str] = Counter()
    bad, tail = [], []
    for line in process.stdout:
        tail = [*tail, line.rstrip()][-60:]
        verdict, name = VERDICT.search(line), NAMED.search(line)
        if not verdict or not name or "::" not in line:
            continue
        counts[verdict[1].lower()] += 1
        if verdict[1] in ("FAILED", "ERROR"):
            bad.append(name[0])
        yield {"counts": dict(counts), "not_passed": bad}
    process.wait()
    yield {
        "counts": dict(counts),
        "not_passed": bad,
        "code": process.returncode,
        "tail": tail if bad or not counts else [],
    }


def main(arguments: Sequence[str]) -> int:
    take_standard_output()
    fixtures, size, *names = arguments
    for wave in make_plan(SIZES[size]):
        for m in wave.measurements:
            if wave.process == TESTS and m.name in names:
                emit("begin", name=m.name)
                numbers: dict[str, Any] = {}
                for numbers in run(m.settings["files"], fixtures):
                    emit("partial", name=m.name, numbers=numbers)
                emit("result", name=m.name, numbers=numbers)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
