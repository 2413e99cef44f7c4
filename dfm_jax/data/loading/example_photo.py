"""Photographs to try a model on. They are made by code: none is taken from a data set."""

import numpy as np

from dfm_jax.data.loading.generators import GENERATORS
from dfm_jax.errors import UserError
from dfm_jax.structs import Camera, Views

SCENES = {"shapes": 4000, "toy": 2000}  # as the configs of these names generate them
SEED = 0


def example_photo(name: str = "toy") -> Views:
    """One view [v=1] of a scene, with its camera, for a model that was trained on such scenes: `toy` or `shapes`.

    >>> photo = dfm_jax.example_photo("toy")     # a box from the front: what colour is its back?
    >>> photo.images.shape
    (1, 24, 24, 3)

    Raises:
      UserError: there is no such photograph.
    """
    if name not in SCENES:
        raise UserError(f"there is no example photograph {name!r}: there is {' and '.join(map(repr, SCENES))}")
    generator = GENERATORS[name]
    scenes = generator.scenes(SCENES[name], generator.image_size, SEED)
    scene = scenes.scene("test", scenes.splits()["test"][0])
    return Views(
        images=scene.images[:1].astype(np.float32) / np.float32(255),
        camera=Camera(np.eye(4, dtype=np.float32)[None], generator.intrinsics().astype(np.float32)[None]),
        absolute_pose=scene.camera_to_world[:1, :3].astype(np.float32),
        valid=np.ones(1, bool),
    )
