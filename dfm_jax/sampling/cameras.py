"""Cameras that users give, checked; and where a photograph's target camera is by a config, by numbers or by name."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.config import TargetCameraConfig
from dfm_jax.config.sampling import VIDEO_PATHS, camera_numbers, camera_problem
from dfm_jax.errors import UserError
from dfm_jax.sampling.trajectories import make_path
from dfm_jax.structs import Camera

FARTHEST_CENTRE = 10  # widths or heights from a picture's corner to its principal point: in pixels there are more
NEARLY = 1e-2  # how far the products of a rotation's axes may be off: files state few digits
PATH_FRAMES = 48  # among which the target camera of a path is looked for


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
    if (np.abs(intrinsics[..., :2, 2]) > FARTHEST_CENTRE).any():
        raise UserError(
            f"{what} has intrinsics in pixels, it seems: divide their first row by the picture's width, and the second "
            "by its height"
        )
    if problem := _pose_problem(pose):
        raise UserError(f"{what} has a camera_to_world {problem}")
    batch = tuple(lengths) if count is None else (count,)
    return Camera(np.broadcast_to(pose, (*batch, 4, 4)), np.broadcast_to(intrinsics, (*batch, 3, 3)))


def _pose_problem(pose: np.ndarray) -> str:
    """Why no camera stands so [..., 4, 4]; empty where one may."""
    axes = pose[..., :3, :3]
    if not np.allclose(pose[..., 3, :], [0, 0, 0, 1], atol=1e-6):
        return "whose last row is not 0, 0, 0, 1: is it transposed?"
    if not np.allclose(np.swapaxes(axes, -1, -2) @ axes, np.eye(3), atol=NEARLY):
        return "whose upper left 3 x 3 numbers are no rotation: are they scaled?"
    if (np.linalg.det(axes) < 0).any():
        return "that mirrors the world: turn two of its axes, not one"
    return ""


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


def describe_target(settings: TargetCameraConfig) -> str:
    """Where that is, and why."""
    parts = []
    if settings.azimuth:
        parts.append(f"turned {settings.azimuth:g} degrees to the right around a point {settings.distance:g} ahead")
    if settings.forward:
        parts.append(f"{settings.forward:g} forward")
    return f"{' and '.join(parts) or 'the same as the photograph'}, as the config says (sample.target_camera)"


def named_target(text: str, cameras: Camera, near: float, far: float) -> np.ndarray:
    """The pose [4, 4] of the target camera that a text means: the numbers 'azimuth,elevation,distance[,forward]', or
    the name of a camera path, of which it is the camera that differs most from the first.

    Args:
      cameras: [k] relative to the first of the photographs.

    Raises:
      UserError: it means none.
    """
    if numbers := camera_numbers(text):
        return target_pose(numbers)
    if text not in VIDEO_PATHS:
        raise UserError(f"the target camera {camera_problem(text)}")
    if text in ("interpolate", "dataset"):
        raise UserError(f"the target camera cannot be on the path {text!r}, which is made of cameras that are known")
    path = make_path(text, cameras, target=0, near=near, far=far, num_frames=PATH_FRAMES).camera.camera_to_world
    first = path[0]
    moved = np.linalg.norm(path[:, :3, 3] - first[:3, 3], axis=-1) / (0.5 * (near + far))
    turned = 1 - (path[:, :3, 2] @ first[:3, 2])
    return path[np.argmax(moved + turned)]
