"""`pytest --processor-times=N` ends with the N tests that took most processor time, with what they started.

Unlike `--durations`, what else the machine does hardly changes that.
"""

import os
import pathlib
from multiprocessing import forkserver

import pytest

WORKER = "processor_seconds"  # in what a worker of xdist sends at its end


def pytest_addoption(parser):
    parser.addoption(
        "--processor-times", type=int, default=0, metavar="N", help="show the N tests that took most processor time"
    )


class ProcessorTimes:
    """Keeps what each phase of each test took; workers of xdist send it with their reports."""

    def __init__(self, count: int):
        self._count = count
        self._tests: dict[str, float] = {}
        self._collected: list[float] = []
        self._last = 0.0

    def _lap(self) -> float:
        now = processor_seconds()
        lap, self._last = now - self._last, now
        return lap

    def pytest_collection_finish(self, session):
        if session.items:
            self._collected.append(self._lap())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self):
        report = yield
        report.processor_seconds = self._lap()
        return report

    def pytest_runtest_logreport(self, report):
        self._tests[report.nodeid] = self._tests.get(report.nodeid, 0.0) + report.processor_seconds

    def pytest_sessionfinish(self, session):
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[WORKER] = self._collected

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        self._collected += getattr(node, "workeroutput", {}).get(WORKER, [])

    def pytest_terminal_summary(self, terminalreporter):
        files: dict[str, float] = {}
        for name, seconds in self._tests.items():
            file = name.split("::")[0]
            files[file] = files.get(file, 0.0) + seconds
        sums = {"importing and collecting": sum(self._collected), "tests": sum(self._tests.values())}
        for title, rows in (("together", sums), ("files", files), ("tests", self._tests)):
            terminalreporter.section(f"processor time of {title}, in seconds")
            for name, seconds in sorted(rows.items(), key=lambda row: -row[1])[: self._count]:
                terminalreporter.write_line(f"{seconds:8.2f} {name}")


def processor_seconds() -> float:
    """Of this process, of its children that have ended, and of commands that were forked for tests."""
    return sum(os.times()[:4]) + _of_server(forkserver._forkserver._forkserver_pid)


def _of_server(pid: int | None) -> float:
    """What the process that commands are forked from has taken, with those that have ended; 0 where it is not said."""
    path = pathlib.Path(f"/proc/{pid}/stat")
    if pid is None or not path.exists():
        return 0.0
    ticks = path.read_text().rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
