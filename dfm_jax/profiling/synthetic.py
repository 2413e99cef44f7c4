"""An example of random images seen by plausible cameras: input for measuring, where no data set is needed."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dfm_jax.config import Config
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import GeneratingModel
from dfm_jax.structs import Camera, Example, Measurements, Views

FOCAL_LENGTH = 1.2  # image widths
# Where the data set stores a range with each scene: that of captures, whose typical depth is 4.
NEAR, FAR = 0.5, 20.0
STEP = 0.1  # between neighbouring cameras, as a share of the near distance


def synthetic_example(config: Config, batch_size: int, seed: int = 0) -> Any:
    """A batch of the config's shapes, with all context views there; cameras look the same way, side by side. (A model
    that makes its own examples makes these, too.)"""
    model = make_model(config)
    if isinstance(model, GeneratingModel):
        return jax.device_put(model.generate(seed, np.arange(batch_size)))
    rng, views = np.random.default_rng(seed), config.data.view_sampling
    near, far = (config.data.near, config.data.far) if config.data.near else (NEAR, FAR)

    def posed(count: int, first: int) -> Views:
        pose = np.broadcast_to(np.eye(4, dtype=np.float32), (batch_size, count, 4, 4)).copy()
        pose[..., 0, 3] = STEP * near * (first + np.arange(count))
        intrinsics = np.array([[FOCAL_LENGTH, 0, 0.5], [0, FOCAL_LENGTH, 0.5], [0, 0, 1]], np.float32)
        images = rng.uniform(size=(batch_size, count, config.image_size, config.image_size, 3)).astype(np.float32)
        return Views(
            images=images,
            camera=Camera(pose, np.broadcast_to(intrinsics, (batch_size, count, 3, 3))),
            absolute_pose=pose[..., :3, :],
            valid=np.ones((batch_size, count), bool),
        )

    target = posed(views.num_target, views.max_context)
    if config.data.measured:
        target = target.replace(measured=_measured(rng, target.images.shape[:-1], far, config.data.measurements))
    everywhere = lambda value: np.full(batch_size, value, np.float32)
    example = Example(
        context=posed(views.max_context, 0),
        target=target,
        near=everywhere(near),
        far=everywhere(far),
        index=np.arange(batch_size, dtype=np.int32),
    )
    return jax.device_put(example)


def _measured(rng: np.random.Generator, shape: tuple[int, ...], far: float, names: Sequence[str]) -> Measurements:
    """Random distances, some of them infinite; all is observed."""
    depth = np.where(rng.uniform(size=shape) < 0.1, np.inf, rng.uniform(far / 2, far, shape)).astype(np.float32)
    return Measurements(
        depth=depth if "depth" in names else None,
        opacity=rng.uniform(size=shape).astype(np.float32) if "opacity" in names else None,
        observed=np.ones(shape, bool) if {"masks", "random_masks"} & set(names) else None,
    )
