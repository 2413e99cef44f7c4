"""Measuring processes that crash, hang or run out of time."""

import sys
import time
import types

import pytest

from dfm_jax.profiling import gpu_report, worker_process
from dfm_jax.profiling.measurement_plan import (
    JAX,
    PYTORCH,
    TESTS,
    TINY,
    Measurement,
    Wave,
    make_plan,
    measurements,
)

BEGIN = "import json, os, time\ndef emit(**x): print(json.dumps(x), flush=True)\n"


def run_python(code, waves, seconds=20.0):
    results = {}

    def take(event):
        if event["event"] == "result":
            results[event["name"]] = event["numbers"]

    deadline = time.monotonic() + seconds
    command = [sys.executable, "-c", BEGIN + code]
    ended = worker_process.run_process(command, waves, lambda: deadline - time.monotonic(), take)
    return results, ended


def waves_of(*names, limit_s=20.0):
    return [Wave(JAX, tuple(Measurement(name, "copy", {}, limit_s) for name in names), compile_limit_s=limit_s)]


def test_a_crash_is_blamed_on_what_was_running():
    code = """print("noise")
emit(event="begin", name="a"); emit(event="result", name="a", numbers={"seconds": 1})
emit(event="begin", name="b"); os._exit(7)"""
    results, ended = run_python(code, waves_of("a", "b", "c"))
    assert results == {"a": {"seconds": 1}}
    assert ended == {"b": {"failed": "measuring: the process ended with code 7"}}


def test_what_runs_past_its_limit_is_ended_and_keeps_its_numbers_so_far():
    code = """emit(event="begin", name="a")
emit(event="partial", name="a", numbers={"counts": 3}); time.sleep(60)"""
    began = time.monotonic()
    _, ended = run_python(code, waves_of("a", limit_s=1.0))
    assert ended == {"a": {"counts": 3, "failed": "measuring: took longer than 1 s"}}
    assert time.monotonic() - began < 50


def test_what_does_not_compile_in_time_is_blamed_alone():
    code = """emit(event="compiling", names=["a", "b"])
emit(event="compiled", name="a"); time.sleep(60)"""
    _, ended = run_python(code, waves_of("a", "b", limit_s=1.0))
    assert list(ended) == ["b"] and "compiling: took longer" in ended["b"]["failed"]


@pytest.fixture
def faked(tmp_path, monkeypatch):
    """A report whose processes are told what to do by name: the events of each measurement that they meet."""
    worker = """import sys
for name in sys.argv[1:]:
    emit(event="begin", name=name)
    if name == "crashes": os._exit(3)
    if name == "hangs": time.sleep(60)
    emit(event="result", name=name, numbers={"seconds": 1.0})"""
    monkeypatch.setattr(
        gpu_report, "_command", lambda process, names, *_: [sys.executable, "-c", BEGIN + worker, *names]
    )
    return gpu_report.Report(tmp_path / "out", "tiny", "CPU")


def test_the_others_are_measured_and_nothing_twice(faked):
    plan = [*waves_of("a", "crashes", "b", "hangs", limit_s=2.0), *waves_of("c")]
    gpu_report.measure(faked, plan, 60.0, None)
    assert list(faked.results) == ["a", "crashes", "b", "hangs", "c"]
    assert "code 3" in faked.results["crashes"]["failed"] and "longer than 2 s" in faked.results["hangs"]["failed"]
    stored = gpu_report.Report(faked.folder, "tiny", "CPU")
    assert stored.results == faked.results
    assert gpu_report.next_process(plan, stored.results) == []


def test_what_the_time_does_not_reach_is_left_for_the_next_run(faked):
    plan = waves_of("a", "hangs", "b")
    gpu_report.measure(faked, plan, gpu_report.OTHER_SECONDS + 3.0, None)
    assert list(faked.results) == ["a"]
    assert [m.name for m in gpu_report.next_process(plan, faked.results)[0].measurements] == ["hangs", "b"]


def test_results_of_another_card_are_kept_apart(faked):
    faked.results["a"] = {"seconds": 1}
    faked.write()
    other = gpu_report.Report(faked.folder, "tiny", "NVIDIA H200")
    assert other.results == {} and len(list(faked.folder.glob("results_before_*.json"))) == 1


def test_waves_of_one_process_that_follow_each_other_share_it():
    plan = [Wave(kind, (Measurement(f"{kind} {i}", "", {}),)) for i, kind in enumerate((JAX, JAX, TESTS, JAX))]
    first = gpu_report.next_process(plan, {})
    assert [m.name for m in measurements(first)] == [f"{JAX} 0", f"{JAX} 1"]


def test_mistakes_are_one_clear_line(tmp_path, capsys):
    assert gpu_report.main([f"--out={tmp_path}", "--only=nothing like this"]) == 1
    assert gpu_report.main([f"--out={tmp_path}", "--page_only"]) == 1
    assert gpu_report.main(["--sizes=huge"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)


def test_without_a_yardstick_there_is_no_comparison_and_a_line_says_so(tmp_path):
    arguments = types.SimpleNamespace(yardstick="nowhere.py", fixtures="", sizes="tiny")
    made = gpu_report.Report(tmp_path, "tiny", "CPU")
    gpu_report.measure(made, [w for w in make_plan(TINY) if w.process == PYTORCH], 30.0, arguments)
    assert made.results and all("nowhere.py is missing" in x["failed"] for x in made.results.values())
