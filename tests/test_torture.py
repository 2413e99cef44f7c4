"""Twenty times, a run on toy is killed at a random moment and started again: it must end in the same bits.

Minutes long: `make test-torture`.
"""

import os
import random
import signal
import socket
import time

import numpy as np
import pytest

from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.training.interruptions import EXIT_RESTART
from tests.test_resume import DFM, start

pytestmark = [pytest.mark.slow, pytest.mark.torture]

KILLS = 20
# By the number of processes: more steps than so many kills need, and steps from save to save. Two are slower.
NUM_STEPS, CHECKPOINT_EVERY = {1: 600, 2: 120}, {1: 3, 2: 1}
SETTINGS = {
    "train.log_every": 50,
    "train.keep_checkpoints": 3,
}


def start_all(folder, workdir, processes, checkpoint_every):
    """One process of one device, or two of two devices each, over which the parameters are split."""
    settings = SETTINGS | {"train.num_steps": NUM_STEPS[processes], "train.checkpoint_every": checkpoint_every}
    if processes == 1:
        return [start(folder, workdir, config=DFM, quickly=False, **settings)]
    settings |= {"model.encoder.width": 128, "train.mesh.data": 1, "train.mesh.fsdp": -1}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    place = lambda i: (f"--coordinator={address}", f"--num_processes={processes}", f"--process_id={i}")
    return [
        start(folder, workdir, *place(i), devices=2, config=DFM, quickly=False, **settings) for i in range(processes)
    ]


def finish_all(processes):
    for process in processes:
        _, errors = process.communicate(timeout=1200)
        assert process.returncode == 0, errors


def last_step(workdir):
    return max((int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdecimal()), default=0)


def saving(workdir):
    return any("tmp" in path.name for path in (workdir / "checkpoints").iterdir())


def wait_for_progress(processes, workdir, since, chance):
    """Until steps were saved; then until a save is under way, or for a while."""
    end = time.monotonic() + 600
    while last_step(workdir) <= since:
        assert time.monotonic() < end, "the run does not go on"
        assert processes[0].poll() is None, "the run ended by itself"
        time.sleep(0.01)
    if chance.random() < 0.5:
        while not saving(workdir) and processes[0].poll() is None and time.monotonic() < end:
            time.sleep(0.0005)
        return True
    time.sleep(chance.uniform(0, 0.5))
    return False


def kill(processes, how, chance):
    """Sends the signal to one process or to all of them; what waits for one that is gone, is ended as a launcher does.
    Returns the exit codes."""
    for process in processes if chance.random() < 0.5 else [chance.choice(processes)]:
        process.send_signal(how)
    if how == signal.SIGKILL:
        time.sleep(0.2)
        for process in processes:
            process.kill()
    return [process.wait(timeout=600) for process in processes]


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_twenty_times_it_ends_in_the_same_bits(processes, tmp_path):
    num_steps = NUM_STEPS[processes]
    finish_all(start_all(tmp_path, "whole", processes, num_steps))
    seed = int.from_bytes(os.urandom(4), "big")  # any moments must do; this says which they were
    chance, told, workdir = random.Random(seed), [], tmp_path / "killed"
    for _ in range(KILLS):
        before = last_step(workdir)
        running = start_all(tmp_path, "killed", processes, CHECKPOINT_EVERY[processes])
        during_save = wait_for_progress(running, workdir, before, chance)
        how = chance.choice([signal.SIGKILL, signal.SIGTERM])
        codes = kill(running, how, chance)
        print(f"{how.name} at step {last_step(workdir)}{', saving' if during_save else ''}: exit codes {codes}")
        told.append((how.name, "saving" if during_save else "", last_step(workdir)))
        assert how == signal.SIGKILL or set(codes) == {EXIT_RESTART}, (seed, told, codes)
    assert last_step(workdir) < num_steps, f"too few steps for {KILLS} kills: {told}"
    finish_all(start_all(tmp_path, "killed", processes, num_steps))
    print(f"seed {seed}: {told}")
    for which in ("params", "ema"):
        ours, theirs = (restore_params(tmp_path / name, which) for name in ("killed", "whole"))
        assert ours[1] == theirs[1] == num_steps
        same = [np.array_equal(a, b) for a, b in zip(*map(leaves, (ours[0], theirs[0])), strict=True)]
        assert all(same), (seed, told)


def leaves(tree):
    return [leaf for value in tree.values() for leaf in (leaves(value) if isinstance(value, dict) else [value])]
