"""Duties beside the steps of a training run.

A hook is called after each step, by all processes, in the order in which the run lists its hooks.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
from jax import Array

from dfm_jax.config import Config
from dfm_jax.runs import barriers
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.compatibility import tell_untrained_guidance
from dfm_jax.runs.train_state import TrainState
from dfm_jax.runs.trained_on import History
from dfm_jax.training import sharding
from dfm_jax.training.data import TrainData
from dfm_jax.training.interruptions import SaveSchedule
from dfm_jax.training.monitor import Monitor
from dfm_jax.training.setup import TrainSetup
from dfm_jax.training.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

PREVIEW_SCENES = 4


class Hook(Protocol):
    def __call__(self, step: int, state: TrainState, metrics: Mapping[str, Array], *, last: bool) -> None:
        """
        Args:
          step: number of the step that made `state` and `metrics`, from 1.
          last: whether the run ends after it.
        """


@dataclasses.dataclass
class SaveCheckpoints:
    """Saves the state when the schedule says, and after the last step."""

    checkpoints: Checkpoints
    config: Config
    monitor: Monitor
    trained_on: History
    stopwatch: Stopwatch

    def __post_init__(self) -> None:
        settings = self.config.train
        self._schedule = SaveSchedule(settings.checkpoint_every, settings.checkpoint_minutes, settings.log_every)

    def __call__(self, step: int, state: TrainState, metrics: Mapping[str, Array], *, last: bool) -> None:
        del metrics
        if self._schedule.due(step) or last:
            self.save(step, state)
        if last:
            self.checkpoints.wait()
        self.checkpoints.check()

    @contextlib.contextmanager
    def on_error(self, step: int, state: TrainState) -> Iterator[None]:
        """A context whose error does not lose the state of `step`: it is saved first (by a single process: others would
        wait for all)."""
        try:
            yield
        except Exception:
            if jax.process_count() == 1:
                self.save(step, state)
            raise

    def save(self, step: int, state: TrainState) -> None:
        """Begins to save; only what the monitor has found finite is saved."""
        self.monitor.flush()
        with self.stopwatch.measure("checkpoints"):
            self.checkpoints.save(step, state, self.config, self.monitor.pop_means(), self.trained_on)


class LogPreviews:
    """Samples a few held-out scenes every `config.train.sample_every` steps, and logs the pictures; always from the
    same noise, so that they can be compared. The first process does so, on its devices; the others wait."""

    def __init__(
        self,
        config: Config,
        data: TrainData,
        setup: TrainSetup,
        monitor: Monitor,
        writer: Any,
        key: Array,
        mesh: sharding.Mesh,
        stopwatch: Stopwatch,
    ):
        """
        Args:
          writer: has clu's `write_images`.
          key: on all devices of the mesh.
        """
        scenes = min(PREVIEW_SCENES, config.sample.num_scenes)
        if scenes < config.sample.num_scenes:
            logger.info(
                f"pictures while training show {scenes} of config.sample.num_scenes={config.sample.num_scenes} scenes"
            )
        tell_untrained_guidance(dataclasses.asdict(config), config)
        self._every, self._preview = config.train.sample_every, setup.preview
        self._monitor, self._writer, self._mesh, self._stopwatch = monitor, writer, mesh, stopwatch
        self._example, self._key = data.evaluation_example(scenes), sharding.local_copy(key, mesh)

    def __call__(self, step: int, state: TrainState, metrics: Mapping[str, Array], *, last: bool) -> None:
        del metrics, last
        if step % self._every:
            return
        self._monitor.flush()
        with self._stopwatch.measure("pictures"):
            params = sharding.local_copy(sharding.to_device_memory(state.averaged), self._mesh)
            if jax.process_index() == 0:
                self._writer.write_images(step, {"samples": self._preview(params, self._example, self._key)})
            barriers.barrier("pictures")
