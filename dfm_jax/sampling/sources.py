"""What scenes are sampled behind, as an `Example`: photographs with and without cameras, views, or an example.

Letters: `s` scenes, `v` context views, `t` target views, `h w` pixels. `world [s, 4, 4]` is the pose of each scene's
first context view in the coordinates that the source has: those of an example are relative to that view.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.config import Config, TargetCameraConfig
from dfm_jax.data.loading.examples import pad, stack
from dfm_jax.data.loading.transforms import relative_to_first
from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import Frame
from dfm_jax.sampling.photographs import MEANT, Photograph, is_photograph, square_photograph
from dfm_jax.structs import Camera, Example, Views

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Placement:
    """What a call says of the cameras and bounds of its photographs or views; None: nothing."""

    camera: Camera | None = None  # [v] of the photographs
    target_camera: Camera | None = None  # one, in the coordinates of the others
    near: float | None = None
    far: float | None = None
    scale: float | None = None  # source units in one unit of the model, in which all else is given


def source_frame(source: Any, placement: Placement) -> Frame:
    """Where the coordinates of a source that `to_example` takes lie, for exports.

    Raises:
      UserError: `scale` is none.
    """
    scale = 1.0 if placement.scale is None else placement.scale
    if not (isinstance(scale, int | float | np.number) and 0 < scale < np.inf):
        raise UserError(f"scale, in source units a unit of the model, must be a number above 0, not {scale!r}")
    has_cameras = isinstance(source, Views) or placement.camera is not None
    return Frame("source" if has_cameras else "first_camera", np.diag([scale, scale, scale, 1.0]))


def to_example(source: Any, config: Config, placement: Placement) -> tuple[Example, np.ndarray]:
    """The example [s] in numpy that a model of this config is given, and its `world`.

    Raises:
      UserError: the source is none of these, or cannot be read, or what is said of its cameras does not go with it.
    """
    if isinstance(source, Example):
        return _whole(source, config, placement)
    if isinstance(source, Views):
        if placement.camera is not None:
            raise UserError("camera= is for photographs: these views have cameras of their own")
        views = source if np.ndim(source.images) == 5 else jax.tree.map(lambda x: np.asarray(x)[None], source)
        scenes = [jax.tree.map(lambda x, i=i: np.asarray(x[i]), views) for i in range(len(views.images))]
        made = [_of_views(scene, config, placement, i) for i, scene in enumerate(scenes)]
    else:
        many = [source] if is_photograph(source) else _several(source)
        made = [_of_views(_as_views(many, config, placement.camera), config, placement, 0)]
    examples, worlds = zip(*made, strict=True)
    return stack(examples), np.stack(worlds)


def checked_camera(camera: Any, count: int | None = None, what: str = "camera") -> Camera:
    """A camera, or `count` of them, in float64; any number, if that is None.

    Raises:
      UserError: it is something else.
    """
    if not isinstance(camera, Camera):
        raise UserError(f"{what} is {type(camera).__name__}, not dfm_jax.Camera(camera_to_world, intrinsics)")
    pose, intrinsics = (np.asarray(x, np.float64) for x in (camera.camera_to_world, camera.intrinsics))
    if pose.shape[-2:] != (4, 4) or intrinsics.shape[-2:] != (3, 3) or max(pose.ndim, intrinsics.ndim) > 3:
        raise UserError(
            f"{what} has camera_to_world {list(pose.shape)} and intrinsics {list(intrinsics.shape)}: these are [4, 4] "
            "and [3, 3], or [k, 4, 4] and [k, 3, 3] of several cameras"
        )
    lengths = {len(x) for x in (pose, intrinsics) if x.ndim == 3}
    if len(lengths) > 1 or (count is not None and lengths | {count} != {count}) or 0 in lengths:
        needed = "as many intrinsics as poses" if count is None else f"{count} of each"
        raise UserError(f"{what} has poses {list(pose.shape)} and intrinsics {list(intrinsics.shape)}: give {needed}")
    if not (np.isfinite(pose).all() and np.isfinite(intrinsics).all() and (intrinsics[..., [0, 1], [0, 1]] > 0).all()):
        raise UserError(f"{what} has numbers that are not finite, or a focal length that is not above 0")
    batch = tuple(lengths) if count is None else (count,)
    return Camera(np.broadcast_to(pose, (*batch, 4, 4)), np.broadcast_to(intrinsics, (*batch, 3, 3)))


def target_pose(settings: TargetCameraConfig) -> np.ndarray:
    """The pose [4, 4] of the target camera, relative to a photograph's."""
    tilt = np.deg2rad(settings.elevation)
    up = np.array([0.0, -np.cos(tilt), -np.sin(tilt)])  # of the world, in the photograph's axes
    turn = Rotation.from_rotvec(np.deg2rad(settings.azimuth) * up).as_matrix()
    centre = np.array([0.0, 0.0, settings.distance])
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = centre - turn @ centre + settings.forward * turn[:, 2]
    return pose


def _several(source: Any) -> list[Photograph]:
    items = list(source) if isinstance(source, Sequence) or np.ndim(source) == 4 else []
    if not items or not all(map(is_photograph, items)):
        raise UserError(f"{MEANT}, or several of them; or Views, or an Example; not {type(source).__name__}")
    return items


def _as_views(photographs: Sequence[Photograph], config: Config, camera: Camera | None) -> Views:
    """Photographs [v] of one scene, in the coordinates of their cameras."""
    count = len(photographs)
    if camera is None and count > 1:
        raise UserError(
            f"{count} photographs of a scene need their cameras: camera=dfm_jax.Camera(camera_to_world [{count}, 4, 4],"
            f" intrinsics [{count}, 3, 3])"
        )
    if camera is None:
        known, focal = None, _assumed(config, "photograph", "camera=").focal_length
        cropped = np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]])
    else:
        known = checked_camera(camera, count)
    if known is None and getattr(config.model.encoder, "absolute_pose", False):
        logger.warning("the model is told where cameras are, and nothing says it of this photograph: at the origin")
    images, intrinsics = [], []
    for i, photograph in enumerate(photographs):
        given = cropped if known is None else known.intrinsics[i]
        image, moved = square_photograph(photograph, given, config.image_size, config.model.ray_marching.background)
        images.append(image)
        intrinsics.append(cropped if known is None else moved)
    poses = np.eye(4)[None] if known is None else known.camera_to_world
    return Views(
        images=np.stack(images),
        camera=Camera(poses, np.stack(intrinsics)),
        absolute_pose=poses[:, :3],
        valid=np.ones(count, bool),
    )


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
    near, far = _bounds(config, placement)
    example = Example(
        context=pad(context, config.data.view_sampling.max_context),
        target=_target(context, first if moved else None, config, placement.target_camera),
        near=np.float32(near),
        far=np.float32(far),
        index=np.int32(index),
    )
    return example, first


def _target(context: Views, first: np.ndarray | None, config: Config, camera: Camera | None) -> Views:
    """The target view [t=1], whose image is not known."""
    if camera is None:
        pose = target_pose(_assumed(config, "target_camera", "target_camera="))
        intrinsics = context.camera.intrinsics[0]
    else:
        camera = checked_camera(camera, what="target_camera")
        if camera.intrinsics.ndim == 3 and len(camera.intrinsics) > 1:
            raise UserError("target_camera is one camera: a scene can be rendered at any others")
        pose, intrinsics = camera.camera_to_world.reshape(4, 4), camera.intrinsics.reshape(3, 3)
        pose = pose if first is None else np.linalg.inv(first) @ pose
    absolute = np.vstack([context.absolute_pose[0], [0.0, 0.0, 0.0, 1.0]]) @ pose
    target = jax.tree.map(lambda x: x[:1], context)
    target = _in_single_precision(target, Camera(pose[None], intrinsics[None]), absolute[None, :3])
    return target.replace(images=np.zeros_like(target.images))


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
    return np.stack([square_photograph(image, np.eye(3), size, 0.0)[0] for image in images])


def _bounds(config: Config, placement: Placement) -> tuple[float, float]:
    """`near` and `far`: as the call says, as the model knows, or as the config assumes of a photograph."""
    near, far = placement.near, placement.far
    if near is None or far is None:
        known = config.data if config.data.near else _assumed(config, "photograph", "near= and far=")
        near, far = (known.near if near is None else near), (known.far if far is None else far)
    if not 0 < near < far < np.inf:
        raise UserError(f"near={near:g} must be above 0 and below far={far:g}")
    return float(near), float(far)


def _assumed(config: Config, name: str, instead: str) -> Any:
    """What `config.sample` assumes of photographs under this name."""
    if (found := getattr(config.sample, name)) is None:
        raise UserError(f"the model's config assumes nothing of photographs (config.sample.{name}): give {instead}")
    return found


def _whole(example: Example, config: Config, placement: Placement) -> tuple[Example, np.ndarray]:
    if any(getattr(placement, field.name) is not None for field in dataclasses.fields(placement)):
        raise UserError(
            "an Example has cameras and bounds of its own: camera=, target_camera=, near=, far= and scale= are not for "
            "it"
        )
    batched = example if np.ndim(example.near) else jax.tree.map(lambda x: np.asarray(x)[None], example)
    size = config.image_size
    for name in ("context", "target"):
        shape = np.shape(getattr(batched, name).images)
        if len(shape) != 5 or shape[2:] != (size, size, 3):
            raise UserError(
                f"the example's {name} images are {list(shape)}; this model's are [s, v, {size}, {size}, 3]"
            )
    return jax.tree.map(np.asarray, batched), np.tile(np.eye(4), (len(batched.near), 1, 1))
