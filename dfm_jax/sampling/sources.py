"""What scenes are sampled behind, as an `Example`: photographs with and without cameras, views, or an example.

Letters: `s` scenes, `v` context views, `t` target views, `h w` pixels. `world [s, 4, 4]` is the pose of each scene's
first context view in the coordinates that the source has: those of an example are relative to that view.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from dfm_jax.config import Config
from dfm_jax.data.loading.examples import pad, stack
from dfm_jax.data.loading.transforms import relative_to_first, scale_world
from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import Frame
from dfm_jax.sampling import photograph_views
from dfm_jax.sampling.assumptions import Assumptions
from dfm_jax.sampling.cameras import checked_camera, describe_target, named_target, target_pose
from dfm_jax.sampling.photographs import as_taken, open_photograph, square_photograph
from dfm_jax.sampling.placement import Placement, assumed, bounds
from dfm_jax.structs import Camera, Example, Views

logger = logging.getLogger(__name__)


class Given(NamedTuple):
    """What a model is given, in numpy."""

    example: Example  # [s]
    world: np.ndarray  # [s, 4, 4], in the model's units
    assumptions: Assumptions | None = None  # of photographs; None of anything else
    shown: Sequence[Image.Image] = ()  # the photographs, at the size of a page


def source_frame(source: Any, placement: Placement) -> Frame:
    """Where the coordinates of a source that `to_example` takes lie, for exports.

    Raises:
      UserError: `scale` is none.
    """
    placed = placement.camera is not None
    if isinstance(source, Views):
        first = np.reshape(source.camera.camera_to_world, (-1, 4, 4))[0]
        placed = not np.array_equal(first, np.eye(4))
    return Frame("source" if placed else "first_camera", np.diag([*[placement.units] * 3, 1.0]))


def to_example(source: Any, config: Config, placement: Placement) -> Given:
    """What a model of this config is given.

    Raises:
      UserError: the source is none of these, or cannot be read, or what is said of its cameras does not go with it.
    """
    if isinstance(source, Example):
        return _whole(source, config, placement)
    if isinstance(source, Views):
        return _of_all_views(source, config, placement)
    sources = photograph_views.several(source)
    placement = placement.in_model_units(len(sources))
    views, facts, notes, shown = photograph_views.as_views(sources, config, placement)
    example, world = _of_views(views, config, placement, 0)
    near, far, said = bounds(config, placement)
    assumptions = Assumptions(
        photographs=facts,
        near=near,
        far=far,
        bounds_from=said,
        scale=placement.units,
        frame="first_camera" if placement.camera is None else "source",
        target_camera=_describe_target(config, placement),
        notes=notes,
    )
    for sentence in assumptions.sentences():
        logger.log(logging.WARNING if sentence in notes else logging.INFO, sentence)
    return Given(stack([example]), world[None], assumptions, shown)


def _describe_target(config: Config, placement: Placement) -> str:
    if isinstance(placement.target_camera, str):
        return f"as given: {placement.target_camera}"
    return "as given" if placement.target_camera else describe_target(config.sample.target_camera)


def _of_all_views(source: Views, config: Config, placement: Placement) -> Given:
    if any(getattr(placement, name) is not None for name in ("camera", "fov", "focal", "crop")):
        raise UserError("camera=, fov=, focal= and crop= are for photographs: these views have cameras of their own")
    views = source if np.ndim(source.images) == 5 else jax.tree.map(lambda x: np.asarray(x)[None], source)
    scenes = [jax.tree.map(lambda x, i=i: np.asarray(x[i]), views) for i in range(len(views.images))]
    units, placement = placement.units, placement.in_model_units(0)
    if units != 1:
        smaller = lambda poses: scale_world(np.asarray(poses, np.float64), 1 / units)
        scenes = [
            scene.replace(
                camera=scene.camera.replace(camera_to_world=smaller(scene.camera.camera_to_world)),
                absolute_pose=smaller(scene.absolute_pose),
            )
            for scene in scenes
        ]
    examples, worlds = zip(*(_of_views(scene, config, placement, i) for i, scene in enumerate(scenes)), strict=True)
    return Given(stack(examples), np.stack(worlds))


def _of_views(views: Views, config: Config, placement: Placement, index: int) -> tuple[Example, np.ndarray]:
    """The example of one scene's views [v], without a batch axis, and its `world` [4, 4]."""
    camera = checked_camera(views.camera, len(views.images), "the views' camera")
    valid = np.asarray(views.valid, bool)
    if not valid[0]:
        raise UserError("the first view is not valid: padding views come last")
    views = views.replace(images=_sized(views.images, config))
    poses = camera.camera_to_world
    first, moved = poses[0], not np.array_equal(poses[0], np.eye(4))
    relative = relative_to_first(poses) if moved else poses
    context = _in_single_precision(views, Camera(relative, camera.intrinsics), views.absolute_pose)
    if (count := int(valid.sum())) > (known := config.data.view_sampling.max_context):
        logger.warning("%d context views; in training there were %d at most: scenes may be blurred", count, known)
    near, far, _ = bounds(config, placement)
    example = Example(
        context=pad(context, config.data.view_sampling.max_context),
        target=_target(context, first if moved else None, config, placement, (near, far)),
        near=np.float32(near),
        far=np.float32(far),
        index=np.int32(index),
    )
    return example, first


def _target(
    context: Views, first: np.ndarray | None, config: Config, placement: Placement, near_far: tuple[float, float]
) -> Views:
    """The target view [t=1], whose image is not known."""
    camera, intrinsics = placement.target_camera, context.camera.intrinsics[0]
    if camera is None:
        pose = target_pose(assumed(config, "target_camera", "target_camera="))
    elif isinstance(camera, str):
        real = jax.tree.map(lambda x: np.asarray(x, np.float64)[context.valid], context.camera)
        pose = named_target(camera, _with_usual(real, config), *near_far)
    else:
        pose, intrinsics = camera.camera_to_world[0], camera.intrinsics[0]
        pose = pose if first is None else np.linalg.inv(first) @ pose
    absolute = np.vstack([context.absolute_pose[0], [0.0, 0.0, 0.0, 1.0]]) @ pose
    target = jax.tree.map(lambda x: x[:1], context)
    target = _in_single_precision(target, Camera(pose[None], intrinsics[None]), absolute[None, :3])
    return target.replace(images=np.zeros_like(target.images))


def _with_usual(cameras: Camera, config: Config) -> Camera:
    """Cameras [k] of photographs, and the target camera that the config knows: together they tell what is upright."""
    if config.sample.target_camera is None:
        return cameras
    usual = Camera(target_pose(config.sample.target_camera), cameras.intrinsics[0])
    return jax.tree.map(lambda all_cameras, one: np.concatenate([all_cameras, one[None]]), cameras, usual)


def _in_single_precision(views: Views, camera: Camera, absolute_pose: np.ndarray) -> Views:
    single = lambda x: np.array(x, np.float32)
    return Views(single(views.images), jax.tree.map(single, camera), single(absolute_pose), np.array(views.valid, bool))


def _sized(images: np.ndarray, config: Config) -> np.ndarray:
    """Square images [v, h, w, 3], at the model's size."""
    images, size = np.asarray(images), config.image_size
    if images.ndim != 4 or images.shape[1] != images.shape[2] or images.shape[3] != 3:
        raise UserError(
            f"views have square images [v, h, w, 3], not {list(images.shape)}: crop them, and their cameras"
        )
    return np.stack([_resized(image, size) for image in images])


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    if (exact := as_taken(image, size)) is not None:
        return exact
    return square_photograph(open_photograph(image, 0.0).image, np.eye(3), size, "centre", 0.0)[0]


def _whole(example: Example, config: Config, placement: Placement) -> Given:
    names = [field.name for field in dataclasses.fields(placement)]
    if any(getattr(placement, name) is not None for name in names):
        options = ", ".join(f"{name}=" for name in names)
        raise UserError(f"an Example has cameras and bounds of its own: {options} are not for it")
    batched = example if np.ndim(example.near) else jax.tree.map(lambda x: np.asarray(x)[None], example)
    size = config.image_size
    for name in ("context", "target"):
        shape = np.shape(getattr(batched, name).images)
        if len(shape) != 5 or shape[2:] != (size, size, 3):
            raise UserError(
                f"the example's {name} images are {list(shape)}; this model's are [s, v, {size}, {size}, 3]"
            )
    return Given(jax.tree.map(np.asarray, batched), np.tile(np.eye(4), (len(batched.near), 1, 1)))
