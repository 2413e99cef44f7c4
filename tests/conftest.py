"""What every test runs under: the CPU, no silent broadcasting between ranks, checked shapes, compilations kept."""

import gc
import importlib
import logging
import os
import pathlib
import signal

# Before jax is imported anywhere, and in the environment, for programs that a test starts. The tests compare numbers:
# an accelerator's are tried only when asked for by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).resolve().parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
from jaxtyping import install_import_hook

from tests.processor_time import ProcessorTimes, pytest_addoption  # noqa: F401
from tests.programs import QUICKLY, compiler_flags, stop_server

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = pathlib.Path(__file__).resolve().parents[1]


def modules_with_checked_shapes() -> list[str]:
    """Modules with shapes in their signatures, but those that define structs: jax takes structs apart and fills them
    with placeholders, which have no shape."""
    sources = {path: path.read_text() for path in (ROOT / "dfm_jax").rglob("*.py")}
    checked = [path for path, text in sources.items() if "from jaxtyping import" in text and "@struct." not in text]
    return sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in checked)


# Only here are the shapes in signatures checked.
install_import_hook(modules_with_checked_shapes(), "beartype.beartype")


def pytest_configure(config):
    """The quick tests compile quickly; the slow ones run for long, optimised as users' programs are. Of what is logged,
    tests see what a terminal shows (`capsys`), and all of it (`caplog`)."""
    importlib.import_module("dfm_jax.runs.log").to_terminal()
    logging.getLogger("dfm_jax").propagate = True
    if "not slow" in config.option.markexpr:
        # The compiler reads them when it is first used. What the environment says comes last, and holds.
        os.environ["XLA_FLAGS"] = f"{QUICKLY} {compiler_flags()}".strip()
    if config.option.processor_times:
        config.pluginmanager.register(ProcessorTimes(config.option.processor_times))
    # A run in the background ignores the terminal's signals, and so would every program that a test starts and signals.
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_finish():
    """What was imported stays: the collector need not go through it again whenever jax has traced a program; nor need
    it look at what is being traced all the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def pytest_sessionfinish():
    """Whoever measures what the tests took is told of their commands as well."""
    stop_server()
