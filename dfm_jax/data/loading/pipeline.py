"""Batches of examples from a prepared data set, by step.

The batch of step `n` is a function of (seed, n) alone: example `i` of the infinite training sequence takes its scene
from a reshuffled pass through the data set and all other choices from a generator seeded with (seed, i). Reading
threads and processes, hosts and restarts change nothing.
"""

import dataclasses
import weakref
from collections.abc import Iterator, Sequence

import grain
import numpy as np
from absl import flags

from dfm_jax import interrupts
from dfm_jax.config import DataConfig
from dfm_jax.data.loading import measurements
from dfm_jax.data.loading.dataset import open_dataset
from dfm_jax.data.loading.evaluation_views import evaluation_examples
from dfm_jax.data.loading.examples import ExampleLoader, stack, usable_scenes
from dfm_jax.errors import UserError
from dfm_jax.structs import Example

__all__ = [
    "BatchIterator",
    "evaluation_examples",
    "open_dataset",
    "scene_names",
    "training_batches",
]

ENDLESS = 2**60  # examples in the training sequence; lengths near the largest integer overflow in grain


def training_batches(
    config: DataConfig,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> "BatchIterator":
    """This process's part of the batches from `start_step` on, without end.

    Each is an Example of numpy arrays with n = `batch_size / process_count` scenes: rows
    [process_index * n, (process_index + 1) * n) of the global batch, so that the local batches of all processes, one
    after the other, are the batch that a single process would read.

    Raises:
      UserError: no data set, no usable scene, or a batch size that is no multiple of the processes.
    """
    if batch_size % process_count:
        raise UserError(f"config.train.batch_size={batch_size} is not a multiple of the {process_count} processes")
    data = open_dataset(config.dir, config.name, config.split)
    load = ExampleLoader(data, config, image_size, seed)
    usable = usable_scenes(data, config)
    load.bounds(data.scene(int(usable[0])))  # where an error is not one of a reading process
    measurements.check(data, int(usable[0]), config.measurements)
    order = _scene_order(usable, seed)
    local_batch_size = batch_size // process_count
    positions = _Positions(order, batch_size, local_batch_size, process_index * local_batch_size)
    batches = grain.MapDataset.source(positions).map(load).batch(local_batch_size, batch_fn=stack)[start_step:]
    options = grain.ReadOptions(config.num_threads, max(config.prefetch, config.num_threads))
    reader = batches.to_iter_dataset(options)
    if config.num_workers:
        _let_workers_read_flags()
        reader = reader.mp_prefetch(grain.MultiprocessingOptions(config.num_workers, max(1, config.prefetch)))
    return BatchIterator(iter(reader))


def scene_names(config: DataConfig, *, batch_size: int, seed: int, step: int) -> list[str]:
    """Which scenes the global batch of a step shows."""
    data = open_dataset(config.dir, config.name, config.split)
    order = _scene_order(usable_scenes(data, config), seed)
    return [data.names[order[i]] for i in range(step * batch_size, (step + 1) * batch_size)]


class BatchIterator(Iterator[Example]):
    """Iterates over batches; its reading threads and processes end with `close`, or when it is dropped."""

    def __init__(self, batches: grain.DatasetIterator):
        # In a list that can be emptied: what is still there at the end of the program would find grain half taken down.
        self._batches = [batches]
        self.close = weakref.finalize(self, _close, self._batches)

    def __next__(self) -> Example:
        with interrupts.kept_from_children():  # the first call starts the reading processes
            return next(self._batches[0])


def _close(batches: list[grain.DatasetIterator]) -> None:
    batches.pop().close()


def _scene_order(scenes: np.ndarray, seed: int) -> grain.MapDataset:
    """Scene of each position in the infinite training sequence; each pass through the data is shuffled anew."""
    return grain.MapDataset.source(scenes.tolist()).seed(seed).shuffle().repeat()


@dataclasses.dataclass(frozen=True)
class _Positions(Sequence):
    """(global example index, scene) of each example that this process reads, in order."""

    order: grain.MapDataset
    batch_size: int
    local_batch_size: int  # examples of this process in a batch
    first: int  # of them, counted in the global batch

    def __len__(self) -> int:
        return ENDLESS // self.batch_size * self.local_batch_size

    def __getitem__(self, i: int) -> tuple[int, int]:
        index = i // self.local_batch_size * self.batch_size + self.first + i % self.local_batch_size
        return index, self.order[index]


def _let_workers_read_flags() -> None:
    """grain hands this program's absl flags to its reading processes, which fails where nobody has parsed them (a test,
    a notebook)."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
