"""How fast the published sizes run on the accelerator that is here, beside the yardstick in PyTorch.

    python -m dfm_jax.profiling.gpu_report [--out=runs/gpu_report] [--time=480] [--only=NAME ...] [--sizes=tiny]

Measures a plan (`measurement_plan.py`), the most wanted first, until it is through or the time is up. Each measurement
has its own limit; what runs out of memory, crashes or hangs is a line of the result. `results.json` in --out is written
after every number, and the same command resumes from it. Beside it: `index.html`, and `gpu.md` with the same tables;
--docs=FILE puts them into a Markdown file between two marks.

--only takes a part of names, any number of times, and measures those again. --yardstick names the yardstick's file
(without: left out), --fixtures the folder of the published code's numbers that tests compare with. --page_only measures
nothing.
"""

import argparse
import dataclasses
import json
import logging
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from dfm_jax.errors import Parser, UserError
from dfm_jax.profiling import gpu_page
from dfm_jax.profiling.device_name import device_name
from dfm_jax.profiling.measurement_plan import JAX, PYTORCH, SIZES, TESTS, Wave, make_plan, measurements
from dfm_jax.profiling.worker_process import run_process
from dfm_jax.runs import log

logger = logging.getLogger(__name__)

SECONDS = 480.0
YARDSTICK_FILE = ".gpu/baseline/torch_baseline.py"
FIXTURES = ".gpu/fixtures"
OTHER_SECONDS = 5.0  # kept for the page


class Report:
    """What is measured, and the file that holds it."""

    def __init__(self, folder: pathlib.Path, sizes: str, card: str):
        self.folder, self.path = folder, folder / "results.json"
        self.began = time.monotonic()
        new = {"card": card, "sizes": sizes, "device": {}, "results": {}, "events": []}
        self.data: dict[str, Any] = json.loads(self.path.read_text()) if self.path.exists() else new
        if (self.data["card"], self.data["sizes"]) != (card, sizes):
            old = self.path.rename(folder / f"results_before_{int(time.time())}.json")
            logger.info(f"{self.path} is of {self.data['card']}, sizes {self.data['sizes']}: kept as {old.name}")
            self.data = new
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def results(self) -> dict[str, Any]:
        return self.data["results"]

    def take(self, event: Mapping[str, Any]) -> None:
        """Keeps what a process tells, and says it."""
        at = time.monotonic() - self.began
        match event:
            case {"event": "device"}:
                self.data["device"] = {k: v for k, v in event.items() if k != "event"}
            case {"event": "result" | "partial", "name": name, "numbers": numbers}:
                self.results[name] = numbers
                if event["event"] == "result":
                    logger.info(f"[{at:4.0f} s] {name}: {gpu_page.in_short(numbers)}")
            case {"event": "compiling", "names": names}:
                logger.info(f"[{at:4.0f} s] compiling {len(names)} programs")
            case {"event": "compiled", "name": name}:
                logger.info(f"[{at:4.0f} s] compiled {name}")
        if event["event"] != "partial":
            self.data["events"].append([round(at, 1), event["event"], event.get("name", "")])
        self.write()

    def write(self) -> None:
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.data, indent=1) + "\n")
        part.replace(self.path)


def measure(report: Report, plan: Sequence[Wave], seconds: float, arguments: argparse.Namespace) -> None:
    """Measures what has no result yet.

    Processes are started anew after one that did not end well, without what it was at.
    """
    deadline = report.began + seconds - OTHER_SECONDS
    left_s = lambda: deadline - time.monotonic()
    while left_s() > 0:
        waves = next_process(plan, report.results)
        if not waves:
            return
        names = [m.name for m in measurements(waves)]
        command = _command(waves[0].process, names, report, arguments)
        if isinstance(command, str):
            report.results.update({name: {"failed": command} for name in names})
            continue
        for name, result in run_process(command, waves, left_s, report.take).items():
            if left_s() > 0 or set(result) != {"failed"}:  # what the time did not reach has no result
                report.take({"event": "result", "name": name, "numbers": result})
        if left_s() > 0 and not any(name in report.results for name in names):
            why = "the process that measures this ended before it began; its messages say why"
            report.results.update({name: {"failed": why} for name in names})


def next_process(plan: Sequence[Wave], results: Mapping[str, Any]) -> list[Wave]:
    """The next waves of one kind of process, with what has no result."""
    waves: list[Wave] = []
    for wave in plan:
        left = tuple(m for m in wave.measurements if m.name not in results)
        if not left:
            continue
        if waves and wave.process != waves[0].process:
            break
        waves.append(Wave(wave.process, left, wave.compile_limit_s))
    return waves


def _command(process: str, names: Sequence[str], report: Report, arguments: argparse.Namespace) -> list[str] | str:
    """What starts the process, or why there is none."""
    first = {JAX: report.path, PYTORCH: arguments.yardstick, TESTS: arguments.fixtures}[process]
    if process == PYTORCH and not os.path.exists(first):
        return f"there is no yardstick: {first} is missing"
    return [sys.executable, "-m", f"dfm_jax.profiling.{process}", str(first), arguments.sizes, *names]


def _environment() -> None:
    """Of all processes: programs are compiled once; none of them takes half of the memory for itself for nothing."""
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(home) / "dfm_jax" / "compiled"))
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")


def _parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="runs/gpu_report", type=pathlib.Path)
    parser.add_argument("--time", default=SECONDS, type=float, metavar="SECONDS", help="for all measurements")
    parser.add_argument("--only", default=[], action="append", metavar="NAME", help="part of names to measure again")
    parser.add_argument("--sizes", default="published", choices=SIZES)
    parser.add_argument("--yardstick", default=YARDSTICK_FILE, metavar="FILE")
    parser.add_argument("--fixtures", default=FIXTURES, metavar="FOLDER")
    parser.add_argument("--page_only", action="store_true")
    parser.add_argument("--docs", default="", metavar="FILE", help="Markdown file to put the tables into")
    return parser


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, writes the pages, and returns the results.

    Raises:
      UserError: there is nothing to do.
    """
    data = _stored(arguments.out / "results.json") if arguments.page_only else _measured(arguments)
    plan = make_plan(SIZES[data["sizes"]])
    gpu_page.write(arguments.out, data, plan)
    if arguments.docs:
        gpu_page.insert(pathlib.Path(arguments.docs), data, plan)
    return data


def _stored(path: pathlib.Path) -> dict[str, Any]:
    if not path.exists():
        raise UserError(f"{path} does not exist: measure first, without --page_only")
    return json.loads(path.read_text())


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    parts = arguments.only
    fits = lambda name: not parts or any(part in name for part in parts)
    plan = [
        dataclasses.replace(wave, measurements=tuple(m for m in wave.measurements if fits(m.name)))
        for wave in make_plan(SIZES[arguments.sizes])
    ]
    names = [m.name for m in measurements(plan)]
    if not names:
        raise UserError(f"--only={' --only='.join(parts)}: no measurement has that in its name")
    _environment()
    made = Report(arguments.out, arguments.sizes, device_name())
    if parts:
        made.data["results"] = {name: numbers for name, numbers in made.results.items() if name not in names}
    measure(made, plan, arguments.time, arguments)
    made.write()
    return made.data


@log.command
def main(argv: Sequence[str]) -> int:
    arguments = _parser().parse_args(argv)
    data = report(arguments)
    print((arguments.out / "gpu.md").read_text())
    logger.info(f"look at {arguments.out / 'index.html'}")
    print(json.dumps({"card": data["card"], "measured": len(data["results"])}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
