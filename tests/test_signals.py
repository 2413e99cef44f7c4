"""Signals, and steps that hang."""

import os
import signal
import threading
import time

import pytest

from dfm_jax.training import interruptions
from dfm_jax.training.interruptions import EXIT_RESTART, StopRequest, Watchdog
from tests.programs import wait_until


@pytest.fixture
def left():
    """What a run said and with which code it ended at once, where that was asked for."""
    return []


def stop_request(left):
    return StopRequest(leave=lambda message, code: left.append((message, code)))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGHUP, 75), (signal.SIGTERM, 75)])
def test_before_the_first_step_a_run_ends_at_once(number, code, left):
    with stop_request(left):
        os.kill(os.getpid(), number)
        wait_until(lambda: left)
    assert "nothing to save" in left[0][0] and left[0][1] == code


def test_the_second_ctrl_c_ends_at_once_and_only_that(left, monkeypatch):
    monkeypatch.setattr(interruptions, "SAME_PRESS_SECONDS", 0.0)
    with stop_request(left) as stop:
        stop.requested(0)
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: stop.requested(1))
        os.kill(os.getpid(), signal.SIGTERM)  # launchers may repeat it
        time.sleep(0.1)
        assert not left and stop.code == EXIT_RESTART
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: left)
    assert "ended at once" in left[0][0] and left[0][1] == 130


def test_one_ctrl_c_that_comes_twice_is_one(left):
    """A terminal tells all its programs, and one that started another may hand it on."""
    with stop_request(left) as stop:
        stop.requested(0)
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: stop.requested(1))
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
    assert not left and stop.code == 130


def test_a_long_step_is_answered_for(left, capfd, monkeypatch):
    monkeypatch.setattr(interruptions, "QUIET_SECONDS", 0.01)
    with stop_request(left) as stop:
        stop.requested(0)
        os.kill(os.getpid(), signal.SIGINT)
        told = []
        wait_until(lambda: told.append(capfd.readouterr().err) or any("Ctrl-C again ends at once" in x for x in told))


def test_what_nohup_ignores_stays_ignored(left):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request(left) as stop:
            stop.requested(0)
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert not stop.requested(1)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- hanging ----------------------------------------------------------------------------------------------------------


def test_the_watchdog_tells_where_a_run_hangs_and_asks_for_a_restart(tmp_path, capfd):
    codes, hanging = [], threading.Event()

    def hang_in_a_function_with_a_name():
        hanging.wait()

    thread = threading.Thread(target=hang_in_a_function_with_a_name)
    thread.start()
    with Watchdog(0.001, tmp_path, leave=codes.append) as watchdog:
        time.sleep(0.2)
        assert not codes, "it watches from the first step on"
        watchdog.heartbeat()
        wait_until(lambda: codes)
    hanging.set()
    thread.join()
    assert codes == [EXIT_RESTART]
    told = capfd.readouterr().err
    assert "process 0 has made no step for 0.001 minutes" in told
    for report in (told, (tmp_path / "hang-0.txt").read_text()):
        assert "hang_in_a_function_with_a_name" in report


def test_the_watchdog_lets_a_run_go_on(tmp_path):
    codes = []
    with Watchdog(0.01, tmp_path, leave=codes.append) as watchdog:
        for _ in range(20):
            watchdog.heartbeat()
            time.sleep(0.05)
    time.sleep(0.7)
    assert codes == []
