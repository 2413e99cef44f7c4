"""The data of a training run: batches, what was in them, and examples for the pictures."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from dfm_jax.config import Config
from dfm_jax.data.loading import pipeline, toy_data
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import GeneratingModel
from dfm_jax.runs import fingerprints
from dfm_jax.structs import Example


class TrainData(Protocol):
    """What the training loop asks of its data."""

    fingerprint: dict[str, Any]  # of the split: resuming with another one is noticed

    def batches(self, start_step: int) -> Iterator[Any]:
        """This process's part of each batch from that of step `start_step + 1` on, without end; has `close`."""

    def scene_names(self, step: int) -> list[str]:
        """Which scenes the global batch of step `step` (counted from 1) shows."""

    def evaluation_example(self, num_scenes: int) -> Any:
        """An example [num_scenes] of held-out scenes."""


def open_data(config: Config, prepare: Callable[[Config], Config] = toy_data.with_toy_folder) -> TrainData:
    """What a config's model is trained on: its data set, or examples of the model's own making.

    Raises:
      UserError: as `PosedScenes.open`.
    """
    model = make_model(config)
    return GeneratedExamples(config, model) if isinstance(model, GeneratingModel) else PosedScenes.open(config, prepare)


@dataclasses.dataclass(frozen=True)
class GeneratedExamples:
    """Examples that a model makes itself, as they are asked for."""

    config: Config
    model: GeneratingModel

    @property
    def fingerprint(self) -> dict[str, Any]:
        settings = fingerprints.of_json(dataclasses.asdict(self.config.model))
        return {"scenes": 0, "frames": 0, "holdout": 0, "index": settings, "files": None}

    def batches(self, start_step: int) -> Iterator[Any]:
        size = self.config.train.batch_size // jax.process_count()
        for step in itertools.count(start_step):
            first = step * self.config.train.batch_size + jax.process_index() * size
            yield self.model.generate(self.config.seed, np.arange(first, first + size))

    def scene_names(self, step: int) -> list[str]:
        size = self.config.train.batch_size
        return [f"{(step - 1) * size} to {step * size - 1}, of the model's own making"]

    def evaluation_example(self, num_scenes: int) -> Any:
        return self.model.generate(self.config.seed, np.arange(num_scenes), held_out=True)


@dataclasses.dataclass(frozen=True)
class PosedScenes:
    """The data set that a config names, as `dfm_jax.data.prepare` writes it."""

    config: Config  # with the name of the folder that it is read from
    fingerprint: dict[str, Any]

    @classmethod
    def open(cls, config: Config, prepare: Callable[[Config], Config] = toy_data.with_toy_folder) -> "PosedScenes":
        """
        Args:
          prepare: gives, in each process of the run, the settings with the name of the folder that the data set is read
            from; it may make what is missing, as `data.make_toy` does.

        Raises:
          UserError: it is not there, or cannot be made.
        """
        config = prepare(config)
        return cls(config, pipeline.open_dataset(config.data.dir, config.data.name, config.data.split).fingerprint())

    def batches(self, start_step: int) -> pipeline.BatchIterator:
        return pipeline.training_batches(
            self.config.data,
            image_size=self.config.image_size,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed,
            start_step=start_step,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def scene_names(self, step: int) -> list[str]:
        config = self.config
        return pipeline.scene_names(config.data, batch_size=config.train.batch_size, seed=config.seed, step=step - 1)

    def evaluation_example(self, num_scenes: int) -> Example:
        config = self.config
        example, _ = pipeline.evaluation_examples(config.data, image_size=config.image_size, num_scenes=num_scenes)
        return example
