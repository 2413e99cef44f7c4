"""Trains a model from a config: builds what the step needs, goes on from the last checkpoint, and keeps a record.

A run that is killed and started again ends in the same parameters, bit for bit (on a GPU, if XLA is told to be
deterministic): batch, noise and dropout of a step depend on the seed and the step alone, and the state is saved whole.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from dfm_jax.config import Config
from dfm_jax.data import pipeline
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.evaluation.visualize import preview
from dfm_jax.losses import training_loss
from dfm_jax.models import lpips
from dfm_jax.pixelnerf import make_model
from dfm_jax.structs import Example
from dfm_jax.training import metric_writers, sharding
from dfm_jax.training.checkpoints import Checkpoints, check_same_config
from dfm_jax.training.monitor import Monitor, StopRequest, say
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.start import first_state
from dfm_jax.training.state import TrainState, create
from dfm_jax.training.step import train_step

EXIT_DONE = 0
EXIT_RESTART = 75  # saved, and to be started again
PREVIEW_SCENES = 4


@dataclasses.dataclass(frozen=True)
class Job:
    """What a config makes, as functions."""

    init: Callable[[Array], TrainState]  # key -> state before the first step
    step: Callable[..., tuple[TrainState, dict[str, Array]]]  # state, example, key, *frozen
    preview: Callable[[Any, Example, Array], np.ndarray]  # parameters, example, key -> uint8 [h, w, 3]
    frozen: tuple = ()  # pytrees that the step needs, and that nobody trains or saves


def build(config: Config, frozen: tuple | None = None) -> Job:
    """Puts model, loss and optimiser together.

    Args:
      frozen: that of the job, or its shapes; None: it is loaded.

    Raises:
      UserError: the loss needs the weights of LPIPS, and they are not there.
    """
    if frozen is None:
        frozen = (_load_lpips(config),) if config.loss.lpips else ()
    model = make_model(config.model, config.image_size, config.loss)
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    optimizer = config.train.optimizer
    tx = make_optimizer(optimizer)
    loss = partial(training_loss, model=model, schedule=schedule, diffusion=config.diffusion, weights=config.loss)

    def step(state: TrainState, example: Example, key: Array, perceptual: lpips.Distance | None = None) -> tuple:
        return train_step(
            state,
            example,
            key,
            tx=tx,
            loss=partial(loss, perceptual=perceptual),
            accumulate=config.train.accumulate,
            ema_decay=optimizer.ema_decay,
            ema_every=optimizer.ema_every,
        )

    return Job(
        init=lambda key: create(model.init(key), tx),
        step=step,
        preview=lambda params, example, key: preview(params, model, schedule, config.sample, example, key),
        frozen=frozen,
    )


def _load_lpips(config: Config) -> lpips.Distance:
    try:
        return lpips.load_default(config.model.compute_dtype)
    except UserError as error:
        raise UserError(
            f"config.loss.lpips={config.loss.lpips:g}, but {error}; to train without it: --config.loss.lpips=0"
        ) from error


def train(config: Config, workdir: str | pathlib.Path) -> int:
    """Trains until `config.train.num_steps`, from the last checkpoint in `workdir` if there is one.

    Returns:
      EXIT_DONE, or EXIT_RESTART where SIGTERM ended the run early; the state is saved either way.

    Raises:
      UserError: if there is no data, the loss needs weights that are not there, the checkpoint is another config's,
        the devices do not fit, or the loss or its gradients become non-finite.
    """
    job = build(config)
    mesh = sharding.make_mesh(config.train.mesh)
    sharding.check_batch_size(config.train.batch_size, config.train.accumulate, mesh)
    _prepare_data(config)
    with Checkpoints(workdir, keep=config.train.keep_checkpoints) as checkpoints, StopRequest() as stop:
        start = checkpoints.resume_step()
        if start:
            for difference in check_same_config(checkpoints.config(start), config, workdir):
                say(f"going on with another {difference}")
        if start >= config.train.num_steps:
            say(f"training has reached step {start} of {config.train.num_steps} already: nothing to do")
            return EXIT_DONE
        with contextlib.closing(_batches(config, start)) as batches, _writer(config, workdir, start) as writer:
            return _run(config, job, mesh, checkpoints, stop, batches, writer, start)


def _run(
    config: Config,
    job: Job,
    mesh: Mesh,
    checkpoints: Checkpoints,
    stop: StopRequest,
    batches: Iterator,
    writer: Any,
    start: int,
) -> int:
    """Steps `start + 1` to `num_steps`; step n, and what is said of it, is the one that makes the state's step n."""
    settings, frozen = config.train, sharding.replicate(job.frozen, mesh)
    init_key, step_key, preview_key = _keys(config.seed, mesh)
    state = first_state(config, job.init, checkpoints, mesh, init_key, start)
    say(f"{_describe(state)} on {mesh.size} {jax.devices()[0].platform} device(s); compiling the step ...")
    step_fn = sharding.compile_train_step(job.step, state, mesh, frozen)
    show = _previewer(config, job, writer, preview_key) if settings.sample_every else None
    monitor = Monitor(
        writer,
        num_steps=settings.num_steps,
        log_every=settings.log_every,
        rays_per_step=rays_per_step(config),
        describe_batch=lambda step: "scenes " + ", ".join(_scene_names(config, step - 1)),
    )
    for step in range(start + 1, settings.num_steps + 1):
        state, metrics = step_fn(state, sharding.shard_batch(next(batches), mesh), step_key, *frozen)
        monitor.add(step, metrics)
        stopping = stop.requested(step)
        if stopping or step % settings.checkpoint_every == 0 or step == settings.num_steps:
            monitor.settle()
            checkpoints.save(step, state, config)
        if show and step % settings.sample_every == 0:
            monitor.settle()
            show(step, state.ema)
        if stopping and step < settings.num_steps:
            say(f"stopped by SIGTERM: step {step} is saved, the same command goes on from there")
            return EXIT_RESTART
    say(f"trained to step {settings.num_steps}: {checkpoints.directory / str(settings.num_steps)}")
    return EXIT_DONE


def _keys(seed: int, mesh: Mesh) -> Array:
    """Keys for initialising, for the steps, and for the pictures, on all devices."""
    return jax.jit(lambda: jax.random.split(jax.random.key(seed), 3), out_shardings=sharding.replicated(mesh))()


def _prepare_data(config: Config) -> None:
    """Generates the toy data set if the config asks for it and it is missing; of others, makes sure that they exist."""
    if jax.process_index() == 0:
        pipeline.ensure_toy(config.data, config.image_size)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("data set")
    pipeline.open_dataset(config.data.dir, config.data.name, config.data.split)


def _batches(config: Config, start: int) -> Any:
    return pipeline.training_batches(
        config.data,
        image_size=config.image_size,
        batch_size=config.train.batch_size,
        seed=config.seed,
        start_step=start,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _scene_names(config: Config, batch: int) -> list[str]:
    return pipeline.scene_names(config.data, batch_size=config.train.batch_size, seed=config.seed, step=batch)


@contextlib.contextmanager
def _writer(config: Config, workdir: str | pathlib.Path, start: int) -> Iterator[Any]:
    writer = metric_writers.create_writer(workdir, start_step=start, enabled=jax.process_index() == 0)
    try:
        writer.write_texts(start, {"config": f"```\n{json.dumps(dataclasses.asdict(config), indent=2)}\n```"})
        yield writer
    finally:
        writer.close()


def _previewer(config: Config, job: Job, writer: Any, key: Array) -> Callable[[int, Any], None]:
    """A function that samples the evaluation scenes with given parameters and logs the pictures; always from the same
    noise, so that they can be compared."""
    scenes = min(PREVIEW_SCENES, config.sample.num_scenes)
    example, _ = pipeline.evaluation_examples(config.data, image_size=config.image_size, num_scenes=scenes)

    def show(step: int, params: Any) -> None:
        writer.write_images(step, {"samples": job.preview(params, example, key)})

    return show


def rays_per_step(config: Config) -> int:
    """Rays that a training step renders: the supervised pixels of all targets, and the estimate."""
    pixels = config.data.view_sampling.num_target * config.loss.patch_size**2
    return config.train.batch_size * (pixels + config.model.estimate_size**2)


def _describe(state: TrainState) -> str:
    count = sum(x.size for x in jax.tree.leaves(state.params))
    return f"{count / 1e6:.1f} M parameters" if count >= 1e5 else f"{count} parameters"
