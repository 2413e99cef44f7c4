"""`--mode=benchmark`: how fast a config runs on the devices that are here, and in how much memory.

Input and parameters are made up: neither a checkpoint nor a data set is needed (reading one is measured if it is
there).
Inference is measured for one scene on one device, the training step for the config's batch on all of them. A program
that does not fit is a line of the result: all others are measured.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax

from dfm_jax.config import Config
from dfm_jax.config.automatic import told
from dfm_jax.data.loading import pipeline, toy_data
from dfm_jax.errors import UserError
from dfm_jax.profiling.measure import (
    REFUSALS,
    Program,
    checked_to_fit,
    compile_program,
    describe,
    resident_peak_bytes,
    run_interleaved,
)
from dfm_jax.profiling.programs import Inference, Training, compile_quickly, compute_dtype, matrix, matrix_products
from dfm_jax.training.monitor import format_duration

logger = logging.getLogger(__name__)

LOADED_BATCHES = 20
LONG = 120.0  # seconds: a sample that is expected to take longer is announced
RATE = "matrix product"
# What --programs chooses from, and the programs that it stands for.
PROGRAMS = {
    "prepare": "preparation",
    "encoder": "encoder",
    "denoise": "denoising step",
    "sample": "sample",
    "video": "video frame",
    "train": "training step",
    "load": "reading",
}


def benchmark(config: Config, chosen: Sequence[str] = ()) -> dict[str, Any]:
    """Measures everything, or what is chosen of `PROGRAMS`, prints a table, and returns the numbers.

    Raises:
      UserError: this is one of several processes, a choice is not known, the devices do not fit the mesh, or the loss
        needs weights that are not there.
    """
    if jax.process_count() > 1:
        raise UserError("--mode=benchmark runs in one process: start it once, with --nodistributed")
    if unknown := [name for name in chosen if name not in PROGRAMS]:
        raise UserError(f"--programs={','.join(unknown)} is not known: choose of {','.join(PROGRAMS)}")
    names = [PROGRAMS[name] for name in chosen or PROGRAMS]
    # What it lacks shows before anything is measured.
    training = Training(config) if "training step" in names else None
    if training is not None and (chosen := told(config, training.config)):
        logger.info(f"the training step: {chosen}")
    result = {"device": jax.devices()[0].device_kind, "devices": jax.device_count()}
    programs, failed = _measure_inference(config, names)
    if training is not None:
        _try("training step", lambda: training.program(checked_to_fit(training.compile())), programs, failed)
        run_interleaved({name: programs[name] for name in ("training step",) if name in programs})
    failed |= {name: program.failure for name, program in programs.items() if program.failure}
    programs = {name: program for name, program in programs.items() if program.seconds}
    result |= summarize(programs, config) | {"failed": failed, "resident_peak_bytes": resident_peak_bytes()}
    result["load_views_per_s"] = _loading_rate(config) if "reading" in names else None
    print(table(programs, failed), flush=True)
    return result


def summarize(programs: Mapping[str, Program], config: Config) -> dict[str, Any]:
    """The numbers of the JSON line: seconds are medians, bytes are those of one device; None where nothing was
    measured."""
    seconds = {name: program.median_s for name, program in programs.items()}
    compiled = {name: program.compiled for name, program in programs.items()}
    rate = _rate(programs)
    peak = lambda name: compiled[name].peak_bytes if name in compiled else None
    frame, training = seconds.get("video frame"), compiled.get("training step")
    return {
        "encoder_s": seconds.get("encoder"),
        "prepare_s": seconds.get("preparation"),
        "denoise_step_s": seconds.get("denoising step"),
        "sample_s": seconds.get("sample"),
        "train_step_s": seconds.get("training step"),
        "render_rays_per_s": config.image_size**2 / frame if frame else None,
        "train_peak_bytes": peak("training step"),
        "train_temp_bytes": training.temp_bytes if training else None,
        "denoise_peak_bytes": peak("denoising step"),
        "matmul_flops_per_s": rate,
        "flops": {name: x.flops for name, x in compiled.items()},
        "matmul_share": {name: x.flops / seconds[name] / rate for name, x in compiled.items()} if rate else {},
        "compile_s": {name: x.compile_s for name, x in compiled.items()},
        "runs": {name: len(program.seconds) for name, program in programs.items()},
    }


def table(programs: Mapping[str, Program], failed: Mapping[str, str]) -> str:
    """What was measured, for people."""
    lines = [
        f"{'':16} {'median':>10} {'runs':>5} {'TFLOP':>10} {'of product rate':>16} {'peak':>10} {'compiled in':>12}"
    ]
    rate = _rate(programs)
    for name, program in programs.items():
        compiled = program.compiled
        share = f"{compiled.flops / program.median_s / rate:.0%}" if rate else "?"
        lines.append(
            f"{name:16} {program.median_s:>8.3g} s {len(program.seconds):>5} {compiled.flops / 1e12:>10.4g} "
            f"{share:>16} {compiled.peak_bytes / 1e9:>8.2f} GB {compiled.compile_s:>10.1f} s"
        )
    lines += [f"{name:16} {failure}" for name, failure in failed.items()]
    return "\n".join([*lines, f"matrix products run at {rate / 1e9:.0f} GFLOP/s on this device"] if rate else lines)


def _rate(programs: Mapping[str, Program]) -> float | None:
    """Operations a second of plain matrix products."""
    products = programs.get(RATE)
    return products.compiled.flops / products.median_s if products and products.seconds else None


def _measure_inference(config: Config, names: Collection[str]) -> tuple[dict[str, Program], dict[str, str]]:
    """One scene, on the first device; and what the device refused."""
    inference = Inference(config)
    programs: dict[str, Program] = {}
    failed: dict[str, str] = {}
    arrays = cache(lambda name: inference.arrays(name, run))

    def run(part: str) -> Any:
        """The result of a part that others begin with; measured or not, it is compiled once."""
        if part in programs and programs[part].start:
            return jax.block_until_ready(programs[part].start())
        return compile_quickly(inference.parts[part].function, *map(arrays, inference.parts[part].arguments))

    def part(name: str) -> Program:
        compiled = checked_to_fit(inference.compile(name))
        return Program(compiled, partial(compiled.call, *map(arrays, inference.parts[name].arguments)))

    product = compile_quickly(partial(matrix, compute_dtype(inference.config)))
    _try(RATE, lambda: _product_program(product), programs, failed)
    for name in inference.parts:
        if name in names:
            logger.info(f"{name}: compiling")
            _try(name, lambda name=name: part(name), programs, failed)
    quick = {name: program for name, program in programs.items() if name != "sample"}
    run_interleaved(quick)
    if "sample" in programs:
        _announce(programs, config.sample.num_steps)
        run_interleaved({"sample": programs["sample"]}, lambda _: _expected(programs, config.sample.num_steps))
    arrays.cache_clear()  # training wants the memory
    return programs, failed


def _product_program(a: jax.Array) -> Program:
    compiled = compile_program(matrix_products, a)
    return Program(compiled, partial(compiled.call, a))


def _try(name: str, make: Callable[[], Program], programs: dict[str, Program], failed: dict[str, str]) -> None:
    try:
        programs[name] = make()
    except REFUSALS as error:
        failed[name] = describe(error)
        logger.info(f"{name}: {failed[name]}")


def _expected(programs: Mapping[str, Program], num_steps: int) -> float | None:
    """Seconds of a sample, from those of a step."""
    step = programs.get("denoising step")
    return num_steps * step.median_s if step and step.seconds else None


def _announce(programs: Mapping[str, Program], num_steps: int) -> None:
    expected = _expected(programs, num_steps)
    if expected and expected > LONG:
        logger.info(
            f"the sample of {num_steps} steps will take {format_duration(expected)} or more; "
            "--config.sample.num_steps=N makes it shorter, --programs chooses others"
        )


def _loading_rate(config: Config) -> float | None:
    """Views a second that this process reads, in batches of training; None where the data set is not there."""
    size = config.train.batch_size
    if config.data is None:
        logger.info("reading is not measured: this model makes its own examples")
        return None
    try:
        data = toy_data.find_toy(config.data, config.image_size)
        batches = pipeline.training_batches(data, image_size=config.image_size, batch_size=size, seed=config.seed)
    except UserError as error:
        logger.info(f"reading is not measured: {error}")
        return None
    with contextlib.closing(batches):
        example = next(batches)  # the first fills the buffers
        began = time.perf_counter()
        for _ in range(LOADED_BATCHES):
            next(batches)
        views = size * (example.context.valid.shape[1] + example.target.valid.shape[1])
        return LOADED_BATCHES * views / (time.perf_counter() - began)
