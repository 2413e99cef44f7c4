"""Other processes that tests start: on the CPU, with this process's settings."""

import atexit
import importlib
import multiprocessing
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing import forkserver

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE = 1200  # seconds until a test gives up on one: a machine may be busy with other things

# Most of a test's time is compiling, and what runs on small arrays is not worth optimising. With these, compiling takes
# a fifth of the time.
QUICK_OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
USERS_OPTIONS = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
# Dealing functions out to threads takes more than compiling them does.
QUICKLY = " ".join(
    ["--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters", "--xla_cpu_parallel_codegen_split_count=1"]
    + [f"--{name}={str(value).lower()}" for name, value in QUICK_OPTIONS.items()]
)


def compiler_flags() -> str:
    """What whoever starts the tests has set."""
    return os.environ.get("XLA_FLAGS", "").removeprefix(QUICKLY).strip()


def environment(devices: int | None = None, *, quickly: bool = True, **variables: object) -> dict[str, str]:
    """For another process, which can import the package and compiles quickly, unless it is to run as users' do."""
    flags = [QUICKLY] * quickly + [compiler_flags()]
    if devices is not None:
        flags.append(f"--xla_force_host_platform_device_count={devices}")  # of two that disagree, the last one holds
    of_tests = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": " ".join(flags).strip()}
    return os.environ | of_tests | {name: str(value) for name, value in variables.items()}


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


# --- commands that need a process of their own, but no Python that imports everything anew

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tests.preloaded"])


class Command:
    """`python -m MODULE ARGUMENTS`, forked from a process that has imported the package (its devices are not started):
    that takes seconds less. As `subprocess.Popen`, with output and errors kept until it ends.

    Variables that jax reads when it is imported have no effect: such programs are for `subprocess`.
    """

    def __init__(self, module: str, *arguments: object, env: dict[str, str], cwd: pathlib.Path = ROOT):
        self.args = [module, *map(str, arguments)]
        self._folder = tempfile.TemporaryDirectory(prefix="command-")
        self._files = [pathlib.Path(self._folder.name) / name for name in ("output", "errors")]
        self._process = _SERVER.Process(target=_become, args=(self.args, env, str(cwd), self._files))
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    poll = returncode.fget

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, once it has ended."""
        self.communicate(timeout)
        return self.returncode

    def communicate(self, timeout: float = PATIENCE) -> tuple[str, str]:
        """What it wrote to standard output and standard error, once it has ended."""
        self._process.join(timeout)
        if self.returncode is None:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout, *map(_read, self._files))
        return tuple(map(_read, self._files))


def run_command(module: str, *arguments: object, **where: object) -> subprocess.CompletedProcess:
    """As `subprocess.run`, of a `Command`."""
    command = Command(module, *arguments, **where)
    output, errors = command.communicate()
    return subprocess.CompletedProcess(command.args, command.returncode, output, errors)


def stop_server() -> None:
    """Ends the process that commands are forked from, if there is one, and waits for it."""
    forkserver._forkserver._stop()


def _read(path: pathlib.Path) -> str:
    return path.read_text() if path.exists() else ""


def _become(argv: list[str], env: dict[str, str], cwd: str, files: list[pathlib.Path]) -> None:
    """What the forked process does."""
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = argv
    if argv[0].startswith("dfm_jax."):
        importlib.import_module("dfm_jax.interrupts").end_commands_in_one_line()
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # of what was imported: a process that is forked leaves without them
