"""Generates the procedural data set (toy, shapes) that a config asks for, where it is missing.

Commands use this, or hand it to what they call: training and reading know no importer, and none is imported where the
data set is there.
"""

import logging
from pathlib import Path

from dfm_jax.config import Config, DataConfig
from dfm_jax.data.loading import dataset, toy_data
from dfm_jax.runs import barriers

logger = logging.getLogger(__name__)


def with_data_set(config: Config) -> Config:
    """The settings with the name of the folder that their data set is read from, in each of the processes of a run. The
    first of them generates a procedural data set where it is missing.

    Raises:
      UserError: it cannot be made, or what lies under its name is something else.
    """
    barriers.from_first(lambda: ensure_toy(config.data, config.image_size))
    with barriers.failing_together():
        return toy_data.with_toy_folder(config)


def ensure_toy(config: DataConfig, image_size: int) -> DataConfig:
    """Generates the procedural data set where the config asks for one and it is missing.

    Returns:
      the settings with the name of the folder that holds the data set; as they are where they ask for none.

    Raises:
      UserError: none can be made, or what lies under its name is something else.
    """
    return toy_data.find_toy(config, image_size, _generate)


def _generate(config: DataConfig, name: str, image_size: int) -> None:
    from dfm_jax.data.builders.procedural import SOURCES
    from dfm_jax.data.preparing import building
    from dfm_jax.data.preparing.posed_scenes import StoreOptions

    data_dir = Path(config.dir)
    with building.exclusive(data_dir, name):  # processes that share the folder wait for the first of them
        if not dataset.exists(data_dir, name):
            logger.info("generating %d %s scenes in %s", config.toy_scenes, config.name, data_dir / name)
            source = SOURCES[config.name](config.toy_scenes, image_size, toy_data.SEED)
            building.build(source, data_dir, name, StoreOptions(image_size=0, min_frames=building.MIN_FRAMES))
