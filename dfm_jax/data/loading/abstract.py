"""The shapes of a batch, where there is no data."""

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from dfm_jax.config import Config
from dfm_jax.structs import Camera, Example, Views


def abstract_example(config: Config, batch_size: int, placed: Sharding | None = None) -> Example:
    """Those that `pipeline.py` reads for a config, with where they lie."""
    size, sampling = config.image_size, config.data.view_sampling
    shape = lambda *sizes, dtype=jnp.float32: jax.ShapeDtypeStruct((batch_size, *sizes), dtype, sharding=placed)

    def views(number: int) -> Views:
        return Views(
            images=shape(number, size, size, 3),
            camera=Camera(shape(number, 4, 4), shape(number, 3, 3)),
            absolute_pose=shape(number, 3, 4),
            valid=shape(number, dtype=jnp.bool_),
        )

    return Example(
        context=views(sampling.max_context),
        target=views(sampling.num_target),
        near=shape(),
        far=shape(),
        index=shape(dtype=jnp.int32),
    )
