"""Where the examples of a config come from: its data set of posed images, or the model itself."""

from typing import Any

import jax
import numpy as np
from jax.sharding import Sharding

from dfm_jax.config import Config
from dfm_jax.data.loading import abstract, pipeline, toy_data
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import GeneratingModel


def abstract_example(
    config: Config, batch_size: int, sharding: Sharding | None = None, *, training: bool = False
) -> Any:
    """The shapes of a batch, to train on or to sample from, with where it lies; no data is needed."""
    model = make_model(config)
    if not isinstance(model, GeneratingModel):
        return abstract.abstract_example(config, batch_size, sharding, training=training)
    one = model.generate(config.seed, np.arange(1))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *x.shape[1:]), x.dtype, sharding=sharding), one)


def held_out_examples(config: Config, num_scenes: int) -> tuple[Any, list[str]]:
    """Examples [num_scenes] to sample and to judge by, always the same, and their names.

    Raises:
      UserError: the data set is not there, or has not as many.
    """
    model = make_model(config)
    if not isinstance(model, GeneratingModel):
        data = toy_data.find_toy(config.data, config.image_size)
        return pipeline.evaluation_examples(data, image_size=config.image_size, num_scenes=num_scenes)
    example = model.generate(config.seed, np.arange(num_scenes), held_out=True)
    return example, [f"example {i}" for i in range(num_scenes)]
