"""Two processes with two devices each train as one process with one device does; a checkpoint of one is the other's."""

import shutil
import socket

import jax
import numpy as np
import pytest

from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.metric_writers import read_metrics
from tests.programs import Command, environment

STEPS, HALF = 6, 3


def start(workdir, num_steps, data, fsdp, devices, *place):
    return Command("tests.wide_run", workdir, num_steps, data, fsdp, *place, env=environment(devices))


def finish(*processes):
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors


def one(workdir, num_steps):
    finish(start(workdir, num_steps, 1, 1, 1))


def two(workdir, num_steps, data, fsdp):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    finish(*(start(workdir, num_steps, data, fsdp, 2, address, 2, i) for i in range(2)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Workdirs of one process: of all steps, and of half of them."""
    folder = tmp_path_factory.mktemp("alone")
    one(folder / "half", HALF)
    shutil.copytree(folder / "half", folder / "whole")
    one(folder / "whole", STEPS)
    return folder


def assert_same(workdir, other):
    """All parameters and averages, as vectors, within 3e-4 of their length. Where a gradient is within its rounding of
    zero, Adam takes the first step in either direction: 2e-3 of a length of 32, for one or two of 65536 parameters. A
    row of the batch that is missing turns one step in ten around, which is fifty times as much."""
    for which in ("params", "ema"):
        ours, theirs = (restore_params(path, which)[0] for path in (workdir, other))
        flat = lambda tree: np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)])
        difference = np.linalg.norm(flat(ours) - flat(theirs)) / np.linalg.norm(flat(theirs))
        assert difference < 3e-4, difference


@pytest.mark.parametrize(
    ("data", "fsdp"), [(1, 4), pytest.param(4, 1, marks=pytest.mark.slow), pytest.param(2, 2, marks=pytest.mark.slow)]
)
def test_two_processes_train_as_one(data, fsdp, alone, tmp_path):
    if (data, fsdp) == (2, 2):
        # From a checkpoint of two processes: split over both devices of each of them, and taken up by one.
        two(tmp_path / "run", HALF, data, fsdp)
        one(tmp_path / "run", STEPS)
    else:
        # From a checkpoint of one process, split in four or not at all.
        shutil.copytree(alone / "half", tmp_path / "run")
        two(tmp_path / "run", STEPS, data, fsdp)
    assert_same(tmp_path / "run", alone / "whole")
    lines, expected = (read_metrics(path) for path in (tmp_path / "run", alone / "whole"))
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    for line, other in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)  # after the steps that `assert_same` tells of
    # One process draws and writes for both.
    assert (tmp_path / "run" / "images" / "samples" / f"{STEPS:08d}.png").exists()
