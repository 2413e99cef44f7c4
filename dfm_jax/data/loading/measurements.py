"""What training is told of views beside their pictures, or in the place of parts of them (`config.data.measured`).

Depth and opacity are those of the target views; procedural scenes know them. Of views with masks, targets and context
alike, only a part is observed: the rest of the picture is grey, and nobody sees what was there.

Letters: `v` views, `h w` pixels.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dfm_jax.data.loading.dataset import SceneDataset, SceneRecord
from dfm_jax.data.loading.generators import generator_of
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.structs import Example, Measurements

Frames = Int[np.ndarray, " v"]
SUPERSAMPLING = 3  # rays along a pixel's side
INSIDE = 0.5  # of a mask's values in [0, 1]
HIDDEN = 0.5  # colour of what is not observed: that of a context that is dropped
HIDDEN_SIDE = 0.4, 1.0  # of the rectangle that hides a part of a picture, as shares of its side; uniform
WHOLE = 0.1  # share of the examples of 'random_masks' that hide nothing, as none do that are sampled from


def check(data: SceneDataset, number: int, names: Sequence[str]) -> None:
    """
    Raises:
      UserError: the data set does not know what is asked for of scene `number`.
    """
    measured(data, data.scene(number), np.array([0]), [name for name in names if name != "random_masks"], 1)


def measured(data: SceneDataset, scene: SceneRecord, frames: Frames, names: Sequence[str], size: int) -> Measurements:
    """What is asked for of some frames [v] of a scene as they are stored, at a size of pictures. ('random_masks' are
    none of a frame.)

    Raises:
      UserError: the data set does not know it.
    """
    found = {}
    if "depth" in names:
        found["depth"] = _depth(data, scene, frames, size)
    if "opacity" in names:
        found["opacity"] = _opacity(data, scene, frames, size)
    if "masks" in names:
        found["observed"] = _masks(data, scene, frames, size, "masks") >= INSIDE
    return Measurements(**found)


def with_measurements(
    example: Example,
    data: SceneDataset,
    scene: SceneRecord,
    indices: ViewIndices,
    names: Sequence[str],
    rng: np.random.Generator,
    *,
    flip: bool,
    scale: float,
) -> Example:
    """An example of training, without batch axis, with what is asked for.

    Args:
      rng: draws the masks of 'random_masks', and which examples are whole.
      flip, scale: what was done to its views.
    """
    size, images = example.target.images.shape[-2], example.target.images
    found = measured(data, scene, indices.target, names, size)
    if flip:
        found = jax.tree.map(lambda x: np.ascontiguousarray(x[..., ::-1]), found)
    if found.depth is not None:
        found = found.replace(depth=(found.depth * scale).astype(np.float32))
    if "random_masks" in names:
        whole = rng.uniform() < WHOLE
        observed, given = (whole | random_masks(rng, len(x), size) for x in (indices.target, indices.context))
        found = found.replace(observed=observed)
        example = _hide_context(example, ~given)
    elif "masks" in names:
        example = partial_context(example, data, scene, indices, names, flip=flip)
    if found.observed is not None:
        images = np.where(found.observed[..., None], images, np.float32(HIDDEN))
    return example.replace(target=example.target.replace(images=images, measured=found))


def partial_context(
    example: Example,
    data: SceneDataset,
    scene: SceneRecord,
    indices: ViewIndices,
    names: Sequence[str],
    *,
    flip: bool = False,
) -> Example:
    """An example, without batch axis, whose context views are grey outside of the data set's masks, if these are asked
    for."""
    if "masks" not in names:
        return example
    observed = measured(data, scene, indices.context, ["masks"], example.context.images.shape[-2]).observed
    return _hide_context(example, ~(observed[..., ::-1] if flip else observed))


def random_masks(rng: np.random.Generator, count: int, size: int) -> Bool[np.ndarray, "v h w"]:
    """What is observed of pictures of which a rectangle is hidden, about a third of each."""
    centre, side = rng.uniform(0, 1, (2, count, 1)), rng.uniform(*HIDDEN_SIDE, (2, count, 1))
    pixel = (np.arange(size) + 0.5) / size
    rows, columns = np.abs(pixel - centre) < side / 2
    return ~(rows[:, :, None] & columns[:, None, :])


def _hide_context(example: Example, hidden: Bool[np.ndarray, "v h w"]) -> Example:
    images = example.context.images.copy()
    images[: len(hidden)][hidden] = HIDDEN  # those that follow are padding
    return example.replace(context=example.context.replace(images=images))


def _depth(data: SceneDataset, scene: SceneRecord, frames: Frames, size: int) -> Float[np.ndarray, "v size size"]:
    generator = generator_of(scene.attributes)
    if generator is None:
        raise UserError(
            f"config.data.measured asks for depth, and scene {scene.name} of {data.path} has none: procedural data "
            "sets (toy, shapes) know it"
        )
    cameras = ((scene.camera_to_world[i], scene.intrinsics[i]) for i in frames)
    return np.stack([generator.depth(scene.attributes, *camera, size) for camera in cameras]).astype(np.float32)


def _opacity(data: SceneDataset, scene: SceneRecord, frames: Frames, size: int) -> Float[np.ndarray, "v size size"]:
    """Of procedural scenes, as their depth says; of others, as their masks do."""
    if generator_of(scene.attributes) is None:
        return _masks(data, scene, frames, size, "opacity")
    met = np.isfinite(_depth(data, scene, frames, size * SUPERSAMPLING))
    return met.reshape(len(met), size, SUPERSAMPLING, size, SUPERSAMPLING).mean((2, 4)).astype(np.float32)


def _masks(
    data: SceneDataset, scene: SceneRecord, frames: Frames, size: int, asked: str
) -> Float[np.ndarray, "v size size"]:
    masks = []
    for i in frames:
        mask = data.mask(scene, int(i), size)
        if mask is None:
            raise UserError(
                f"config.data.measured asks for {asked}, and frame {scene.frame_names[i]} of scene {scene.name} of "
                f"{data.path} has no mask: prepare it with --masks=leave, which stores what masks and transparency say"
            )
        masks.append(mask)
    return np.stack(masks)
