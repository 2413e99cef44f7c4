"""Camera paths for videos, as pure numpy functions of one scene's cameras.

Notation: `T` is a 4x4 camera_to_world (OpenCV: columns right, down, forward, position); a path has `m` different
poses and `n` frames. Poses are in the frame they are given in, which is that of the example (relative to its first
context view), and keep the dtype float64 until they are rendered.
"""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.structs import Camera

# How far 'interpolate' goes on behind the target camera, as a share of the way to it.
OVERSHOOT = 0.25
# Weight of the average up direction against the cameras' right axes; small, so that right axes win where they speak.
_UP_RIDGE = 1e-3
# Optical axes whose normal equations are worse conditioned than this (parallel to about 3 degrees) share no point.
_MIN_CONVERGENCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The poses to render, and the order in which a video shows them.

    `camera` holds [m, 4, 4] and [m, 3, 3]; `order` [n] indexes it. A path that comes back the way it went shows its
    poses twice and so renders each of them once.
    """

    camera: Camera
    order: np.ndarray


def make_path(
    name: str, cameras: Camera, *, target: int, near: float, far: float, num_frames: int, recorded: Camera | None = None
) -> Trajectory:
    """The path called `name` in a config.

    Args:
      name: 'interpolate', 'orbit' or 'dataset'.
      cameras: [k] cameras of the example's real views; the first is the first context view.
      target: index in `cameras` of the target view that was sampled.
      near: distance at which the scene starts.
      far: distance at which it ends.
      num_frames: frames of the video.
      recorded: [k'] the scene's own cameras in recording order, `without_holes`; only 'dataset' reads (and needs)
        them.
    """
    if name == "orbit":
        return orbit(cameras, scene_centre(cameras, near, far), num_frames)
    if name == "interpolate":
        return interpolate(_camera(cameras, 0), _camera(cameras, target), num_frames)
    if name == "dataset" and recorded is not None:
        return follow(recorded, num_frames)
    raise ValueError(f"no camera path {name!r} (with recorded cameras: {recorded is not None})")


def interpolate(start: Camera, end: Camera, num_frames: int) -> Trajectory:
    """From `start` to `end`, a little on, and back, along the screw motion that takes one camera to the other.

    A screw motion is the path of constant turn and constant advance: two cameras that look at one object go around
    it, two that look the same way go straight. Slerp with a linear position would pass through the object.
    """
    there = (num_frames + 1) // 2 + 1
    way = np.linspace(0.0, 1.0 + OVERSHOOT, there)
    order = np.concatenate([np.arange(there), np.arange(there - 2, 0, -1)])[:num_frames]
    return Trajectory(_between(start, end, way), order)


def orbit(cameras: Camera, centre: np.ndarray, num_frames: int) -> Trajectory:
    """One full turn of the first camera around `centre` [3]: its distance, elevation and view of the centre stay."""
    pose, intrinsics = _pose(cameras)[0], np.asarray(cameras.intrinsics, np.float64)[0]
    angles = np.linspace(0.0, 2 * np.pi, num_frames, endpoint=False)
    turn = Rotation.from_rotvec(angles[:, None] * up_direction(cameras)).as_matrix()  # [n, 3, 3]
    poses = np.tile(pose, (num_frames, 1, 1))
    poses[:, :3, :3] = turn @ pose[:3, :3]
    poses[:, :3, 3] = centre + turn @ (pose[:3, 3] - centre)
    return Trajectory(Camera(poses, np.tile(intrinsics, (num_frames, 1, 1))), np.arange(num_frames))


def follow(recorded: Camera, num_frames: int) -> Trajectory:
    """Through the recorded cameras [k], first to last, at an even pace in recorded frames."""
    count = len(recorded.camera_to_world)
    at = np.linspace(0.0, count - 1, num_frames)
    before = np.minimum(np.floor(at).astype(int), max(count - 2, 0))
    after = np.minimum(before + 1, count - 1)
    legs = zip(before, after, at - before, strict=True)
    steps = [_between(_camera(recorded, i), _camera(recorded, j), way[None]) for i, j, way in legs]
    poses = np.concatenate([step.camera_to_world for step in steps])
    return Trajectory(Camera(poses, np.concatenate([step.intrinsics for step in steps])), np.arange(num_frames))


def key_cameras(path: Trajectory, step: int) -> Camera:
    """Every `step`-th camera [k] of a path as a video shows it, without the first one."""
    return _camera(path.camera, path.order[step::step])


def without_holes(recorded: Camera, positions: np.ndarray) -> Camera:
    """Recorded cameras [k], with interpolated ones in the place of frames that are missing between them.

    Args:
      positions: [k] of the cameras among all frames of the recording, increasing.
    """
    if len(positions) == positions[-1] - positions[0] + 1:
        return recorded
    parts = [_camera(recorded, np.array([0]))]
    for i, distance in enumerate(np.diff(positions).tolist()):
        way = np.arange(1, distance) / distance
        parts += [_between(_camera(recorded, i), _camera(recorded, i + 1), way)] if distance > 1 else []
        parts += [_camera(recorded, np.array([i + 1]))]
    return Camera(*(np.concatenate(x) for x in zip(*((p.camera_to_world, p.intrinsics) for p in parts), strict=True)))


def recorded_key_cameras(recorded: Camera, start: int, step: int) -> Camera:
    """Recorded cameras [k] at multiples of `step` frames from frame `start`, first ahead of it, then behind it."""
    count = len(recorded.camera_to_world)
    return _camera(recorded, np.array([*range(start + step, count, step), *range(start - step, -1, -step)], int))


def scene_centre(cameras: Camera, near: float, far: float) -> np.ndarray:
    """The point [3] to orbit: the one nearest to all optical axes, or, where these have no point in common that all
    cameras see between `near` and `far`, the middle of the first camera's range."""
    poses = _pose(cameras)
    positions, forwards = poses[:, :3, 3], poses[:, :3, 2]
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]  # [k, 3, 3] projects away from each axis
    normal = across.sum(0)
    if np.linalg.eigvalsh(normal)[0] > _MIN_CONVERGENCE * len(poses):
        centre = np.linalg.solve(normal, np.einsum("kij,kj->i", across, positions))
        ahead = np.sum((centre - positions) * forwards, axis=-1)
        if np.all((near < ahead) & (ahead < far)):
            return centre
    return positions[0] + 0.5 * (near + far) * forwards[0]


def up_direction(cameras: Camera) -> np.ndarray:
    """The cameras' common up direction [3], unit length.

    It is their average up, less what of it lies along their right axes (a ridge regression): cameras held level have
    horizontal right axes, while the plain average of cameras that look down leans away from them.
    """
    poses = _pose(cameras)
    rights, average_up = poses[:, :3, 0], -poses[:, :3, 1].mean(0)
    spread = rights.T @ rights / len(poses)
    up = np.linalg.solve(spread + _UP_RIDGE * np.eye(3), average_up)
    return up / np.linalg.norm(up)


def _between(start: Camera, end: Camera, way: np.ndarray) -> Camera:
    """Cameras [m] at the shares `way` [m] of the screw motion from `start` to `end`; 0 is `start` and 1 is `end`."""
    first, last = np.asarray(start.camera_to_world, np.float64), np.asarray(end.camera_to_world, np.float64)
    relative = np.linalg.inv(first) @ last
    turn = Rotation.from_matrix(relative[:3, :3]).as_rotvec()
    velocity = np.linalg.solve(_screw_integral(turn), relative[:3, 3])
    step = np.tile(np.eye(4), (len(way), 1, 1))
    step[:, :3, :3] = Rotation.from_rotvec(way[:, None] * turn).as_matrix()
    step[:, :3, 3] = np.stack([w * _screw_integral(w * turn) @ velocity for w in way])
    share = np.clip(way, 0.0, 1.0)[:, None, None]  # a focal length is not extrapolated
    intrinsics = (1 - share) * np.asarray(start.intrinsics) + share * np.asarray(end.intrinsics)
    return Camera(first @ step, intrinsics)


def _screw_integral(turn: np.ndarray) -> np.ndarray:
    """The matrix [3, 3] that takes a constant body velocity to the displacement after turning by the rotation vector
    `turn` [3]: the integral of exp(s * skew(turn)) over s in [0, 1] (the left Jacobian of SO(3))."""
    angle = np.linalg.norm(turn)
    x, y, z = turn
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if angle < 1e-6:  # the closed form divides by zero; the next term of the series is below float64
        return np.eye(3) + 0.5 * skew
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * skew + (angle - np.sin(angle)) / angle**3 * skew @ skew


def _pose(cameras: Camera) -> np.ndarray:
    return np.asarray(cameras.camera_to_world, np.float64)


def _camera(cameras: Camera, i: int | np.ndarray) -> Camera:
    return Camera(cameras.camera_to_world[i], cameras.intrinsics[i])
