"""Damaged files of every kind that a command reads: one clear error or a quarantine, never a traceback, a crash, a hang
or a frame that disappears."""

import importlib.util
import json
import subprocess
import sys
import zlib

import pytest

from tests.fuzzing.runs import ROOT
from tests.fuzzing.targets import TARGETS, WITH_TORCH

TRIES = 20  # of each of the targets: more than 300 in all


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_survived(name):
    if name in WITH_TORCH and importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: nothing here can write its files")
    command = [sys.executable, "-m", "tests.fuzzing.run", name, str(zlib.crc32(name.encode())), str(TRIES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    damages = {line["try"]: line["damage"] for line in lines if "damage" in line}
    results = {line["try"]: line["problem"] for line in lines if "problem" in line}
    problems = [f"try {i}, {damages[i]}: {problem}" for i, problem in results.items() if problem]
    if len(results) < TRIES:  # the process is gone
        last = f"try {len(results)}, {damages.get(len(results))}" if damages else "at its start"
        problems.append(f"{last}: exit code {done.returncode}: {done.stderr[-3000:]}")
    assert not problems, "\n\n".join(problems)
