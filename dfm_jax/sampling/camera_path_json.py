"""nerfstudio's `camera_path.json`: a video, camera by camera.

    camera_path                  a camera a frame: `camera_to_world`, 16 numbers, row by row, with OpenGL axes (x right,
                                 y up, z back), and `fov`, vertical, in degrees
    render_height, render_width  of the frames, pixels; these are square
    fps                          frames a second
    camera_type                  'perspective'

Keyframes, between which its viewer made the path, are not read.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.structs import Camera

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
MOST_FRAMES, MOST_PIXELS, LARGEST_SIDE = 10_000, 2**28, 8192  # of a video: what memory holds
RIGID = 1e-3  # by which a rotation may be none, after a file's rounding
CENTRED = 1e-6


def parse_camera_path(content: Mapping[str, Any], name: str) -> Trajectory:
    """The path that the content of a file means, in the coordinates of its cameras.

    Raises:
      UserError: it is none that can be rendered.
    """
    kind = str(content.get("camera_type", "perspective")).lower()
    if kind not in ("perspective", "pinhole"):
        raise UserError(f"{name}: cameras of type {kind!r} are not rendered, only perspective ones")
    frames = content.get("camera_path")
    if not isinstance(frames, list) or not 0 < len(frames) <= MOST_FRAMES:
        raise UserError(f"{name} must have a list camera_path of 1 to {MOST_FRAMES} cameras")
    height, width = (_side(content, key, name) for key in ("render_height", "render_width"))
    if height * width * len(frames) > MOST_PIXELS:
        raise UserError(f"{name}: {len(frames)} frames of {width} x {height} pixels fill the memory: render smaller")
    fps = _number(content.get("fps", 24), "fps", name)
    if not 0 < fps <= 1000:
        raise UserError(f"{name}: fps={fps:g} is no number of frames a second")
    poses = np.stack([_pose(frame, i, name) for i, frame in enumerate(frames)])
    fovs = np.array([_fov(frame, i, name) for i, frame in enumerate(frames)])
    focal = 0.5 / np.tan(np.radians(fovs) / 2)  # in heights
    intrinsics = np.tile(np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 1.0]]), (len(frames), 1, 1))
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = focal * height / width, focal
    return Trajectory(Camera(poses, intrinsics), np.arange(len(frames)), (height, width), fps)


def is_representable(camera: Camera, size: tuple[int, int]) -> bool:
    """Whether the format has cameras [n] like these, of frames of `size` (height and width, pixels): pixels are square,
    and the optical axis meets the middle of the picture."""
    height, width = size
    intrinsics = np.asarray(camera.intrinsics, np.float64)
    middle = np.abs(intrinsics[:, :2, 2] - 0.5).max() < CENTRED and np.abs(intrinsics[:, 0, 1]).max() < CENTRED
    return bool(middle and np.allclose(intrinsics[:, 0, 0] * width, intrinsics[:, 1, 1] * height, rtol=CENTRED))


def write_camera_path(path: Path, camera: Camera, size: tuple[int, int], fps: float) -> None:
    """Writes cameras [n] that are representable, in the order of a video."""
    (height, width), intrinsics = size, np.asarray(camera.intrinsics, np.float64)
    poses = np.asarray(camera.camera_to_world, np.float64) @ OPENCV_FROM_OPENGL
    fovs = np.degrees(2 * np.arctan(0.5 / intrinsics[:, 1, 1]))
    frames = [
        {"camera_to_world": pose.ravel().tolist(), "fov": fov, "aspect": width / height}
        for pose, fov in zip(poses, fovs.tolist(), strict=True)
    ]
    content = {"camera_type": "perspective", "render_height": height, "render_width": width, "fps": fps}
    content |= {"seconds": len(frames) / fps, "is_cycle": False, "smoothness_value": 0.0, "keyframes": []}
    path.write_text(json.dumps(content | {"camera_path": frames}) + "\n")


def _pose(frame: Any, number: int, name: str) -> np.ndarray:
    values = frame.get("camera_to_world") if isinstance(frame, Mapping) else None
    try:
        pose = np.array(values, np.float64).reshape(4, 4)
    except (TypeError, ValueError):
        raise UserError(f"{name}: camera {number} has no camera_to_world of 16 numbers") from None
    turn = pose[:3, :3]
    rigid = np.isfinite(pose).all() and np.abs(turn @ turn.T - np.eye(3)).max() < RIGID and np.linalg.det(turn) > 0
    if not rigid or np.abs(pose[3] - [0, 0, 0, 1]).max() > RIGID:
        raise UserError(f"{name}: camera_to_world of camera {number} is no rotation and translation")
    return pose @ OPENCV_FROM_OPENGL


def _fov(frame: Mapping[str, Any], number: int, name: str) -> float:
    fov = _number(frame.get("fov"), f"fov of camera {number}", name)
    if not 0 < fov < 180:
        raise UserError(f"{name}: the vertical fov of camera {number} is {fov:g}: above 0 and below 180 degrees")
    return fov


def _side(content: Mapping[str, Any], key: str, name: str) -> int:
    side = _number(content.get(key), key, name)
    if side != int(side) or not 1 <= side <= LARGEST_SIDE:
        raise UserError(f"{name}: {key}={side:g} is no number of pixels from 1 to {LARGEST_SIDE}")
    return int(side)


def _number(value: Any, what: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name}: {what} is no number")
    return float(value)
