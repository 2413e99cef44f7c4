"""What models are compared on: views of the evaluation split, always the same."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from dfm_jax.config import DataConfig
from dfm_jax.data.loading import view_sampling
from dfm_jax.data.loading.dataset import SceneDataset, open_dataset
from dfm_jax.data.loading.examples import ExampleLoader, pad, stack, usable_scenes
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.structs import Example


def evaluation_examples(
    config: DataConfig, *, image_size: int, num_scenes: int, seed: int = 0
) -> tuple[Example, list[str]]:
    """The examples of `evaluation_views`, and the names of their scenes."""
    data = open_dataset(config.dir, config.name, config.eval_split)
    views = evaluation_views(config, num_scenes=num_scenes, seed=seed)
    return load_views(config, views, image_size=image_size), [data.names[scene] for scene, _ in views]


def load_views(
    config: DataConfig,
    views: Sequence[tuple[int, ViewIndices]],
    *,
    image_size: int,
    indices: Sequence[int] | None = None,
    num_context: int = 0,
    num_target: int = 0,
    scale: float = 1.0,
    data: SceneDataset | None = None,
) -> Example:
    """A batch of chosen views, not mirrored.

    Args:
      views: number of a scene in the evaluation split, and frames of it.
      indices: `Example.index` of each; None: counted from 0.
      num_context: context views to pad to, if there are not as many.
      num_target: the same of target views.
      scale: of the cameras' translations and the bounds.
      data: the evaluation split, if it is open; to open it takes longer the more scenes it has.

    Raises:
      UserError: a picture is damaged, or a scene's bounds are not known.
    """
    data = open_dataset(config.dir, config.name, config.eval_split) if data is None else data
    loader = ExampleLoader(data, config, image_size, seed=0)
    indices = range(len(views)) if indices is None else indices
    chosen = [loader.chosen(index, scene, frames, scale) for index, (scene, frames) in zip(indices, views, strict=True)]
    return stack([e.replace(context=pad(e.context, num_context), target=pad(e.target, num_target)) for e in chosen])


def evaluation_views(
    config: DataConfig,
    *,
    num_scenes: int,
    seed: int = 0,
    fewer: bool = False,
    option: str = "config.sample.num_scenes",
) -> list[tuple[int, ViewIndices]]:
    """Different scenes of the evaluation split, always the same, with the fewest context views that training sees.

    Captures are few, but have many views: by their rule examples are different views, held out ones where there are
    some, and a scene may occur more than once.

    Args:
      fewer: whether all usable scenes will do, where there are not as many as asked for.
      option: or setting which says how many, to be named where there are not as many.

    Raises:
      UserError: no data set, no usable scene, or (without `fewer`) not as many as asked for.
    """
    data = open_dataset(config.dir, config.name, config.eval_split)
    usable, sampling = usable_scenes(data, config), config.view_sampling
    views = []
    if compare := view_sampling.rule_of(sampling).compare:
        for number, frame, turn in itertools.islice(_compared_views(data, usable, seed), num_scenes):
            poses = data.scene(number).camera_to_world
            held_out = data.held_out(number)
            views.append((number, compare(poses, held_out, frame, turn, sampling)))
        return views
    if len(usable) < num_scenes and not fewer:
        raise UserError(
            f"{num_scenes} scenes are asked for, but split '{config.eval_split}' of {data.path} has {len(usable)} that "
            f"can be used; lower {option}"
        )
    chosen = np.random.default_rng(seed).permutation(usable)[:num_scenes].tolist()
    for index, number in enumerate(chosen):
        scene, rng = data.scene(number), np.random.default_rng((seed, index))
        frames = view_sampling.Frames(scene.camera_to_world, scene.positions, scene.num_source_frames)
        views.append((number, view_sampling.sample_views(rng, frames, sampling, evaluation=True)))
    return views


def _compared_views(data: SceneDataset, scenes: np.ndarray, seed: int) -> Iterator[tuple[int, int, int]]:
    """(scene, frame, turn) without end: frames to compare with, from one scene after the other; those that are held
    out, or all where none are. After a turn with each of them the next begins."""
    rng = np.random.default_rng(seed)
    frames = {}
    for scene in rng.permutation(scenes).tolist():
        held_out = data.held_out(scene)
        frames[scene] = rng.permutation(np.flatnonzero(held_out) if held_out.any() else len(held_out)).tolist()
    for turn in itertools.count():
        for each in range(max(map(len, frames.values()))):
            yield from ((scene, own[each], turn) for scene, own in frames.items() if each < len(own))
