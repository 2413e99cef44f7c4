"""Batches of examples from a prepared data set, by step.

The batch of step `n` is a function of (seed, n) alone: example `i` of the infinite training sequence takes its scene
from a reshuffled pass through the data set and all other choices from a generator seeded with (seed, i). Reading
threads and processes, hosts and restarts change nothing.
"""

import dataclasses
import itertools
import logging
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import grain
import jax
import numpy as np
from absl import flags

from dfm_jax.config import DataConfig
from dfm_jax.data import prepare, transforms, view_sampling
from dfm_jax.data.builders import posed_scenes, toy
from dfm_jax.data.dataset import SceneDataset, SceneRecord, exists, open_dataset
from dfm_jax.errors import UserError
from dfm_jax.structs import Camera, Example, Views

__all__ = ["Batches", "ensure_toy", "evaluation_examples", "open_dataset", "scene_names", "training_batches"]

logger = logging.getLogger(__name__)

TOY_SEED = 0  # of the toy data set that is generated when missing
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
) -> "Batches":
    """This process's share of the batches from `start_step` on, without end.

    Each is an Example of numpy arrays with `batch_size / process_count` scenes: rows
    [process_index * share, (process_index + 1) * share) of the global batch, so that the shares of all processes, one
    after the other, are the batch that a single process would read.

    Raises:
      UserError: no data set, no usable scene, or a batch that cannot be shared out.
    """
    if batch_size % process_count:
        raise UserError(f"config.train.batch_size={batch_size} is not a multiple of the {process_count} processes")
    data = open_dataset(config.dir, config.name, config.split)
    load = _LoadExample(data, config, image_size, seed)
    usable = _usable_scenes(data, config)
    load.bounds(data.scene(int(usable[0])))  # where an error is not one of a reading process
    order = _scene_order(usable, seed)
    share = batch_size // process_count
    positions = _Positions(order, batch_size, share, process_index * share)
    batches = grain.MapDataset.source(positions).map(load).batch(share, batch_fn=_stack)[start_step:]
    options = grain.ReadOptions(config.num_threads, max(config.prefetch, config.num_threads))
    reader = batches.to_iter_dataset(options)
    if config.num_workers:
        _let_workers_read_flags()
        reader = reader.mp_prefetch(grain.MultiprocessingOptions(config.num_workers, max(1, config.prefetch)))
    return Batches(iter(reader))


def scene_names(config: DataConfig, *, batch_size: int, seed: int, step: int) -> list[str]:
    """Which scenes the global batch of a step shows."""
    data = open_dataset(config.dir, config.name, config.split)
    order = _scene_order(_usable_scenes(data, config), seed)
    return [data.names[order[i]] for i in range(step * batch_size, (step + 1) * batch_size)]


def evaluation_examples(
    config: DataConfig, *, image_size: int, num_scenes: int, seed: int = 0
) -> tuple[Example, list[str]]:
    """Different scenes of the evaluation split, always the same, and their names: neither mirrored nor scaled, with the
    fewest context views that training sees (padded as there).

    Captures are few, but have many views: by their rule examples are different views, held out ones where there are
    some, and a scene may occur more than once.

    Raises:
      UserError: no data set, or fewer usable scenes than asked for.
    """
    data = open_dataset(config.dir, config.name, config.eval_split)
    usable = _usable_scenes(data, config)
    load = _LoadExample(data, config, image_size, seed)
    if config.view_sampling.rule == "captures":
        views = list(itertools.islice(_compared_views(data, usable, seed), num_scenes))
        example = _stack([load.compared(index, *view) for index, view in enumerate(views)])
        return example, [data.names[scene] for scene, _, _ in views]
    if len(usable) < num_scenes:
        raise UserError(
            f"{num_scenes} scenes are asked for, but split '{config.eval_split}' of {data.path} has {len(usable)} that "
            "can be used; lower config.sample.num_scenes"
        )
    chosen = np.random.default_rng(seed).permutation(usable)[:num_scenes]
    example = _stack([load.evaluated(index, int(scene)) for index, scene in enumerate(chosen)])
    return example, [data.names[scene] for scene in chosen]


def ensure_toy(config: DataConfig, image_size: int) -> None:
    """Generates the toy data set where the config asks for it and it is missing.

    Raises:
      UserError: the one that is there holds pictures smaller than `image_size`, or none can be made.
    """
    if config.name != "toy":
        return
    if not exists(config.dir, config.name):
        _generate_toy(config, image_size)
    data = open_dataset(config.dir, config.name, config.split)
    stored = data.stored_size(data.scene(0))
    if stored < image_size:
        raise UserError(
            f"the toy data set in {config.dir} has pictures of {stored} pixels, config.image_size is {image_size}; "
            "delete it, or choose another config.data.dir"
        )


def _generate_toy(config: DataConfig, image_size: int) -> None:
    if config.toy_scenes < 1:
        raise UserError(f"config.data.toy_scenes must be at least 1, not {config.toy_scenes}")
    data_dir = Path(config.dir)
    with prepare.exclusive(data_dir, config.name):  # processes that share the folder wait for the first of them
        if not exists(data_dir, config.name):
            logger.info("generating %d toy scenes in %s", config.toy_scenes, data_dir)
            source = toy.ToySource(config.toy_scenes, image_size, TOY_SEED)
            options = posed_scenes.StoreOptions(image_size=0, min_frames=prepare.MIN_FRAMES)
            prepare.build(source, data_dir, config.name, options)


class Batches(Iterator[Example]):
    """Iterates over batches; its reading threads and processes end with `close`, or when it is dropped."""

    def __init__(self, batches: grain.DatasetIterator):
        # In a list that can be emptied: what is still there at the end of the program would find grain half taken down.
        self._batches = [batches]
        self.close = weakref.finalize(self, _close, self._batches)

    def __next__(self) -> Example:
        return next(self._batches[0])


def _close(batches: list[grain.DatasetIterator]) -> None:
    batches.pop().close()


def _usable_scenes(data: SceneDataset, config: DataConfig) -> np.ndarray:
    """Scenes with enough frames for the sampling rule."""
    needed, there = view_sampling.min_frames(config.view_sampling), data.num_training_frames
    usable = np.flatnonzero(there >= needed)
    if not len(usable):
        held_out = " that are not held out" if data.holdout else ""
        raise UserError(
            f"no scene of split '{data.split}' of {data.path} has the {needed} frames that config.data.view_sampling "
            f"needs (the longest has {max(there)}{held_out}); lower min_frame_gap"
        )
    if len(usable) < len(data):
        logger.info("%d of %d scenes have fewer than %d frames: left out", len(data) - len(usable), len(data), needed)
    return usable


def _compared_views(data: SceneDataset, scenes: np.ndarray, seed: int) -> Iterator[tuple[int, int, int]]:
    """(scene, frame, turn) without end: frames to compare with, from one scene after the other; those that are held
    out, or all where none are. After a turn with each of them the next begins."""
    rng = np.random.default_rng(seed)
    frames = {}
    for scene in rng.permutation(scenes).tolist():
        held_out = data.held_out(data.num_frames[scene])
        frames[scene] = rng.permutation(np.flatnonzero(held_out) if held_out.any() else len(held_out)).tolist()
    for turn in itertools.count():
        for each in range(max(map(len, frames.values()))):
            yield from ((scene, own[each], turn) for scene, own in frames.items() if each < len(own))


def _scene_order(scenes: np.ndarray, seed: int) -> grain.MapDataset:
    """Scene of each position in the infinite training sequence; each pass through the data is shuffled anew."""
    return grain.MapDataset.source(scenes.tolist()).seed(seed).shuffle().repeat()


@dataclasses.dataclass(frozen=True)
class _Positions(Sequence):
    """(global example index, scene) of each example that this process reads, in order."""

    order: grain.MapDataset
    batch_size: int
    share: int  # examples of this process in a batch
    first: int  # of them

    def __len__(self) -> int:
        return ENDLESS // self.batch_size * self.share

    def __getitem__(self, i: int) -> tuple[int, int]:
        index = i // self.share * self.batch_size + self.first + i % self.share
        return index, self.order[index]


@dataclasses.dataclass(frozen=True)
class _LoadExample:
    """One example, without batch axis, from its global index and scene."""

    data: SceneDataset
    config: DataConfig
    image_size: int
    seed: int

    def __call__(self, position: tuple[int, int]) -> Example:
        """For training: without the frames that are held out, mirrored and scaled at random."""
        index, number = position
        scene = self.data.scene(number)
        sampling = self.config.view_sampling
        rng = np.random.default_rng((self.seed, index))
        kept = np.flatnonzero(~self.data.held_out(scene.num_frames))
        draw = view_sampling.draw_views(rng, scene.camera_to_world[kept], sampling)
        draw = view_sampling.Draw(kept[draw.context], kept[draw.target])
        flip = rng.random() < sampling.flip_probability
        scale = 1 + sampling.scale_jitter * rng.uniform(-1, 1)
        return self._example(index, scene, draw, flip, scale)

    def evaluated(self, index: int, number: int) -> Example:
        scene = self.data.scene(number)
        rng = np.random.default_rng((self.seed, index))
        draw = view_sampling.draw_views(rng, scene.camera_to_world, self.config.view_sampling, evaluation=True)
        return self._example(index, scene, draw, flip=False, scale=1.0)

    def compared(self, index: int, number: int, frame: int, turn: int) -> Example:
        scene = self.data.scene(number)
        held_out = self.data.held_out(scene.num_frames)
        draw = view_sampling.draw_for_comparison(
            scene.camera_to_world, held_out, frame, turn, self.config.view_sampling
        )
        return self._example(index, scene, draw, flip=False, scale=1.0)

    def _example(self, index: int, scene: SceneRecord, draw: view_sampling.Draw, flip: bool, scale: float) -> Example:
        context, target = self._views(scene, draw, flip, scale)
        near, far = self.bounds(scene)
        return Example(
            context=context,
            target=target,
            near=np.float32(near * scale),
            far=np.float32(far * scale),
            index=np.int32(index),
        )

    def bounds(self, scene: SceneRecord) -> tuple[float, float]:
        """Those of the config, or the scene's own."""
        if self.config.near:
            return self.config.near, self.config.far
        if not 0 < scene.near < scene.far < np.inf:
            raise UserError(
                f"config.data.near and config.data.far are 0, but scene {scene.name} of {self.data.path} has no bounds "
                f"of its own (near {scene.near}, far {scene.far}): set both"
            )
        return scene.near, scene.far

    def _views(self, scene: SceneRecord, draw: view_sampling.Draw, flip: bool, scale: float) -> tuple[Views, Views]:
        frames = np.concatenate([draw.context, draw.target])
        images = np.stack([self.data.image(scene, int(frame), self.image_size) for frame in frames])
        poses, intrinsics = scene.camera_to_world[frames], scene.intrinsics[frames]
        if flip:
            images, poses, intrinsics = transforms.mirror(images, poses, intrinsics)
        poses = transforms.scale_world(poses, scale)
        views = Views(
            images=images,
            camera=Camera(
                camera_to_world=transforms.relative_to_first(poses).astype(np.float32),
                intrinsics=intrinsics.astype(np.float32),
            ),
            absolute_pose=poses[:, :3].astype(np.float32),
            valid=np.ones(len(frames), bool),
        )
        num_context = len(draw.context)
        context = jax.tree.map(lambda x: x[:num_context], views)
        target = jax.tree.map(lambda x: x[num_context:], views)
        return _pad(context, self.config.view_sampling.max_context), target


def _pad(views: Views, length: int) -> Views:
    """Padding views are black and, so that every number stays finite, seen from view 0."""
    missing = length - len(views.valid)
    padded = jax.tree.map(lambda x: np.concatenate([x, np.repeat(x[:1], missing, axis=0)]), views)
    padded.images[length - missing :] = 0
    padded.valid[length - missing :] = False
    return padded


def _stack(examples: Sequence[Example]) -> Example:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)


def _let_workers_read_flags() -> None:
    """grain hands this program's absl flags to its reading processes, which fails where nobody has parsed them (a test,
    a notebook)."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
