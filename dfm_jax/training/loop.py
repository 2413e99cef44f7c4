"""Trains a model from a config: builds what the step needs, goes on from the last checkpoint, and keeps a record.

A run that is killed and started again ends in the same parameters, bit for bit (on a GPU, if XLA is told to be
deterministic): batch, noise and dropout of a step depend on the seed and the step alone, and the state is saved whole.
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import Array
from jax.sharding import Mesh

from dfm_jax.config import Config
from dfm_jax.data.loading import pipeline, toy_data
from dfm_jax.errors import UserError
from dfm_jax.flops import count_flops
from dfm_jax.runs import barriers, metric_writers
from dfm_jax.runs.checkpoints import Checkpoints, Retention
from dfm_jax.runs.compatibility import check_same_config, check_same_optimizer, tell_untrained_guidance
from dfm_jax.runs.log import say
from dfm_jax.runs.output_folders import cure_of
from dfm_jax.runs.train_state import TrainState
from dfm_jax.runs.trained_on import History, follow
from dfm_jax.runs.workdirs import path_of
from dfm_jax.structs import Example
from dfm_jax.training import sharding
from dfm_jax.training.interruptions import SaveSchedule, StopRequest, Watchdog
from dfm_jax.training.job import Job, build, rays_per_step
from dfm_jax.training.monitor import Monitor, NonFiniteError, format_duration, metric_names
from dfm_jax.training.start import first_state
from dfm_jax.training.stopwatch import Stopwatch, peak_flops

EXIT_DONE = 0
PrepareData = Callable[[Config], Config]
HOW_ELSE = "wait until it ends, or give another --workdir"
PREVIEW_SCENES = 4


def train(config: Config, workdir: str | pathlib.Path, prepare_data: PrepareData = toy_data.with_toy_folder) -> int:
    """Trains until `config.train.num_steps`, from the last checkpoint in `workdir` if there is one.

    Args:
      prepare_data: gives, in each process of the run, the settings with the name of the folder that the data set is
        read from; it may make what is missing, as `data.make_toy` does.

    Returns:
      EXIT_DONE; EXIT_RESTART where SIGTERM or SIGHUP ended the run early, EXIT_INTERRUPTED where Ctrl-C did. The state
      is saved each time.

    Raises:
      UserError: if another run is in the workdir, there is no data, the loss needs weights that are not there, the
        checkpoint is another config's or cannot be read or written, the devices do not fit, or the loss or its
        gradients become non-finite.
    """
    with StopRequest() as stop, barriers.locked_by_first(path_of(workdir), "training", HOW_ELSE):
        return _train(config, workdir, prepare_data, stop)


def _train(config: Config, workdir: str | pathlib.Path, prepare_data: PrepareData, stop: StopRequest) -> int:
    stopwatch = Stopwatch()
    job = build(config)
    mesh = sharding.make_mesh(config.train.mesh)
    sharding.check_batch_size(config.train.batch_size, config.train.accumulate, mesh)
    reading, split = _prepare_data(config, prepare_data)
    keep = Retention(config.train.keep_checkpoints, config.train.keep_every, config.train.keep_best)
    with Checkpoints(workdir, keep=keep) as checkpoints:
        start = checkpoints.resume_step()
        if start:
            saved = checkpoints.config(start)
            check_same_optimizer(saved, config)
            for difference in check_same_config(saved, config, workdir):
                say(f"going on with another {difference}")
        if start >= config.train.num_steps:
            say(f"training has reached step {start} of {config.train.num_steps} already: nothing to do")
            return EXIT_DONE
        trained_on = follow(checkpoints.trained_on(start) if start else (), split, start)
        with (
            contextlib.closing(_batches(reading, start)) as batches,
            _writer(config, workdir, start) as writer,
            Watchdog(config.train.watchdog_minutes, workdir) as watchdog,
        ):
            run = Run(config, reading, trained_on, job, mesh, checkpoints, stop, watchdog, writer, stopwatch)
            return run.go(batches, start)


@dataclasses.dataclass
class Run:
    """The steps of a run, and what is done beside them."""

    config: Config
    reading: Config  # the same, with the name of the folder that the data set is read from
    trained_on: History
    job: Job
    mesh: Mesh
    checkpoints: Checkpoints
    stop: StopRequest
    watchdog: Watchdog
    writer: Any
    stopwatch: Stopwatch
    step: int = dataclasses.field(init=False)  # taken last
    monitor: Monitor | None = dataclasses.field(init=False, default=None)

    def go(self, batches: Iterator, start: int) -> int:
        """Steps `start + 1` to `num_steps`; step n, and what is said of it, is the one that makes the state's step n.

        Says at the end, in one line, why that was.
        """
        self.step, reason = start, "an error"
        try:
            code = self._steps(batches, start)
            reason = "all steps are done"
            if code != EXIT_DONE:
                reason = f"stopped by {self.stop.cause}; step {self.step} is saved, the same command goes on from there"
            return code
        except NonFiniteError:
            reason = "the loss or its gradients are not finite"
            raise
        except jax.errors.JaxRuntimeError as error:
            if jax.process_count() == 1:
                raise
            raise UserError(
                f"process {jax.process_index()} of {jax.process_count()} stops after step {self.step}: "
                f"{_first_line(error)}; if another one has ended or told an error, mend that, and start all of them "
                "again with the same command"
            ) from error
        finally:
            say(self._summary(reason))

    def _steps(self, batches: Iterator, start: int) -> int:
        config, settings = self.config, self.config.train
        frozen = sharding.replicate(self.job.frozen, self.mesh)
        init_key, step_key, preview_key = _keys(config.seed, self.mesh)
        state = first_state(config, self.job.init, self.checkpoints, self.mesh, init_key, start)
        say(f"{_describe(state)} on {self.mesh.size} {jax.devices()[0].platform} device(s); compiling the step ...")
        step_fn = sharding.compile_train_step(self.job.step, state, self.mesh, frozen)
        show = self._previewer(preview_key) if settings.sample_every else None
        schedule = SaveSchedule(settings.checkpoint_every, settings.checkpoint_minutes, settings.log_every)
        for step in range(start + 1, settings.num_steps + 1):
            with self.stopwatch.measure("data"):
                batch = self._next(batches, state)
            if self.monitor is None:
                self.monitor = self._make_monitor(state, batch, step_key, *frozen)
            batch = sharding.shard_batch(batch, self.mesh)
            if step == start + 1:
                if settings.keep_best:
                    self.checkpoints.check_best(metric_names(step_fn, state, batch, step_key, *frozen))
                step_fn = _compiled_by_all(step_fn, state, batch, step_key, *frozen)
            state, metrics = step_fn(state, batch, step_key, *frozen)
            self.monitor.add(step, metrics)
            self.step = step
            self.stop.stepped()
            stopping = self.stop.requested(step)
            if schedule.due(step) or stopping or step == settings.num_steps:
                self._save(state)
            if show and step % settings.sample_every == 0:
                self.monitor.settle()
                with self.stopwatch.measure("pictures"):
                    show(step, sharding.to_device_memory(state.ema))
            if stopping and step < settings.num_steps:
                self.checkpoints.wait()
                return self.stop.code
            self.checkpoints.check()
            self.watchdog.seen()
        return EXIT_DONE

    def _next(self, batches: Iterator, state: TrainState) -> Example:
        """The next batch. Where it cannot be read, what has been reached is saved first (by a single process: others
        would wait for all)."""
        try:
            return next(batches)
        except Exception as error:
            if jax.process_count() == 1 and self.monitor:
                self._save(state)
            if isinstance(error, UserError):
                raise
            raise UserError(f"the batch of step {self.step + 1} cannot be read: {_last_line(error)}") from error

    def _save(self, state: TrainState) -> None:
        self.monitor.settle()
        with self.stopwatch.measure("checkpoints"):
            self.checkpoints.save(self.step, state, self.config, self.monitor.take_means(), self.trained_on)

    def _make_monitor(self, *arguments: Any) -> Monitor:
        """`arguments`: of a training step, whose operations are counted; the batch is this process's part."""
        peak = peak_flops(self.mesh.size)
        share = None if peak is None else count_flops(self.job.step, *arguments) * jax.process_count() / peak
        return Monitor(
            self.writer,
            num_steps=self.config.train.num_steps,
            log_every=self.config.train.log_every,
            rays_per_step=rays_per_step(self.config),
            describe_batch=lambda step: "scenes " + ", ".join(_scene_names(self.reading, step - 1)),
            stopwatch=self.stopwatch,
            peak_share=share,
        )

    def _previewer(self, key: Array) -> Callable[[int, Any], None]:
        """A function that samples the evaluation scenes with given parameters and logs the pictures; always from the
        same noise, so that they can be compared. The first process does so, on its devices; the others wait."""
        config, writer = self.reading, self.writer
        scenes = min(PREVIEW_SCENES, config.sample.num_scenes)
        if scenes < config.sample.num_scenes:
            say(f"pictures while training show {scenes} of config.sample.num_scenes={config.sample.num_scenes} scenes")
        tell_untrained_guidance(dataclasses.asdict(config), config)
        example, _ = pipeline.evaluation_examples(config.data, image_size=config.image_size, num_scenes=scenes)
        local_key = sharding.local_copy(key, self.mesh)

        def show(step: int, params: Any) -> None:
            params = sharding.local_copy(params, self.mesh)
            if jax.process_index() == 0:
                writer.write_images(step, {"samples": self.job.preview(params, example, local_key)})
            barriers.barrier("pictures")

        return show

    def _summary(self, reason: str) -> str:
        watch, settings = self.stopwatch, self.config.train
        line = (
            f"ended at step {self.step} of {settings.num_steps}: {reason}; {format_duration(watch.elapsed())}, "
            f"goodput {100 * watch.goodput():.0f} %" + (f" ({watch.shares()})" if watch.shares() else "")
        )
        if self.monitor and self.monitor.num_skipped:
            line += f"; {self.monitor.num_skipped} steps left out for their gradients"
        return line


def _compiled_by_all(step_fn: Any, *arguments: Any) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The step, once all processes have compiled it: one may take much longer than another."""
    if jax.process_count() == 1:
        return step_fn
    compiled = step_fn.lower(*arguments).compile()
    barriers.barrier("compiled the step")
    return compiled


def _first_line(error: Exception) -> str:
    """Of a message; those of the runtime go on with internals."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _last_line(error: Exception) -> str:
    """Of a message; those from reading processes begin with a traceback."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _keys(seed: int, mesh: Mesh) -> Array:
    """Keys for initialising, for the steps, and for the pictures, on all devices."""
    return jax.jit(lambda: jax.random.split(jax.random.key(seed), 3), out_shardings=sharding.replicated(mesh))()


def _prepare_data(config: Config, prepare: PrepareData) -> tuple[Config, dict[str, Any]]:
    """Makes sure that the data set is there.

    Returns:
      the settings with the name of the folder that it is read from, and the fingerprint of the split.
    """
    reading = prepare(config)
    data = reading.data
    return reading, pipeline.open_dataset(data.dir, data.name, data.split).fingerprint()


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
    """Where numbers and pictures go. What cannot be written is a UserError, if nothing else has ended the run."""
    try:
        writer = metric_writers.create_writer(workdir, start_step=start, enabled=jax.process_index() == 0)
        try:
            writer.write_texts(start, {"config": f"```\n{json.dumps(dataclasses.asdict(config), indent=2)}\n```"})
            yield writer
        except BaseException:
            with contextlib.suppress(*metric_writers.ERRORS):  # what ended the run is what the user must know
                writer.close()
            raise
        writer.close()
    except metric_writers.ERRORS as error:
        raise UserError(
            f"numbers and pictures could not be written to {workdir} ({error}): {cure_of(error)}"
        ) from error


def _describe(state: TrainState) -> str:
    count = sum(x.size for x in jax.tree.leaves(state.params))
    return f"{count / 1e6:.1f} M parameters" if count >= 1e5 else f"{count} parameters"
