"""The procedural data set that a config asks for, toy or another of `generators.py`, found by what made it.

`config.data.name=toy` stands for `toy_scenes` training scenes of the generator, with pictures of the config's size. It
is read from DIR/toy if that is what lies there (`prepare --format=toy` makes one), or else from DIR/toy-2000-24px, a
name that says what is in it: the data set of another config is never taken for this one's. `data.make_toy` generates
it where it is missing. So it is with `shapes`, and `toy_scenes` counts its scenes, too.
"""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dfm_jax.config import Config, DataConfig
from dfm_jax.data.loading.dataset import SceneDataset, exists, open_splits
from dfm_jax.data.loading.generators import GENERATORS
from dfm_jax.data.loading.procedural import ProceduralScenes, frame_name
from dfm_jax.errors import UserError

logger = logging.getLogger(__name__)

SEED = 0
# Mean over pixels, in steps of 8 bits: on another processor a ray at an edge may meet another surface, no more.
MOST_DIFFERENCE = 1.0


def find_toy(
    config: DataConfig, image_size: int, make: Callable[[DataConfig, str, int], None] | None = None
) -> DataConfig:
    """Finds the procedural data set where the config asks for one.

    Args:
      make: called with `config`, a name below `config.dir` and `image_size` where the data set is missing; None: where
        it was missing, another process has made it, and has said what there is to say.

    Returns:
      the settings with the name of the folder that holds the data set; as they are where they ask for none.

    Raises:
      UserError: it is missing, or what lies under its name is something else.
    """
    if config.name not in GENERATORS or config.toy_scenes == 0:
        return config
    if config.toy_scenes < 0:
        raise UserError(f"config.data.toy_scenes must be at least 1, or 0 to take what is there: {config.toy_scenes}")
    unlike = ""
    if exists(config.dir, config.name):
        unlike = _unlike(config, config.name, image_size)
        if not unlike:
            return config
    name = f"{config.name}-{config.toy_scenes}-{image_size}px"
    if make:
        if unlike:
            logger.warning("%s %s: taking %s", Path(config.dir) / config.name, unlike, Path(config.dir) / name)
        if not exists(config.dir, name):  # it may lie where nothing may be written
            make(config, name, image_size)
    elif not exists(config.dir, name):
        raise UserError(f"there is no data set '{name}' in {config.dir}: train on it, and it is generated")
    if unlike := _unlike(config, name, image_size):
        raise UserError(f"{Path(config.dir) / name} {unlike}: delete it, or choose another config.data.dir")
    return dataclasses.replace(config, name=name)


def with_toy_folder(config: Config) -> Config:
    """All settings, with the name of the folder that a procedural data set is read from if they ask for one, as of
    `find_toy`."""
    return dataclasses.replace(config, data=find_toy(config.data, config.image_size))


def _unlike(config: DataConfig, name: str, image_size: int) -> str:
    """In which way a data set is not the one that the config asks for; '' where it is. Larger pictures will do, as they
    are reduced when they are read."""
    splits = {split.split: split for split in open_splits(config.dir, name)}
    train = splits.get("train")
    if train is None or not len(train):
        return f"is no {config.name} data set"
    if len(train) != config.toy_scenes:
        return f"holds {len(train)} scenes, and config.data.toy_scenes={config.toy_scenes} asks for others"
    size = train.stored_size(train.scene(0))
    if size < image_size:
        return f"has pictures of {size} pixels, fewer than config.image_size={image_size}"
    scenes = GENERATORS[config.name].scenes(config.toy_scenes, size, SEED)
    wanted = scenes.splits()
    same_names = {split: list(data.names) for split, data in splits.items()} == wanted
    if not same_names or not all(_is_generated(data, scenes) for data in splits.values()):
        return f"is not what the generator makes of {config.toy_scenes} scenes with seed {SEED}"
    return ""


def _is_generated(data: SceneDataset, scenes: ProceduralScenes) -> bool:
    """Whether the first scene of a split is the generator's: its seed and its version show in each."""
    stored, made = data.scene(0), scenes.scene(data.split, data.names[0])
    if not all(stored.attributes.get(name) == _as_stored(value) for name, value in made.attributes.items()):
        return False
    frames = {frame_name(i): i for i in range(len(made.images))}
    if not set(stored.frame_names) <= frames.keys():
        return False
    kept = [frames[name] for name in stored.frame_names]  # of tiny pictures some are equal, and were left out
    if not np.allclose(stored.camera_to_world, made.camera_to_world[kept]):
        return False
    difference = data.image(stored, 0, made.images.shape[1]) - made.images[kept[0]] / np.float32(255)
    return 255 * float(np.abs(difference).mean()) <= MOST_DIFFERENCE


def _as_stored(value: object) -> object:
    """JSON knows no tuples."""
    return list(value) if isinstance(value, tuple) else value
