"""Masks of evaluated views: what of them counts, by masks that the data set holds (`config.evaluate.masks`)."""

from collections.abc import Sequence

import numpy as np

from dfm_jax.config import Config
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.evaluation.scores import Foreground

STORED = "stored"  # what scenes of which every frame has one say of their masks
INSIDE = 0.5  # of a mask's values in [0, 1]
CURE = (
    "prepare it with --masks=leave, which stores what masks and transparency say, or compare whole pictures with "
    "--config.evaluate.masks=none"
)


def check_masks(config: Config, data: SceneDataset, views: Sequence[tuple[int, ViewIndices]]) -> None:
    """
    Raises:
      UserError: masks are to be respected, and a view that is evaluated has none.
    """
    if config.evaluate.masks == "none":
        return
    for number, indices in views:
        scene = data.scene(number)
        if scene.attributes.get("masks") == STORED:
            continue
        for frame in (*indices.context.tolist(), *indices.target.tolist()):
            if data.mask(scene, frame, config.image_size) is None:
                name = scene.frame_names[frame]
                raise UserError(
                    f"config.evaluate.masks=respect, and frame {name} of scene {scene.name} of {data.path} has no "
                    f"mask: {CURE}"
                )


def foreground_of(config: Config, data: SceneDataset, view: tuple[int, ViewIndices]) -> Foreground | None:
    """What counts in the views of one example; None: all of them."""
    if config.evaluate.masks == "none":
        return None
    number, indices = view
    scene = data.scene(number)
    of_frames = lambda frames: np.stack([data.mask(scene, i, config.image_size) >= INSIDE for i in frames.tolist()])
    return Foreground(of_frames(indices.context), of_frames(indices.target))
