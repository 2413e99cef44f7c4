"""`--mode=compile`: will it fit? A config's training step and denoising step, compiled for TPUs that are not there.

Nothing is run, and no data or weights are needed. A line for each program goes to standard error, one JSON object to
standard output.
"""

import dataclasses
import json
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import Mesh, NamedSharding

from dfm_jax.config import Config
from dfm_jax.config.automatic import Device, told, with_dtype
from dfm_jax.config.model import ModelConfig
from dfm_jax.denoiser import StepCache
from dfm_jax.errors import UserError
from dfm_jax.examples import abstract_example
from dfm_jax.flops import count_flops
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.models import lpips
from dfm_jax.profiling import tpu_topology
from dfm_jax.profiling.hlo_collectives import collectives
from dfm_jax.rendering.ray_marching import rays_per_chunk
from dfm_jax.sampling import batches, signals
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.solver_files import with_solver_file
from dfm_jax.training import setup, sharding
from dfm_jax.training.choices import fitted

logger = logging.getLogger(__name__)

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Of one program on one device, bytes. `temp` and `code` are None where the compiler refused and did not say."""

    argument_bytes: int
    temp_bytes: int | None
    code_bytes: int | None
    peak_bytes: int  # all of these, and results that take no argument's place
    fits: bool


def compile_report(config: Config, topology: str, num_slices: int = 1) -> None:
    """Compiles, and reports on standard error and standard output.

    Raises:
      UserError: a program needs more memory than a device has; the topology is not known; the mesh or the batch do not
        fit the number of devices; libtpu is missing. In the first case the report is complete.
    """
    devices = tpu_topology.describe(topology, num_slices)
    # The time is that of compiling, not of reading what an earlier run compiled.
    jax.config.update("jax_enable_compilation_cache", False)
    mesh = sharding.make_mesh(config.train.mesh, devices)
    sampled, config = config, as_chosen(config, devices)
    sharding.check_batch_size(config.train.batch_size, config.train.accumulate, mesh)
    where = f"{topology}, {num_slices} slices" if num_slices > 1 else topology
    logger.info(f"compiling for {where}: {len(devices)} x {devices[0].device_kind} ...")
    training = _report(*training_program(config, mesh), devices)
    logger.info(_line("training step", training))
    scenes = denoised_per_device(config)
    denoising = _report(*denoising_program(as_sampled(sampled, scenes, devices), mesh, scenes), devices)
    logger.info(_line("denoising step", denoising))
    per_device = config.train.batch_size / len(devices)
    whole = {"topology": topology, "slices": num_slices, "devices": len(devices), "batch_per_device": per_device}
    print(json.dumps(whole | training | {"denoising": denoising | {"scenes_per_device": scenes}}))
    for name, report in (("training", training), ("denoising", denoising)):
        if not report["fits"]:
            raise UserError(f"the {name} step does not fit: {_shortage(report)}")


def as_chosen(config: Config, devices: Sequence[jax.Device]) -> Config:
    """The config with what is left open as a run on these devices would choose it; and told."""
    device = Device(devices[0].platform, tpu_topology.memory_bytes(devices[0]), len(devices))
    made = fitted(config, device)
    if chosen := told(config, made):
        logger.info(f"chosen: {chosen}")
    return made


def as_sampled(config: Config, scenes: int, devices: Sequence[jax.Device]) -> Config:
    """The config as sampling would trace it on these devices."""
    platform = devices[0].platform
    config = with_dtype(config, platform)
    if not isinstance(config.model, ModelConfig):
        return config
    chunk = rays_per_chunk(config.model.ray_marching.chunk_size, scenes, platform)
    marching = dataclasses.replace(config.model.ray_marching, chunk_size=chunk)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, ray_marching=marching))


def training_program(config: Config, mesh: Mesh) -> tuple[Callable, tuple]:
    """The training step as `loop.train` compiles it, and the shapes of its arguments."""
    frozen = (lpips.abstract(config.model.compute_dtype),) if config.loss.lpips else ()
    # A teacher is a trained model: what it is, its checkpoint says.
    made = setup.make_train_setup(config, None if config.distillation.teacher else frozen)
    state = sharding.abstract_state(made.init, mesh, config.train.optimizer.ema_memory)
    example = abstract_example(config, config.train.batch_size, sharding.batch_sharding(mesh), training=True)
    key = _placed(jax.eval_shape(lambda: jax.random.key(0)), sharding.replicated(mesh))
    frozen = _placed(made.frozen_params, sharding.replicated(mesh))
    step = sharding.compile_train_step(made.step, state, mesh, frozen)
    return step, (state, example, key, *frozen)


def denoising_program(config: Config, mesh: Mesh, scenes: int) -> tuple[Callable, tuple]:
    """One denoising step (guided, if the config samples so) of `scenes` scenes on each device, and the shapes of its
    arguments."""
    number, split = scenes * mesh.size, sharding.batch_sharding(mesh)
    model = make_model(config)
    make = partial(DiffusionSampler.from_config, with_solver_file(config))
    sampler = jax.eval_shape(lambda key: make(model.init(key)), jax.random.key(0))
    example = abstract_example(config, number)
    cache = jax.eval_shape(DiffusionSampler.cache_context, sampler, example)
    x_t = _placed(jax.eval_shape(model.target, example)[0], split)
    timestep = jax.ShapeDtypeStruct((number,), jnp.int32, sharding=split)

    def step(sampler: DiffusionSampler, x_t: Array, timestep: Array, cache: StepCache) -> Array:
        return sampler.denoise_fn(cache)(x_t, timestep, jnp.zeros_like(x_t))[0]

    arguments = (_placed(sampler, sharding.replicated(mesh)), x_t, timestep, _placed(cache, split))
    return jax.jit(step, out_shardings=split), arguments


def denoised_per_device(config: Config) -> int:
    """Scenes that `--mode=sample` samples at once."""
    model = make_model(config)
    if isinstance(model, SceneModel):
        return batches.pairs_at_once(config.image_size)
    return signals.pairs_at_once(jax.eval_shape(model.target, abstract_example(config, 1))[0])


def _placed(shapes: Any, placed: NamedSharding) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed), shapes)


def _report(program: Callable, arguments: tuple, devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Compiles; what to say of the program, also where the compiler refuses it for want of memory."""
    operations = count_flops(program, *arguments)
    start = time.monotonic()
    lowered = program.trace(*arguments).lower(lowering_platforms=(devices[0].platform,))
    sent = None
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        memory = refused(str(error), bytes_per_device(arguments))
    else:
        memory = needed(compiled.memory_analysis())
        sent = collectives(compiled.as_text())
    seconds = time.monotonic() - start
    report = dataclasses.asdict(memory) | {"hbm_bytes": tpu_topology.memory_bytes(devices[0])}
    kinds = {kind: {"count": sent.counts[kind], "bytes": sent.bytes[kind]} for kind in sent.counts} if sent else None
    return report | {
        "flops": operations // len(devices),
        "collectives": kinds,
        "loops_of_unknown_length": sent.unknown_loops if sent else None,
        "compile_s": round(seconds, 2),
    }


def needed(analysis: Any) -> Memory:
    """From the compiler's analysis of a program that it made."""
    results = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    parts = (analysis.argument_size_in_bytes, analysis.temp_size_in_bytes, analysis.generated_code_size_in_bytes)
    return Memory(*parts, peak_bytes=sum(parts) + results, fits=True)


def refused(message: str, argument_bytes: int) -> Memory:
    """From the compiler's message that a program does not fit.

    Raises:
      UserError: with the message, if it says something else.
    """
    used = re.search(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm", message)
    if "RESOURCE_EXHAUSTED" not in message or not used:
        raise UserError(f"the compiler failed: {message[:2000]}")
    peak = round(float(used[1]) * 1024 ** " KMGT".index(used[2] or " "))
    return Memory(argument_bytes, max(0, peak - argument_bytes), None, peak, fits=False)


def bytes_per_device(shapes: Any) -> int:
    """Of arrays (ShapeDtypeStructs with shardings), on each device."""
    part = lambda x: math.prod(x.sharding.shard_shape(x.shape)) * _itemsize(x.dtype)
    return sum(part(x) for x in jax.tree.leaves(shapes))


def _itemsize(dtype: Any) -> int:
    return 8 if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) else dtype.itemsize  # a key is two words


def _line(name: str, report: dict[str, Any]) -> str:
    gib = lambda value: "?" if value is None else f"{value / GIB:.2f}"
    sent = report["collectives"] or {}
    kinds = ", ".join(f"{x['count']} {kind} of {x['bytes'] / 2**20:.0f} MiB" for kind, x in sent.items())
    return (
        f"{name}, a device: {gib(report['argument_bytes'])} GiB arguments, {gib(report['temp_bytes'])} temporaries, "
        f"{gib(report['peak_bytes'])} of {gib(report['hbm_bytes'])} in all; "
        + (f"sends {kinds or 'nothing'}; " if report["fits"] else "")
        + f"computes {report['flops'] / 1e12:.2f} TFLOP; compiled in {report['compile_s']:.0f} s"
    )


def _shortage(report: dict[str, Any]) -> str:
    return (
        f"a device needs {report['peak_bytes'] / GIB:.2f} GiB and has {report['hbm_bytes'] / GIB:.2f} "
        f"(arguments {report['argument_bytes'] / GIB:.2f}). What helps: config.train.mesh.fsdp=-1, "
        "a smaller train.batch_size or more devices, train.accumulate, model.ray_marching.chunk_size, "
        "model.compute_dtype='bfloat16', train.optimizer.first_moment_dtype='bfloat16', "
        "train.optimizer.ema_memory='host'"
    )
