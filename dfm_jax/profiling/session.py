"""What measurements in one process share: compiled programs, synthetic arguments, and what is known already."""

import dataclasses
import pathlib
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dfm_jax.config import Config
from dfm_jax.config.command_line import read_config
from dfm_jax.profiling.measure import Compiled, Program, run_interleaved
from dfm_jax.profiling.measurement_plan import BEST, CHOSEN, Sizes
from dfm_jax.profiling.programs import Inference, compile_quickly

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"
# Number format of the networks, and precision of products in float32. By default, some devices multiply in TF32.
PRECISION = {"bf16": ("bfloat16", None), "tf32": ("float32", None), "fp32": ("float32", "highest")}
ALWAYS = ("--config.loss.lpips=0",)  # its weights are nowhere to be had without a network


@dataclasses.dataclass
class Task:
    """A measurement, in two halves: what many threads may do at once, and what wants the device for itself."""

    compile: Callable[[], Any]
    run: Callable[[Any], dict[str, Any]]  # of what `compile` returned: the numbers


class Session:
    def __init__(self, sizes: Sizes, results: dict[str, Mapping[str, Any]]):
        """
        Args:
          results: of measurements by name, of this process and of those before; it grows.
        """
        self.sizes, self.results = sizes, results
        self._compiled: dict[Any, Future] = {}
        self._arrays: dict[tuple[Any, str], Any] = {}
        self._lock = threading.Lock()

    def config(self, name: str, precision: str, chunk: int | str, overrides: Sequence[str], kind: str) -> Config:
        """
        Args:
          kind: 'denoising' or 'training', for the best chunk size.
        """
        if chunk == BEST:
            chunk = best_chunk(self.sizes, self.results, kind)
        file, *theirs = self.sizes.configs[name]
        settings = (
            f"--config.model.compute_dtype={PRECISION[precision][0]}",
            f"--config.model.ray_marching.chunk_size={chunk}",
            f"--config.train.recompute={'auto' if chunk == CHOSEN else 'always'}",
        )
        return read_config(str(CONFIGS / file), [*ALWAYS, *theirs, *settings, *overrides])

    def compiled(self, key: Any, make: Callable[[], Compiled]) -> Compiled:
        """What `make` returns; it is called once for a key, whatever thread asks."""
        with self._lock:
            first = key not in self._compiled
            future = self._compiled.setdefault(key, Future())
        if first:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def part(self, inference: Inference, name: str, precision: str, options: Mapping[str, Any]) -> Compiled:
        key = (inference.config, name, precision, tuple(sorted(options.items())))
        make = partial(inference.compile, name, precision=PRECISION[precision][1], options=options)
        return self.compiled(key, make)

    def arrays(self, inference: Inference, name: str, precision: str) -> Any:
        """An argument of a part, kept until `clear`. What another config has made is taken if its shapes fit: values
        do not matter here."""
        shapes = inference.shapes(name)
        for (made_for, other), arrays in list(self._arrays.items()):
            same = made_for == inference.config and other == name
            if same or (fitted := fit(arrays, shapes)) is not None:
                return arrays if same else self._arrays.setdefault((inference.config, name), fitted)
        run = lambda part: self.run_part(inference, part, precision)
        return self._arrays.setdefault((inference.config, name), inference.arrays(name, run))

    def run_part(self, inference: Inference, name: str, precision: str) -> Any:
        compiled = self.part(inference, name, precision, {})
        return compiled.call(*self.arguments(inference, name, precision))

    def keep(self, inference: Inference, name: str, result: Any) -> None:
        """What a part made, for others to begin with."""
        self._arrays[inference.config, name] = result

    def arguments(self, inference: Inference, name: str, precision: str) -> list[Any]:
        return [self.arrays(inference, x, precision) for x in inference.parts[name].arguments]

    def clear(self) -> None:
        """Lets go of arguments: the next programs want the memory."""
        self._arrays.clear()


def best_chunk(sizes: Sizes, results: Mapping[str, Mapping[str, Any]], kind: str) -> int:
    """The fastest of those that were measured; where none was, the middle one (of training: the smallest)."""
    chunks = sizes.training_chunks if kind == "training" else sizes.chunks
    step = f"{kind} step 64, bf16, chunks of"
    seconds = {n: results[f"{step} {n}"]["seconds"] for n in chunks if results.get(f"{step} {n}", {}).get("seconds")}
    default = chunks[0] if kind == "training" else chunks[len(chunks) // 2]
    return min(seconds, key=seconds.__getitem__) if seconds else default


def fit(arrays: Any, shapes: Any) -> Any | None:
    """Arrays in other number formats, or twice as many along the batch; None where the shapes are others."""
    if jax.tree.structure(arrays) != jax.tree.structure(shapes):
        return None
    pairs = list(zip(jax.tree.leaves(arrays), jax.tree.leaves(shapes), strict=True))
    factors = {_factor(array, shape) for array, shape in pairs}
    if len(factors) != 1 or None in factors:
        return None
    (factor,) = factors
    if factor == 1 and all(array.dtype == shape.dtype for array, shape in pairs):
        return arrays

    def change(arrays: Any) -> Any:
        double = lambda x: jnp.concatenate([x] * factor) if x.ndim else x
        return jax.tree.map(lambda x, shape: double(x).astype(shape.dtype), arrays, shapes)

    return compile_quickly(change, arrays)


def _factor(array: jax.Array, shape: jax.ShapeDtypeStruct) -> int | None:
    floats = all(jnp.issubdtype(x.dtype, jnp.floating) for x in (array, shape))
    if not floats and array.dtype != shape.dtype:
        return None
    if array.shape == shape.shape:
        return 1
    doubled = array.ndim and (2 * array.shape[0], *array.shape[1:]) == shape.shape
    return 2 if doubled else None


def timed(session: Session, program: Program, name: str) -> dict[str, Any]:
    """Runs a program and returns its numbers.

    Raises:
      RuntimeError: the device refused it.
    """
    compiled = program.compiled
    run_interleaved({name: program}, rounds=session.sizes.rounds)
    if program.failure:
        raise RuntimeError(program.failure)
    return {
        "seconds": program.median_s,
        "fastest_s": min(program.seconds),
        "slowest_s": max(program.seconds),
        "runs": len(program.seconds),
        **about(compiled),
    }


def about(compiled: Compiled) -> dict[str, Any]:
    """What is known of a program before it runs."""
    return {
        "flops": compiled.flops,
        "peak_bytes": compiled.peak_bytes,
        "temp_bytes": compiled.temp_bytes,
        "compile_s": compiled.compile_s,
    }
