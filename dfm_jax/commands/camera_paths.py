"""The camera paths of `--mode=sample`, for the videos and for what is sampled along them."""

import logging
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np

from dfm_jax.commands.camera_files import read_path
from dfm_jax.config import Config
from dfm_jax.config.sampling import VIDEO_PATHS, camera_numbers
from dfm_jax.data.loading import pipeline
from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import Frame
from dfm_jax.sampling import autoregressive
from dfm_jax.sampling.batches import SampledBatch
from dfm_jax.sampling.cameras import target_pose
from dfm_jax.sampling.trajectories import (
    Trajectory,
    interpolate,
    key_cameras,
    make_path,
    recorded_key_cameras,
    without_holes,
)
from dfm_jax.structs import Camera, Example

logger = logging.getLogger(__name__)

# The poses [s, 4, 4] of first context views in the coordinates of their sources' cameras, and how these lie in theirs.
Place = Callable[[], tuple[np.ndarray, Sequence[Frame]]]


def camera_paths(
    config: Config, example: Example, place: Place, recorded: Callable[[int], Camera] | None = None
) -> list[Trajectory]:
    """A path for the videos of each scene [s], in the frame of the example.

    Args:
      place: read where the path is that of a file, whose cameras are in the coordinates of the sources.
      recorded: cameras of a scene in recording order, relative to the first context view; for 'dataset'.

    Raises:
      UserError: a file is none of cameras, or none that can be rendered.
    """
    name, num_frames, scenes = config.sample.video_path, config.sample.video_frames, range(len(example.near))
    if name in VIDEO_PATHS:
        paths = []
        for i in scenes:
            cameras, target = real_cameras(example, i)
            both = jax.tree.map(lambda c, t: np.concatenate([c, t]), cameras, target)
            known = recorded(i) if name == "dataset" and recorded else None
            count, near, far = len(cameras.intrinsics), float(example.near[i]), float(example.far[i])
            paths.append(make_path(name, both, target=count, near=near, far=far, num_frames=num_frames, recorded=known))
        return paths
    if numbers := camera_numbers(name):
        first = [jax.tree.map(lambda x: x[0], real_cameras(example, i)[0]) for i in scenes]
        return [interpolate(camera, Camera(target_pose(numbers), camera.intrinsics), num_frames) for camera in first]
    path = read_path(name, num_frames, config.image_size)
    return [_placed(path, world, frame) for world, frame in zip(*place(), strict=True)]


def in_source(path: Trajectory, world: np.ndarray, frame: Frame) -> Trajectory:
    """A path relative to a scene's first context view, in the coordinates of its source; `_placed` undone."""
    return path.replaced(Camera(frame.pose_in_source(world @ path.camera.camera_to_world), path.camera.intrinsics))


def _placed(path: Trajectory, world: np.ndarray, frame: Frame) -> Trajectory:
    """A path in the coordinates of a scene's source, relative to its first context view."""
    pose = np.linalg.inv(frame.to_source) @ path.camera.camera_to_world
    pose[:, :3, :3] *= frame.scale
    return path.replaced(Camera(np.linalg.inv(world) @ pose, path.camera.intrinsics))


def real_cameras(example: Example, scene: int) -> tuple[Camera, Camera]:
    """The cameras of the context views [v] that are no padding, and of the target views [t], in float64."""
    valid = np.asarray(example.context.valid[scene], bool)
    context, target = (
        jax.tree.map(lambda x: np.asarray(x[scene], np.float64), views.camera)
        for views in (example.context, example.target)
    )
    return jax.tree.map(lambda x: x[valid], context), target


def recorded_cameras(config: Config, names: Sequence[str], example: Example, scene: int) -> Camera:
    """A camera for each frame of the scene's source from its first to its last, relative to the first context view."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    record = data.scene(data.names.index(names[scene]))
    reference = np.vstack([np.asarray(example.context.absolute_pose[scene, 0], np.float64), [0.0, 0.0, 0.0, 1.0]])
    cameras = Camera(np.linalg.inv(reference) @ record.camera_to_world, record.intrinsics)
    return without_holes(cameras, record.positions)


def along_paths(
    config: Config,
    example: Example,
    paths: Sequence[Trajectory],
    recorded: Callable[[int], Camera] | None = None,
) -> Callable[..., SampledBatch] | None:
    """What samples further views along the camera paths; None where none are asked for.

    Args:
      recorded: cameras of a scene in recording order, of which the path 'dataset' has views at an even pace.

    Raises:
      UserError: no path is as long.
    """
    step = config.sample.autoregressive_step
    if not step:
        return None
    cameras = []
    for i, path in enumerate(paths):
        if config.sample.video_path == "dataset" and recorded:
            own = recorded(i)
            start = np.argmin(np.abs(own.camera_to_world - np.eye(4)).max((1, 2)))  # the first context view
            cameras.append(recorded_key_cameras(own, int(start), step))
        else:
            cameras.append(key_cameras(path, step))
    keys = autoregressive.path_views(cameras, example)
    if keys is None:
        raise UserError(
            f"config.sample.autoregressive_step={step} is longer than every camera path (config.sample.video_path="
            f"'{config.sample.video_path}'): lower it"
        )
    counts = keys.valid.sum(1)
    logger.info(f"{counts.min()} to {counts.max()} views are sampled along each path, after the first")
    known, seen = config.data.view_sampling.max_context, int(example.context.valid.sum(1).max() + counts.max())
    if seen > known:
        logger.info(
            f"the last scene has {seen} context views; in training there were {known} at most: it may come out blurred"
        )
    return partial(autoregressive.extend, example, keys, jax.random.key(config.seed))
