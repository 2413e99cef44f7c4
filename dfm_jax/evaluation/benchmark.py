"""`--mode=benchmark`: how fast a config runs on the devices that are here, and in how much memory.

Input and parameters are made up: neither a checkpoint nor a data set is needed (reading one is measured if it is
there).
Inference is measured for one scene on one device, the training step for the config's batch on all of them.
"""

import contextlib
import dataclasses
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dfm_jax.config import Config
from dfm_jax.data import pipeline
from dfm_jax.denoiser import Prepared, denoise
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.evaluation.draw import draw_target, look, prepare_drawing
from dfm_jax.evaluation.synthetic import synthetic_example
from dfm_jax.flops import count_flops
from dfm_jax.forward_model import RadianceFieldModel
from dfm_jax.pixelnerf import make_model
from dfm_jax.structs import Example
from dfm_jax.training import sharding
from dfm_jax.training.loop import build
from dfm_jax.training.monitor import say

ROUNDS = 5
# A program is not run again once its runs have taken so long together, and the first is not a mere warm-up.
SECONDS_ENOUGH = 60.0
LOADED_BATCHES = 20
PRODUCT_SIDE = {"cpu": 2048}  # of square matrices whose product shows what the device can do; elsewhere:
PRODUCT_SIDE_ACCELERATOR = 8192
PRODUCTS = 10


@dataclasses.dataclass
class Program:
    """A compiled function with its arguments, and what was found out about it."""

    run: Callable[[], Any] | None  # returns the finished result; None once all is measured
    flops: int
    compile_s: float
    memory: Any  # of `Compiled.memory_analysis`
    seconds: list[float] = dataclasses.field(default_factory=list)

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def peak_bytes(self) -> int:
        """Arguments, results and intermediate arrays on one device; donated arguments count once."""
        m = self.memory
        return m.argument_size_in_bytes + m.output_size_in_bytes + m.temp_size_in_bytes - m.alias_size_in_bytes


def benchmark(config: Config) -> dict[str, Any]:
    """Measures everything, prints a table, and returns the numbers.

    Raises:
      UserError: this is one of several processes, the devices do not fit the mesh, or the loss needs weights that are
        not there.
    """
    if jax.process_count() > 1:
        raise UserError("--mode=benchmark runs in one process: start it once, with --nodistributed")
    result = {"device": jax.devices()[0].device_kind, "devices": jax.device_count()}
    programs = _measure_inference(config) | _measure_training(config)
    rate = programs["matrix product"].flops / programs["matrix product"].median_s
    result |= summarize(programs, config, rate) | {"resident_peak_bytes": resident_peak_bytes()}
    result["load_views_per_s"] = _loading_rate(config)
    print(table(programs, rate), flush=True)
    return result


def summarize(programs: Mapping[str, Program], config: Config, rate: float) -> dict[str, Any]:
    """The numbers of the JSON line: seconds are medians, bytes are those of one device."""
    seconds = {name: program.median_s for name, program in programs.items()}
    rays = config.image_size**2
    return {
        "encoder_s": seconds["encoder"],
        "prepare_s": seconds["preparation"],
        "denoise_step_s": seconds["denoising step"],
        "sample_s": seconds["sample"],
        "train_step_s": seconds["training step"],
        "render_rays_per_s": rays / seconds["video frame"],
        "train_peak_bytes": programs["training step"].peak_bytes,
        "train_temp_bytes": programs["training step"].memory.temp_size_in_bytes,
        "denoise_peak_bytes": programs["denoising step"].peak_bytes,
        "matmul_flops_per_s": rate,
        "flops": {name: program.flops for name, program in programs.items()},
        "matmul_share": {name: program.flops / seconds[name] / rate for name, program in programs.items()},
        "compile_s": {name: program.compile_s for name, program in programs.items()},
        "runs": {name: len(program.seconds) for name, program in programs.items()},
    }


def table(programs: Mapping[str, Program], rate: float) -> str:
    """What was measured, for people."""
    lines = [
        f"{'':16} {'median':>10} {'runs':>5} {'TFLOP':>10} {'of product rate':>16} {'peak':>10} {'compiled in':>12}"
    ]
    for name, program in programs.items():
        share = program.flops / program.median_s / rate
        lines.append(
            f"{name:16} {program.median_s:>8.3g} s {len(program.seconds):>5} {program.flops / 1e12:>10.4g} "
            f"{share:>15.0%} {program.peak_bytes / 1e9:>8.2f} GB {program.compile_s:>10.1f} s"
        )
    return "\n".join([*lines, f"matrix products run at {rate / 1e9:.0f} GFLOP/s on this device"])


def resident_peak_bytes() -> int:
    """The most memory that this process (on a CPU) or its first device has held."""
    stats = jax.local_devices()[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _measure_inference(config: Config) -> dict[str, Program]:
    """One scene, on the first device."""
    model, sample = make_model(config.model, config.image_size, config.loss), config.sample
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    example = synthetic_example(config, 1)
    params = _compile_quickly(model.init, jax.random.key(config.seed))
    x_t = jax.random.normal(jax.random.key(1), example.target.images[:, 0].shape)
    timestep = jnp.full(1, config.diffusion.num_timesteps // 2, jnp.int32)
    conditional = dataclasses.replace(sample, guidance=1.0)
    keys = jax.random.split(jax.random.key(2), 1)

    def draw(params: Any, example: Example, keys: Array) -> Array:
        prepared = prepare_drawing(params, example, model=model, sample=sample)
        return draw_target(params, prepared, keys, model=model, schedule=schedule, sample=sample)

    prepare = partial(prepare_drawing, model=model, sample=conditional)
    programs = {"matrix product": _matrix_product(config), "preparation": _program(prepare, params, example)}
    prepared = programs["preparation"].run()
    programs |= {
        "encoder": _program(partial(_encode, model), params, prepared, x_t, timestep),
        "denoising step": _program(partial(_denoise, model), params, prepared, x_t, timestep),
        "sample": _program(draw, params, example, keys),
    }
    scene = programs["encoder"].run()
    camera = jax.tree.map(lambda x: x[:, :1], example.target.camera)
    see = partial(look, model=model, size=config.image_size)
    programs["video frame"] = _program(see, params, scene, camera)
    _run_interleaved(programs)
    return programs


def _measure_training(config: Config) -> dict[str, Program]:
    job, mesh = build(config), sharding.make_mesh(config.train.mesh)
    sharding.check_batch_size(config.train.batch_size, config.train.accumulate, mesh)
    key = sharding.replicate(jax.random.key(config.seed), mesh)
    state = sharding.initialize(job.init, key, mesh, config.train.optimizer.ema_memory)
    frozen = sharding.replicate(job.frozen, mesh)
    batch = sharding.shard_batch(synthetic_example(config, config.train.batch_size), mesh)
    step = sharding.compile_train_step(job.step, state, mesh, frozen)
    flops = count_flops(job.step, state, batch, key, *frozen) // mesh.size
    began = time.perf_counter()
    compiled = step.lower(state, batch, key, *frozen).compile()
    held = [state]  # donated in every step
    del state

    def run() -> None:
        held[0], _ = compiled(held[0], batch, key, *frozen)
        jax.block_until_ready(held[0])

    program = Program(run, flops, time.perf_counter() - began, compiled.memory_analysis())
    _run_interleaved({"training step": program})
    return {"training step": program}


def _encode(model: RadianceFieldModel, params: Any, prepared: Prepared, x_t: Array, timestep: Array) -> Any:
    return model.infer(params, prepared.context, x_t, timestep)[0]


def _denoise(model: RadianceFieldModel, params: Any, prepared: Prepared, x_t: Array, timestep: Array) -> Array:
    return denoise(params, model, x_t, timestep, prepared).x0


def _compile_quickly(function: Callable, *arguments: Any) -> Any:
    """The result of a function that runs once; on a CPU, compiling it well would take longer than running it."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(function, compiler_options=options)(*arguments)


def _matrix_product(config: Config) -> Program:
    """Products of square matrices, in the networks' number format: what there is to reach."""
    side = PRODUCT_SIDE.get(jax.default_backend(), PRODUCT_SIDE_ACCELERATOR)
    a = jnp.full((side, side), 1 / side, config.model.compute_dtype)
    return _program(lambda a: jax.lax.fori_loop(0, PRODUCTS, lambda _, b: a @ b, a), a)


def _program(function: Callable, *arguments: Any) -> Program:
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - began
    run = lambda: jax.block_until_ready(compiled(*arguments))
    return Program(run, count_flops(function, *arguments), seconds, compiled.memory_analysis())


def _run_interleaved(programs: Mapping[str, Program]) -> None:
    """Runs all programs in turn, so that what disturbs the machine disturbs them alike; then lets go of their
    arguments, which might leave no room for the next programs."""
    for round_ in range(1 + ROUNDS):
        for name, program in programs.items():
            if math.fsum(program.seconds) > SECONDS_ENOUGH:
                continue
            began = time.perf_counter()
            program.run()
            took = time.perf_counter() - began
            say(f"{name}: {took:.3g} s{' (warm-up)' if round_ == 0 else ''}")
            if round_ or took > SECONDS_ENOUGH:
                program.seconds.append(took)
    for program in programs.values():
        program.run = None


def _loading_rate(config: Config) -> float | None:
    """Views a second that this process reads, in batches of training; None where the data set is not there."""
    size = config.train.batch_size
    try:
        batches = pipeline.training_batches(
            config.data, image_size=config.image_size, batch_size=size, seed=config.seed
        )
    except UserError as error:
        say(f"reading is not measured: {error}")
        return None
    with contextlib.closing(batches):
        example = next(batches)  # the first fills the buffers
        began = time.perf_counter()
        for _ in range(LOADED_BATCHES):
            next(batches)
        views = size * (example.context.valid.shape[1] + example.target.valid.shape[1])
        return LOADED_BATCHES * views / (time.perf_counter() - began)
