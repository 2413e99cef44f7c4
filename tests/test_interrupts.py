"""Ctrl-C in a command: one line and exit code 130, wherever its main thread is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dfm_jax import interrupts
from tests.programs import PATIENCE

pytestmark = pytest.mark.skipif(
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="these tests run where Ctrl-C is ignored"
)

# What a command of the package begins with.
BEGIN = "from dfm_jax import interrupts; interrupts.GRACE_SECONDS = 0.2; interrupts.end_commands_in_one_line(); "
SLEEP = "print('ready', flush=True); import time; time.sleep(60)"
STUCK = "import ctypes; print('ready', flush=True); libc = ctypes.CDLL(None); [libc.usleep(900000) for _ in range(60)]"
TIDYING = """
with interrupts.staying('what was there stays'):
    try:
        import time; print('ready', flush=True); time.sleep(60)
    finally:
        print('tidied', flush=True)
"""


def interrupted(*arguments, presses=1):
    """Exit code, standard output and standard error of a Python that was told Ctrl-C once it said that it is ready."""
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    ready = process.stdout.readline()
    for _ in range(presses):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, ready + output, errors


@pytest.mark.parametrize("program", [SLEEP, STUCK], ids=["waiting", "not in Python"])
def test_it_is_one_line_and_130(program):
    assert interrupted("-c", BEGIN + program) == (130, "ready\n", "interrupted\n")


def test_what_is_unfinished_is_tidied_and_it_is_told_what_stays():
    expected = (130, "ready\ntidied\n", "interrupted: what was there stays\n")
    assert interrupted("-c", BEGIN + TIDYING) == expected


def test_the_second_ends_at_once():
    stuck = "import time\ntry:\n  " + SLEEP + "\nfinally: time.sleep(60)"
    began = time.monotonic()
    code, _, errors = interrupted("-c", BEGIN.replace("0.2", "30") + "\n" + stuck, presses=2)
    assert (code, errors) == (130, "interrupted\n")
    assert time.monotonic() - began < 50


def test_a_command_of_the_package_ends_so_while_it_is_being_imported(tmp_path):
    (tmp_path / "absl").mkdir()
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text(SLEEP)  # jax takes long to import
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()])}
    command, pipe = [sys.executable, "-m", "dfm_jax.main"], subprocess.PIPE
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_importing_the_package_leaves_signals_alone():
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_children_hear_nothing_of_it():
    with interrupts.kept_from_children():
        child = subprocess.Popen([sys.executable, "-c", "print('ready', flush=True); input(); print('alive')"],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGHUP)
    assert child.communicate("\n", timeout=PATIENCE)[0] == "alive\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
