"""Compiling programs and timing them: what the benchmark and the GPU report share."""

import contextlib
import dataclasses
import logging
import math
import resource
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from dfm_jax import platforms
from dfm_jax.flops import jaxpr_flops

logger = logging.getLogger(__name__)

ROUNDS = 5
# A program is not run again once its runs have taken so long together, and the first is not a mere warm-up.
SECONDS_ENOUGH = 60.0
# A short program is started several times before it is waited for: starting one is then hidden behind the one before.
SECONDS_A_ROUND = 0.03
MOST_STARTS = 50
PROGRESS_EVERY = 30.0  # seconds

# A program that a device refuses, for lack of memory above all.
REFUSALS = (jax.errors.JaxRuntimeError, MemoryError)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """An executable, and what is known of it before it runs."""

    call: Callable[..., Any]
    flops: int
    compile_s: float  # with tracing
    memory: Any  # of `Compiled.memory_analysis`
    text: Callable[[], str]  # its optimised HLO

    @property
    def peak_bytes(self) -> int:
        """Arguments, results and intermediate arrays on one device; donated arguments count once."""
        m = self.memory
        return m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes

    @property
    def temp_bytes(self) -> int:
        return self.memory.temp_size_in_bytes


@dataclasses.dataclass
class Program:
    """A compiled function with its arguments, and what was found out about it."""

    compiled: Compiled
    start: Callable[[], Any] | None  # returns the result, which may not be finished; None once all is measured
    seconds: list[float] = dataclasses.field(default_factory=list)  # of one run, a number a round
    failure: str = ""

    @property
    def median_s(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None


def compile_program(
    function: Callable, *arguments: Any, precision: str | None = None, options: Mapping[str, Any] | None = None
) -> Compiled:
    """
    Args:
      function: plain, or already made by `jax.jit`.
      *arguments: arrays or their shapes.
      precision: of products in float32, as `jax.default_matmul_precision` takes it; None: what the device does by
        default.
      options: of the compiler.
    """
    jitted = function if hasattr(function, "trace") else jax.jit(function)
    began = time.perf_counter()
    with jax.default_matmul_precision(precision) if precision else contextlib.nullcontext():
        traced = jitted.trace(*arguments)
        executable = traced.lower().compile(compiler_options=dict(options) if options else None)
    seconds = time.perf_counter() - began
    flops = jaxpr_flops(traced.jaxpr.jaxpr)
    return Compiled(executable, flops, seconds, executable.memory_analysis(), executable.as_text)


def checked_to_fit(compiled: Compiled) -> Compiled:
    """The program, unless it takes more memory than the machine has.

    Raises:
      MemoryError: so much on a CPU, where the system would end this process and all that was measured with it. (Other
        devices refuse it themselves.)
    """
    has = platforms.memory_bytes()
    if jax.default_backend() == "cpu" and compiled.peak_bytes > has:
        raise MemoryError(f"it takes {compiled.peak_bytes / 1e9:.1f} GB, and this machine has {has / 1e9:.1f}")
    return compiled


def describe(error: BaseException) -> str:
    """What went wrong in one line; 'out of memory' where that is what it was."""
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if text.startswith("out of memory: "):  # described already
        return text
    lacking = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()
    return f"out of memory: {text}" if lacking else f"{type(error).__name__}: {text}"


def time_round(start: Callable[[], Any], last: float | None) -> float:
    """Seconds of one run; of short programs the mean of several that follow each other.

    Args:
      last: what a run took before; None: this is the first.
    """
    starts = 1 if last is None else min(MOST_STARTS, max(1, math.ceil(SECONDS_A_ROUND / max(last, 1e-9))))
    began = time.perf_counter()
    for _ in range(starts):
        result = start()
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / starts


def run_interleaved(
    programs: Mapping[str, Program], expected: Callable[[str], float | None] = lambda name: None, rounds: int = ROUNDS
) -> None:
    """Runs all programs in turn, so that what disturbs the machine disturbs them alike; then lets go of their
    arguments, which might leave no room for the next programs. What a device refuses gets a `failure`.

    Args:
      expected: seconds that a program is expected to take, where that is known before it ran.
    """
    last: dict[str, float] = {}
    for round_ in range(1 + rounds):
        for name, program in programs.items():
            if program.start is None or math.fsum(program.seconds) > SECONDS_ENOUGH:
                continue
            try:
                with showing_progress(name, last.get(name) or expected(name)):
                    took = last[name] = time_round(program.start, last.get(name))
            except REFUSALS as error:
                program.failure, program.start = describe(error), None
                logger.info(f"{name}: {program.failure}")
                continue
            logger.info(f"{name}: {took:.3g} s{' (warm-up)' if round_ == 0 else ''}")
            if round_ or took > SECONDS_ENOUGH:
                program.seconds.append(took)
    for program in programs.values():
        program.start = None


@contextlib.contextmanager
def showing_progress(name: str, expected: float | None, every: float = PROGRESS_EVERY) -> Iterator[None]:
    """Says how long something has taken so far, again and again, until it is done."""
    done, began = threading.Event(), time.perf_counter()

    def watch() -> None:
        while not done.wait(every):
            of = f" of about {expected:.0f} s" if expected else ""
            logger.info(f"{name}: {time.perf_counter() - began:.0f} s{of}")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def resident_peak_bytes() -> int:
    """The most memory that this process (on a CPU) or its first device has held."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
