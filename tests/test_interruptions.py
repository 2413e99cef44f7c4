"""What happens to machines, disks and data during a run: one clear error or a stated fallback, nothing lost."""

import contextlib
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.runs import checkpoint_files, checksums, metric_writers
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import TrainState
from dfm_jax.training import loop
from dfm_jax.training.interruptions import SaveSchedule
from dfm_jax.training.stopwatch import Stopwatch, peak_flops
from tests.linear_run import parameters, settings, steps, train
from tests.programs import wait_until


@pytest.fixture
def at():
    """What to do at which batch."""
    return {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The parameters of a run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole")
    train(settings(), workdir)
    return parameters(workdir)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A workdir with the checkpoints of steps 2 and 4, to be copied."""
    workdir = tmp_path_factory.mktemp("half")
    train(settings(num_steps=4), workdir)
    return workdir


# --- damaged checkpoints ----------------------------------------------------------------------------------------------


def largest_file(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a deleted file": lambda step: largest_file(step / "params").unlink(),
    "a flipped bit in the parameters": lambda step: flip_a_bit(largest_file(step / "params" / "d")),
    "a flipped bit in the optimiser's state": lambda step: flip_a_bit(largest_file(step / "opt_state" / "d")),
    "a truncated file": lambda step: os.truncate(largest_file(step / "ema"), 10),
    "a flipped bit in the settings": lambda step: flip_a_bit(largest_file(step / "config")),
    "damaged checksums": lambda step: os.truncate(step / checksums.FILE, 40),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(damage, whole, half, at, tmp_path, capsys):
    shutil.copytree(half, tmp_path / "run")
    assert steps(tmp_path / "run") == [2, 4]
    DAMAGE[damage](tmp_path / "run" / "checkpoints" / "4")
    capsys.readouterr()
    assert train(settings(), tmp_path / "run", at) == loop.EXIT_DONE
    errors = capsys.readouterr().err
    assert "warning: the checkpoint of step 4 is damaged: " in errors
    assert "resuming from step 2" in errors
    assert [path.name for path in (tmp_path / "run" / "damaged").iterdir()] == ["4-1"]
    np.testing.assert_array_equal(parameters(tmp_path / "run"), whole)


def test_if_all_checkpoints_are_damaged_nothing_is_touched(half, at, tmp_path):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    for step in (2, 4):
        flip_a_bit(largest_file(tmp_path / "checkpoints" / str(step) / "params" / "d"))
    with pytest.raises(UserError, match=r"no checkpoint in .* can be read") as error:
        train(settings(), tmp_path, at)
    assert "step 4 is damaged: params/d/" in str(error.value)
    assert "step 2 is damaged: params/d/" in str(error.value)
    assert steps(tmp_path) == [2, 4]


def test_sampling_goes_back_to_the_one_before_and_looks_at_what_it_needs_only(half, tmp_path, capsys):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    flip_a_bit(largest_file(tmp_path / "checkpoints" / "4" / "opt_state" / "d"))
    assert restore_params(tmp_path)[1] == 4
    flip_a_bit(largest_file(tmp_path / "checkpoints" / "4" / "ema" / "d"))
    assert restore_params(tmp_path)[1] == 2
    assert "going back to step 2" in capsys.readouterr().err
    assert steps(tmp_path) == [2, 4]


def test_checkpoints_without_checksums_are_taken_as_they_are(half, at, tmp_path):
    shutil.copytree(half, tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoints" / "4" / checksums.FILE).unlink()
    assert train(settings(), tmp_path, at) == loop.EXIT_DONE
    assert not (tmp_path / "damaged").exists()


def test_checksums_are_those_of_the_files(tmp_path):
    (tmp_path / "item").mkdir()
    (tmp_path / "item" / "file").write_bytes(b"123456789")
    checksums.write(tmp_path)
    assert json.loads((tmp_path / checksums.FILE).read_text()) == {"item/file": [9, 0xCBF43926]}  # CRC-32's check value
    assert checksums.problem(tmp_path) is None
    (tmp_path / "item" / "file").write_bytes(b"123456780")
    assert "has changed since it was saved" in checksums.problem(tmp_path)
    assert checksums.problem(tmp_path, items=("other",)) is None


# --- disks ------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_clear_error_and_the_last_checkpoint_stays(whole, at, tmp_path, monkeypatch):
    write = checksums.write

    def write_if_there_is_room(folder):
        if folder.name.startswith("4"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(folder)

    monkeypatch.setattr(checksums, "write", write_if_there_is_room)
    with pytest.raises(UserError, match=r"step 4 could not be written to .* \(.*No space left on device.*step 2"):
        train(settings(), tmp_path / "run", at)
    assert [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()] == [
        tmp_path / "run" / "checkpoints" / "2"
    ]
    monkeypatch.undo()
    assert train(settings(), tmp_path / "run", at) == loop.EXIT_DONE
    np.testing.assert_array_equal(parameters(tmp_path / "run"), whole)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of its own, of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems may be mounted by root only")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_becomes_full_is_one_clear_error_and_the_run_goes_on_when_there_is_room(
    whole, at, small_disk, capsys
):
    filling = small_disk / "filling"

    def fill():
        wait_until((small_disk / "run" / "checkpoints" / "2").is_dir)
        with contextlib.suppress(OSError), filling.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    at[2] = fill  # after the checkpoint of step 2
    with pytest.raises(UserError, match=r"could not be written to .*No space left on device.*see that the disk"):
        train(settings(), small_disk / "run", at)
    assert checkpoint_files.steps(small_disk / "run" / "checkpoints") == [2]
    at.clear()
    with pytest.raises(UserError, match=r"cannot be written .*No space left on device"):
        train(settings(), small_disk / "run", at)
    filling.unlink()
    assert train(settings(), small_disk / "run", at) == loop.EXIT_DONE
    assert "resuming from step 2" in capsys.readouterr().err
    np.testing.assert_array_equal(parameters(small_disk / "run"), whole)


def test_numbers_that_cannot_be_written_are_one_error_without_a_traceback(tmp_path, monkeypatch, capfd):
    writer = metric_writers.TensorBoardWriter(tmp_path)

    def fail(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer._records._writer, "write", fail)
    writer.write_scalars(1, {"loss": 1.0})  # in the background
    wait_until(lambda: writer._records.error)
    with pytest.raises(OSError, match="No space left"):
        writer.write_scalars(2, {"loss": 1.0})
    with pytest.raises(OSError, match="No space left"):
        writer.close()
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="/sys can be written by nobody")
@pytest.mark.parametrize("workdir", ["/sys/run", "file/run"])
def test_a_workdir_that_cannot_be_written_is_one_clear_error_at_once(workdir, at, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot be written .*give a --workdir"):
        train(settings(), tmp_path / workdir, at)


# --- data -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [UserError("shard 3 is gone"), RuntimeError("Traceback ...\nshard 3 is gone")])
def test_if_a_batch_cannot_be_read_what_was_reached_is_saved(error, whole, at, tmp_path, capsys):

    def fail():
        raise error

    at[3] = fail
    with pytest.raises(UserError, match="shard 3 is gone"):
        train(settings(checkpoint_every=100), tmp_path / "run", at)
    assert steps(tmp_path / "run") == [3]
    assert "ended at step 3 of 6: an error" in capsys.readouterr().err
    at.clear()
    train(settings(checkpoint_every=100), tmp_path / "run", at)
    np.testing.assert_array_equal(parameters(tmp_path / "run"), whole)


# --- when to save, and what to keep -----------------------------------------------------------------------------------


def test_time_saves_too_and_begins_anew_with_each_save():
    now = [0.0]
    schedule = SaveSchedule(every=10, minutes=2, ask_every=1, clock=lambda: now[0])
    due = []
    for step in range(1, 31):
        now[0] += 50
        if schedule.due(step):
            due.append(step)
    assert due == [3, 6, 9, 10, 13, 16, 19, 20, 23, 26, 29, 30]
    assert [SaveSchedule(10, 0, 1).due(step) for step in (1, 10)] == [False, True]


def test_a_run_saves_when_the_time_has_come(at, tmp_path):
    train(settings(checkpoint_every=1000, checkpoint_minutes=1e-9, keep_checkpoints=10), tmp_path, at)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def state(value):
    tree = {"w": jnp.full(3, value)}
    return TrainState(step=jnp.int32(0), params=tree, opt_state=tree, ema=tree)


def test_the_last_those_of_every_so_many_steps_and_the_best_stay(tmp_path):
    keep = Retention(latest=1, every=10, best="loss")
    losses = {4: 5.0, 8: 1.0, 11: 3.0, 15: 2.0, 22: 4.0, 25: 6.0}
    for some in ((4, 8, 11), (15, 22, 25)):  # a run in two parts
        with Checkpoints(tmp_path, keep=keep) as store:
            for step in some:
                store.save(step, state(float(step)), settings(), {"loss": losses[step]})
    assert steps(tmp_path) == [8, 11, 22, 25]  # best, first from 10, first from 20, last
    assert not (tmp_path / "damaged").exists()


def test_a_metric_that_there_is_not_is_one_clear_error(at, tmp_path):
    with pytest.raises(UserError, match=r"keep_best='psnr' is no metric; there are: .*loss"):
        train(settings(keep_best="psnr"), tmp_path, at)


def test_a_run_keeps_its_best(at, tmp_path):
    train(settings(num_steps=8, checkpoint_every=1, keep_checkpoints=1, keep_best="loss", log_every=1), tmp_path, at)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["loss"])["step"]
    assert steps(tmp_path) == sorted({best, 8})


# --- where the time goes ----------------------------------------------------------------------------------------------


def test_goodput_is_what_is_left_of_the_time():
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])
    with watch.measure("data"):
        now[0] += 1
    now[0] += 8
    with watch.measure("checkpoints"):
        now[0] += 1
    assert watch.goodput() == pytest.approx(0.8)
    assert watch.shares() == "data 10 %, checkpoints 10 %"
    assert watch.pop_interval() == {"data": 1, "checkpoints": 1}
    assert watch.pop_interval() == {}


def test_a_run_logs_where_its_time_goes_and_ends_with_one_line(at, tmp_path, capsys):
    train(settings(), tmp_path, at)
    last = json.loads((pathlib.Path(tmp_path) / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["data_wait"] <= 1
    assert last["checkpoint_seconds"] >= 0
    assert last["host_memory_gib"] > 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("ended at step 6 of 6: all steps are done; ")
    assert "goodput " in line


def test_devices_have_a_peak_or_none():
    assert jax.local_devices()[0].platform != "cpu" or peak_flops(1) is None
