"""Trains a model from a config: builds what the step needs, resumes from the last checkpoint, and keeps a record.

A run that is killed and started again ends in the same parameters, bit for bit (on a GPU, if XLA is told to be
deterministic): batch, noise and dropout of a step depend on the seed and the step alone, and the state is saved whole.
"""

import contextlib
import logging
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.flops import count_flops
from dfm_jax.runs import barriers
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.compatibility import check_same_config, check_same_optimizer
from dfm_jax.runs.lock import locked
from dfm_jax.runs.metric_writers import writing_metrics
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import TrainState
from dfm_jax.runs.trained_on import follow
from dfm_jax.runs.workdirs import path_of
from dfm_jax.training import data as training_data
from dfm_jax.training import sharding
from dfm_jax.training.choices import settle
from dfm_jax.training.data import TrainData
from dfm_jax.training.ending import Progress, ending_told
from dfm_jax.training.hooks import Hook, LogPreviews, SaveCheckpoints
from dfm_jax.training.initialization import initial_state
from dfm_jax.training.interruptions import StopRequest, Watchdog
from dfm_jax.training.monitor import Monitor, metric_names
from dfm_jax.training.setup import TrainSetup, make_train_setup, rays_per_step
from dfm_jax.training.stopwatch import Stopwatch, peak_flops

logger = logging.getLogger(__name__)

EXIT_DONE = 0
HOW_ELSE = "wait until it ends, or give another --workdir"


def train(
    config: Config,
    workdir: str | pathlib.Path,
    *,
    make_setup: Callable[[Config], TrainSetup] = make_train_setup,
    open_data: Callable[[Config], TrainData] = training_data.open_data,
) -> int:
    """Trains until `config.train.num_steps`, from the last checkpoint in `workdir` if there is one.

    Args:
      make_setup: gives what a step computes.
      open_data: gives what the model is trained on, in each process of the run; it may make what is missing.

    Returns:
      EXIT_DONE; EXIT_RESTART where SIGTERM or SIGHUP ended the run early, EXIT_INTERRUPTED where Ctrl-C did. The state
      is saved each time.

    Raises:
      UserError: if another run is in the workdir, there is no data, the loss needs weights that are not there, the
        checkpoint is another config's or cannot be read or written, the devices do not fit, or the loss or its
        gradients become non-finite.
    """
    with StopRequest() as stop, barriers.by_first(locked(path_of(workdir), "training", HOW_ELSE)):
        return _train(config, workdir, stop, make_setup, open_data)


def _train(
    config: Config, workdir: str | pathlib.Path, stop: StopRequest, make_setup: Callable, open_data: Callable
) -> int:
    settings, stopwatch = config.train, Stopwatch()
    # What a step computes, on which devices and what data.
    config, as_fits = settle(config, workdir)
    setup = make_setup(as_fits)
    mesh = sharding.make_mesh(settings.mesh)
    sharding.check_batch_size(settings.batch_size, as_fits.train.accumulate, mesh)
    data = open_data(config)
    with contextlib.ExitStack() as stack:
        # Where the run is, and what it writes to.
        keep = Retention(settings.keep_checkpoints, settings.keep_every, settings.keep_best)
        checkpoints = stack.enter_context(Checkpoints(workdir, keep=keep))
        start_step = _resume_step(checkpoints, config, workdir)
        if start_step >= settings.num_steps:
            logger.info(f"training has reached step {start_step} of {settings.num_steps} already: nothing to do")
            return EXIT_DONE
        trained_on = follow(checkpoints.trained_on(start_step) if start_step else (), data.fingerprint, start_step)
        batches = stack.enter_context(contextlib.closing(data.batches(start_step)))
        writer = stack.enter_context(writing_metrics(config, workdir, start_step))
        watchdog = stack.enter_context(Watchdog(settings.watchdog_minutes, workdir))
        progress = stack.enter_context(ending_told(Progress(start_step, settings.num_steps), stop, stopwatch))

        # The state, and the step compiled for it and for the batches.
        init_key, step_key, preview_key = _keys(config.seed, mesh)
        constants = step_key, *sharding.replicate(setup.frozen_params, mesh)
        state = initial_state(config, setup.init, checkpoints, mesh, init_key, start_step)
        logger.info(f"{_describe(state)} on {mesh.size} {jax.devices()[0].platform} device(s); compiling the step ...")
        batch = _read(batches, start_step + 1)
        monitor = _make_monitor(config, setup, data, writer, stopwatch, mesh, (state, batch, *constants))
        step_fn = _compile_step(setup, mesh, (state, sharding.shard_batch(batch, mesh), *constants), checkpoints)

        # The duties beside the steps, and the steps.
        saving = SaveCheckpoints(checkpoints, config, monitor, trained_on, stopwatch)
        progress.monitor = monitor
        hooks: list[Hook] = [monitor, progress, saving]
        if settings.sample_every:
            hooks.append(LogPreviews(config, data, setup, monitor, writer, preview_key, mesh, stopwatch))
        hooks.append(watchdog)
        for step in range(start_step + 1, settings.num_steps + 1):
            state, metrics = step_fn(state, sharding.shard_batch(batch, mesh), *constants)
            stopping = stop.requested(step)
            for hook in hooks:
                hook(step, state, metrics, last=stopping or step == settings.num_steps)
            if stopping or step == settings.num_steps:
                break
            with stopwatch.measure("data"), saving.on_error(step, state):
                batch = _read(batches, step + 1)
    return EXIT_DONE if progress.step == settings.num_steps else stop.code


def _resume_step(checkpoints: Checkpoints, config: Config, workdir: str | pathlib.Path) -> int:
    """Step of the last checkpoint, 0 if there is none.

    Raises:
      UserError: it is of another model or optimiser.
    """
    step = checkpoints.resume_step()
    if step:
        saved = checkpoints.config(step)
        check_same_optimizer(saved, config)
        for difference in check_same_config(saved, config, workdir):
            logger.info(f"resuming with another {difference}")
    return step


def _keys(seed: int, mesh: Mesh) -> Array:
    """Keys for initialising, for the steps, and for the pictures, on all devices."""
    return jax.jit(lambda: jax.random.split(jax.random.key(seed), 3), out_shardings=sharding.replicated(mesh))()


def _read(batches: Iterator[Any], step: int) -> Any:
    """The next batch, that of step `step`.

    Raises:
      UserError: it cannot be read.
    """
    try:
        return next(batches)
    except UserError:
        raise
    except Exception as error:
        # Errors of reading processes begin with a traceback.
        message = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"the batch of step {step} cannot be read: {message}") from error


def _make_monitor(
    config: Config, setup: TrainSetup, data: TrainData, writer: Any, stopwatch: Stopwatch, mesh: Mesh, arguments: tuple
) -> Monitor:
    """`arguments`: of a training step, whose operations are counted; the batch is this process's part."""
    peak = peak_flops(mesh.size)
    return Monitor(
        writer,
        num_steps=config.train.num_steps,
        log_every=config.train.log_every,
        rays_per_step=rays_per_step(config),
        describe_batch=lambda step: "scenes " + ", ".join(data.scene_names(step)),
        stopwatch=stopwatch,
        peak_share=None if peak is None else count_flops(setup.step, *arguments) * jax.process_count() / peak,
    )


def _compile_step(
    setup: TrainSetup, mesh: Mesh, arguments: tuple, checkpoints: Checkpoints
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The training step. Several processes have all compiled it when it returns: one may take much longer than another.

    Raises:
      UserError: checkpoints are to be compared by a metric that the step does not have.
    """
    state, _, _, *frozen_params = arguments
    step_fn = sharding.compile_train_step(setup.step, state, mesh, tuple(frozen_params))
    checkpoints.check_best(metric_names(step_fn, *arguments))
    if jax.process_count() == 1:
        return step_fn
    compiled = step_fn.lower(*arguments).compile()
    barriers.barrier("compiled the step")
    return compiled


def _describe(state: TrainState) -> str:
    number = lambda count: f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count}"
    trained, frozen = (sum(x.size for x in jax.tree.leaves(part)) for part in (state.params, state.frozen))
    return f"{number(trained)} parameters" + (f", {number(frozen)} more that are frozen," if frozen else "")
