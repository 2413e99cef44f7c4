"""The lock on a folder: one at a time, for as long as its process lives."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from dfm_jax.errors import UserError
from dfm_jax.runs import lock

HOLD = """
import pathlib, sys, time
from dfm_jax.runs.lock import locked
assert 'jax' not in sys.modules
with locked(pathlib.Path(sys.argv[1]), "training", "wait"):
    print("held", flush=True)
    time.sleep(100)
"""


def locked(folder, **arguments):
    return lock.locked(folder, "sampling", "give another --workdir", **arguments)


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_at_once_and_told_by_whom(other, tmp_path):
    with pytest.raises(UserError) as error, locked(tmp_path):
        pass
    message = str(error.value)
    assert f"{tmp_path} is in use: process {other.pid} on {lock.socket.gethostname()} has been training" in message
    assert message.endswith("give another --workdir")


def test_a_killed_process_holds_nothing(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == other.pid
    with locked(tmp_path):
        assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == os.getpid()


def test_it_ends_with_its_block_and_leaves_nothing(tmp_path):
    folder = tmp_path / "new"
    for _ in range(2):
        with locked(folder):
            with pytest.raises(UserError, match="is in use"), locked(folder):
                pass
            assert (folder / lock.FILE).exists()
        assert not folder.exists()
    with locked(folder):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_one_that_another_has_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    flock, calls = fcntl.flock, []

    def flock_a_file_that_is_gone(file, how):
        if not calls:
            (tmp_path / lock.FILE).unlink()
        calls.append(file)
        flock(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock_a_file_that_is_gone)
    with locked(tmp_path):
        assert len(calls) == 2
        with pytest.raises(UserError, match="is in use"), locked(tmp_path):
            pass


@pytest.fixture
def without_flock(monkeypatch):
    """A file system that has no locks, and quick hearts."""

    def flock(*_):
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "STALE_SECONDS", 30.0)
    monkeypatch.setattr(lock, "SETTLE_SECONDS", 0.01)


def left_behind(folder, **changes):
    holder = lock.Holder("far", 1, "yesterday", "training", "another machine", "token")
    (folder / lock.FILE).write_text(json.dumps(lock.dataclasses.asdict(holder) | changes))


def test_without_the_systems_lock_a_living_heart_is_seen(without_flock, tmp_path):
    refused = pytest.raises(UserError, match=f"process {os.getpid()} on .* has been sampling")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    assert not (tmp_path / lock.FILE).exists()


def test_one_whose_heart_stands_still_is_taken_over_and_its_holder_hears_of_it(
    without_flock, tmp_path, monkeypatch, capsys
):
    lost, told = [], threading.Event()
    with locked(tmp_path, lost=lambda message: (lost.append(message), told.set())):
        left_behind(tmp_path)  # as if it had been taken over
        assert told.wait(30)
    assert "was taken over: process 1 on far has been training there since yesterday" in lost[0]
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.2)
    with locked(tmp_path):
        assert json.loads((tmp_path / lock.FILE).read_text())["pid"] == os.getpid()
    assert "waiting up to" in capsys.readouterr().err


def test_a_dead_process_of_this_machine_is_not_waited_for(without_flock, tmp_path, capsys):
    dead = subprocess.Popen(["true"])
    dead.wait()
    left_behind(tmp_path, pid=dead.pid, machine=lock._machine())
    with locked(tmp_path):
        pass
    assert not capsys.readouterr().err


def test_in_a_bucket_the_heart_alone_tells(without_flock, tmp_path):
    def in_a_bucket():
        made = lock.Lock(tmp_path, "training", "give another --workdir", pytest.fail)
        made._remote = True  # as its address says, of a path that is no local one
        return made

    first = in_a_bucket()
    first.acquire()
    with pytest.raises(UserError, match=f"process {os.getpid()} on .* has been training"):
        in_a_bucket().acquire()
    first.release()
    assert not (tmp_path / lock.FILE).exists()
    second = in_a_bucket()
    second.acquire()
    second.release()


def test_the_systems_lock_is_not_trusted_on_a_shared_disk(monkeypatch, tmp_path):
    monkeypatch.setattr(lock, "_is_on_a_local_disk", lambda _: False)
    monkeypatch.setattr(lock, "STALE_SECONDS", 30.0)
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    beating = threading.Event()

    def beat():
        for number in range(1000):
            left_behind(tmp_path, beat=number)
            if beating.wait(0.05):
                return

    left_behind(tmp_path)
    heart = threading.Thread(target=beat)
    heart.start()
    with pytest.raises(UserError, match="process 1 on far has been training"), locked(tmp_path):
        pass
    beating.set()
    heart.join()
    monkeypatch.setattr(lock, "STALE_SECONDS", 0.2)
    with locked(tmp_path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="/sys can be written by nobody")
def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file" / "run", lock.pathlib.Path("/sys/run")):
        with pytest.raises(UserError, match=r"cannot be written .*give a --workdir"), locked(folder):
            pass
