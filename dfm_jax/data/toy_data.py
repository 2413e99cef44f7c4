"""The toy data set that a config asks for: found by what made it, and generated where it is missing.

`config.data.name=toy` stands for `toy_scenes` training scenes of the generator, with pictures of the config's size. It
is read from DIR/toy if that is what lies there (`prepare --format=toy` makes one), or else from DIR/toy-2000-24px, a
name that says what is in it: the data set of another config is never taken for this one's.
"""

import dataclasses
import logging
from pathlib import Path

import numpy as np

from dfm_jax.config import DataConfig
from dfm_jax.data import prepare
from dfm_jax.data.builders import toy
from dfm_jax.data.loading import transforms
from dfm_jax.data.loading.dataset import SceneDataset, exists, open_splits
from dfm_jax.data.preparing import posed_scenes
from dfm_jax.errors import UserError

logger = logging.getLogger(__name__)

NAME = "toy"  # config.data.name
SEED = 0
# Mean over pixels, in steps of 8 bits: on another processor a ray at an edge may meet another surface, no more.
MOST_DIFFERENCE = 1.0


def ensure_toy(config: DataConfig, image_size: int) -> DataConfig:
    """Generates the toy data set where the config asks for one and it is missing.

    Returns:
      the settings with the name of the folder that holds the data set; as they are where they ask for no toy scenes.

    Raises:
      UserError: none can be made, or what lies under its name is something else.
    """
    return _settled(config, image_size, generate=True)


def find_toy(config: DataConfig, image_size: int) -> DataConfig:
    """As `ensure_toy`, where another process has generated what was missing, and has said what there is to say.

    Raises:
      UserError: it is missing.
    """
    return _settled(config, image_size, generate=False)


def _settled(config: DataConfig, image_size: int, generate: bool) -> DataConfig:
    if config.name != NAME or config.toy_scenes == 0:
        return config
    if config.toy_scenes < 0:
        raise UserError(f"config.data.toy_scenes must be at least 1, or 0 to take what is there: {config.toy_scenes}")
    unlike = ""
    if exists(config.dir, NAME):
        unlike = _unlike(config, NAME, image_size)
        if not unlike:
            return config
    name = f"{NAME}-{config.toy_scenes}-{image_size}px"
    if generate:
        if unlike:
            logger.warning("%s %s: taking %s", Path(config.dir) / NAME, unlike, Path(config.dir) / name)
        if not exists(config.dir, name):  # it may lie where nothing may be written
            _generate(config, name, image_size)
    elif not exists(config.dir, name):
        raise UserError(f"there is no data set '{name}' in {config.dir}: train on it, and it is generated")
    if unlike := _unlike(config, name, image_size):
        raise UserError(f"{Path(config.dir) / name} {unlike}: delete it, or choose another config.data.dir")
    return dataclasses.replace(config, name=name)


def _generate(config: DataConfig, name: str, image_size: int) -> None:
    data_dir = Path(config.dir)
    with prepare.exclusive(data_dir, name):  # processes that share the folder wait for the first of them
        if not exists(data_dir, name):
            logger.info("generating %d toy scenes in %s", config.toy_scenes, data_dir / name)
            source = toy.ToySource(config.toy_scenes, image_size, SEED)
            options = posed_scenes.StoreOptions(image_size=0, min_frames=prepare.MIN_FRAMES)
            prepare.build(source, data_dir, name, options)


def _unlike(config: DataConfig, name: str, image_size: int) -> str:
    """In which way a data set is not the one that the config asks for; '' where it is. Larger pictures will do, as they
    are reduced when they are read."""
    splits = {split.split: split for split in open_splits(config.dir, name)}
    train = splits.get("train")
    if train is None or not len(train):
        return "is no toy data set"
    if len(train) != config.toy_scenes:
        return f"holds {len(train)} scenes, and config.data.toy_scenes={config.toy_scenes} asks for others"
    size = train.stored_size(train.scene(0))
    if size < image_size:
        return f"has pictures of {size} pixels, fewer than config.image_size={image_size}"
    source = toy.ToySource(config.toy_scenes, size, SEED)
    wanted = source.splits()
    same_names = {split: list(data.names) for split, data in splits.items()} == wanted
    if not same_names or not all(_is_generated(data, source) for data in splits.values()):
        return f"is not what the generator makes of {config.toy_scenes} scenes with seed {SEED}"
    return ""


def _is_generated(data: SceneDataset, source: toy.ToySource) -> bool:
    """Whether the first scene of a split is the generator's: its seed and its version show in each."""
    there, made = data.scene(0), source.read(data.split, data.names[0])
    if not all(there.attributes.get(name) == _as_stored(value) for name, value in made.attributes.items()):
        return False
    frames = {frame.name: frame for frame in made.frames}
    if not set(there.frame_names) <= frames.keys():
        return False
    frames = [frames[name] for name in there.frame_names]  # of tiny pictures some are equal, and were left out
    if not np.allclose(there.camera_to_world, [frame.camera_to_world for frame in frames]):
        return False
    size = data.stored_size(there)
    difference = data.image(there, 0, size) - transforms.decode(frames[0].load(), size)
    return 255 * float(np.abs(difference).mean()) <= MOST_DIFFERENCE


def _as_stored(value: object) -> object:
    """JSON knows no tuples."""
    return list(value) if isinstance(value, tuple) else value
