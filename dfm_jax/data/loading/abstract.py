"""The shapes of a batch, where there is no data."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Sharding

from dfm_jax.config import Config
from dfm_jax.structs import Camera, Example, Measurements, Views


def abstract_example(
    config: Config, batch_size: int, placed: Sharding | None = None, *, training: bool = False
) -> Example:
    """Those that `pipeline.py` reads for a config, with where they lie.

    Args:
      training: whether it is a batch to train on, which knows more of the targets.
    """
    size, sampling = config.image_size, config.data.view_sampling
    shape = lambda *sizes, dtype=jnp.float32: jax.ShapeDtypeStruct((batch_size, *sizes), dtype, sharding=placed)

    def views(number: int) -> Views:
        return Views(
            images=shape(number, size, size, 3),
            camera=Camera(shape(number, 4, 4), shape(number, 3, 3)),
            absolute_pose=shape(number, 3, 4),
            valid=shape(number, dtype=jnp.bool_),
        )

    target = views(sampling.num_target)
    if training and config.data.measured:
        names, of_pixels = config.data.measurements, partial(shape, sampling.num_target, size, size)
        observed = {"masks", "random_masks"} & set(names)
        target = target.replace(
            measured=Measurements(
                depth=of_pixels() if "depth" in names else None,
                opacity=of_pixels() if "opacity" in names else None,
                observed=of_pixels(dtype=jnp.bool_) if observed else None,
            )
        )
    return Example(
        context=views(sampling.max_context),
        target=target,
        near=shape(),
        far=shape(),
        index=shape(dtype=jnp.int32),
    )
