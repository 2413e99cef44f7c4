"""Where the scenes that commands sample behind lie in their data set and in its sources."""

import numpy as np

from dfm_jax.config import DataConfig
from dfm_jax.data.loading import pipeline
from dfm_jax.data.loading.evaluation_views import evaluation_views
from dfm_jax.data.loading.source_frames import to_source
from dfm_jax.exports.protocol import Frame


def of_evaluation_examples(config: DataConfig, num_scenes: int) -> tuple[np.ndarray, list[Frame]]:
    """Of the examples [s] of `pipeline.evaluation_examples`: the poses [s, 4, 4] of their first context views in the
    coordinates of the data set, and how these lie in those of the sources."""
    data = pipeline.open_dataset(config.dir, config.name, config.eval_split)
    world, frames = [], []
    for scene, views in evaluation_views(config, num_scenes=num_scenes):
        record = data.scene(scene)
        world.append(record.camera_to_world[views.context[0]])
        known = to_source(record.scale, record.attributes) if data.knows_source else None
        frames.append(Frame() if known is None else Frame("source", known))
    return np.stack(world), frames
