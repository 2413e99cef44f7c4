"""Camera paths for videos, as pure numpy functions of one scene's cameras.

Notation: `T` is a 4x4 camera_to_world (OpenCV: columns right, down, forward, position); a path has `m` different
poses and `n` frames. Poses are in the frame they are given in, which is that of the example (relative to its first
context view), and keep the dtype float64 until they are rendered.
"""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.structs import Camera
from dfm_jax.viewpoints import between, scene_centre, up_direction

# How far 'interpolate' continues behind the target camera, as a share of the way to it.
OVERSHOOT = 0.25
# How far a camera goes ahead, and around on a spiral, as shares of the distance to the point that it looks at.
AHEAD, WIDTH = 0.35, 0.12
SPIRAL_TURNS = 2
PAN_DEGREES = 20.0  # to each side


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The poses to render, and the order in which a video shows them.

    `camera` holds [m, 4, 4] and [m, 3, 3]; `order` [n] indexes it. A path that comes back the way it went shows its
    poses twice and so renders each of them once.
    """

    camera: Camera
    order: np.ndarray
    size: tuple[int, int] | None = None  # height and width of the frames, pixels; None: square, as the model's images
    fps: float | None = None  # frames a second; None: as usual

    @property
    def frames(self) -> Camera:
        """[n] cameras, in the order of the video."""
        return _camera(self.camera, self.order)

    def replaced(self, camera: Camera) -> "Trajectory":
        """The same with other cameras [m]."""
        return dataclasses.replace(self, camera=camera)


def make_path(
    name: str, cameras: Camera, *, target: int, near: float, far: float, num_frames: int, recorded: Camera | None = None
) -> Trajectory:
    """The path called `name` in a config.

    Args:
      name: of `config.sampling.VIDEO_PATHS`.
      cameras: [k] cameras of the example's real views; the first is the first context view.
      target: index in `cameras` of the target view that was sampled.
      near: distance at which the scene starts.
      far: distance at which it ends.
      num_frames: frames of the video.
      recorded: [k'] the scene's own cameras in recording order, `without_holes`; only 'dataset' reads (and needs)
        them.
    """
    centre = scene_centre(cameras, near, far)
    if name == "orbit":
        return orbit(cameras, centre, num_frames)
    if name == "interpolate":
        return interpolate(_camera(cameras, 0), _camera(cameras, target), num_frames)
    if name == "pan":
        return pan(cameras, num_frames)
    ahead = {"spiral": spiral, "dolly": dolly, "forward": forward, "dolly-zoom": dolly_zoom}
    if name in ahead:
        return ahead[name](cameras, centre, near, num_frames)
    if name == "dataset" and recorded is not None:
        return follow(recorded, num_frames)
    raise ValueError(f"no camera path {name!r} (with recorded cameras: {recorded is not None})")


def interpolate(start: Camera, end: Camera, num_frames: int) -> Trajectory:
    """From `start` to `end`, a little on, and back, along the screw motion that takes one camera to the other.

    A screw motion is the path of constant turn and constant advance: two cameras that look at one object go around
    it, two that look the same way go straight. Slerp with a linear position would pass through the object.
    """
    way, order = _there_and_back(num_frames)
    return Trajectory(between(start, end, way * (1.0 + OVERSHOOT)), order)


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
    steps = [between(_camera(recorded, i), _camera(recorded, j), way[None]) for i, j, way in legs]
    poses = np.concatenate([step.camera_to_world for step in steps])
    return Trajectory(Camera(poses, np.concatenate([step.intrinsics for step in steps])), np.arange(num_frames))


def spiral(cameras: Camera, centre: np.ndarray, near: float, num_frames: int) -> Trajectory:
    """Two turns of a spiral that opens and closes around the first camera, which goes a little ahead and back on the
    way; it turns as `centre` [3] asks for, which stays where it is in the picture."""
    pose = _pose(cameras)[0]
    distance, way = np.linalg.norm(centre - pose[:3, 3]), np.linspace(0.0, 1.0, num_frames)
    radius, angle = WIDTH * distance * np.sin(np.pi * way), SPIRAL_TURNS * 2 * np.pi * way
    ahead = 0.5 * _reach(distance, near) * np.sin(np.pi * way) * np.sin(angle)
    offsets = np.stack([radius * np.sin(angle), radius * (np.cos(angle) - 1), ahead], axis=-1)
    poses = np.tile(pose, (num_frames, 1, 1))
    poses[:, :3, 3] += offsets @ pose[:3, :3].T
    turns = [_least_turn(centre - pose[:3, 3], centre - at) for at in poses[:, :3, 3]]
    poses[:, :3, :3] = np.stack(turns) @ pose[:3, :3]
    return Trajectory(_with_lens(poses, cameras), np.arange(num_frames))


def pan(cameras: Camera, num_frames: int) -> Trajectory:
    """The first camera, where it stands, turned to one side, back, to the other side, and back."""
    pose, up = _pose(cameras)[0], up_direction(cameras)
    angles = np.radians(PAN_DEGREES) * np.sin(np.linspace(0.0, 2 * np.pi, num_frames, endpoint=False))
    poses = np.tile(pose, (num_frames, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(angles[:, None] * up).as_matrix() @ pose[:3, :3]
    return Trajectory(_with_lens(poses, cameras), np.arange(num_frames))


def forward(cameras: Camera, centre: np.ndarray, near: float, num_frames: int) -> Trajectory:
    """The first camera, straight ahead along its optical axis, toward where `centre` [3] is."""
    way = np.linspace(0.0, 1.0, num_frames)
    return Trajectory(_ahead(cameras, centre, near, way)[0], np.arange(num_frames))


def dolly(cameras: Camera, centre: np.ndarray, near: float, num_frames: int) -> Trajectory:
    """The same, and back."""
    way, order = _there_and_back(num_frames)
    return Trajectory(_ahead(cameras, centre, near, way)[0], order)


def dolly_zoom(cameras: Camera, centre: np.ndarray, near: float, num_frames: int) -> Trajectory:
    """The same, with a lens that gets wider on the way ahead: what is as far as `centre` [3] along the optical axis
    keeps its size in the picture, and what lies behind it recedes."""
    way, order = _there_and_back(num_frames)
    camera, zoom = _ahead(cameras, centre, near, way)
    intrinsics = np.array(camera.intrinsics)
    intrinsics[:, :2, :2] *= zoom[:, None, None]
    return Trajectory(Camera(camera.camera_to_world, intrinsics), order)


def _ahead(cameras: Camera, centre: np.ndarray, near: float, way: np.ndarray) -> tuple[Camera, np.ndarray]:
    """The first camera at the shares `way` [m] of the way ahead that is open to it; and its distance to the plane of
    `centre`, as shares [m] of the first."""
    pose = _pose(cameras)[0]
    distance = float((centre - pose[:3, 3]) @ pose[:3, 2])
    moved = way * _reach(distance, near)
    poses = np.tile(pose, (len(way), 1, 1))
    poses[:, :3, 3] += moved[:, None] * pose[:3, 2]
    return _with_lens(poses, cameras), 1 - moved / distance


def _reach(distance: float, near: float) -> float:
    """How far a camera can go ahead to something at a distance: rays begin at `near`, which must not be behind it."""
    return max(0.0, min(AHEAD * distance, 0.25 * (distance - near)))


def _there_and_back(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares [m] of a way, and the order [n] of a video that goes along it and back."""
    there = (num_frames + 1) // 2 + 1
    return np.linspace(0.0, 1.0, there), np.concatenate([np.arange(there), np.arange(there - 2, 0, -1)])[:num_frames]


def _least_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] by the smallest angle that takes the direction [3] of `start` to that of `end`."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    if sine < 1e-12:
        return np.eye(3)
    return Rotation.from_rotvec(axis / sine * np.arctan2(sine, start @ end)).as_matrix()


def _with_lens(poses: np.ndarray, cameras: Camera) -> Camera:
    """Poses [m, 4, 4] with the intrinsics of the first camera."""
    return Camera(poses, np.tile(np.asarray(cameras.intrinsics, np.float64)[0], (len(poses), 1, 1)))


def key_cameras(path: Trajectory, step: int) -> Camera:
    """Every `step`-th camera [k] of a path as a video shows it, without the first one."""
    return _camera(path.camera, path.order[step::step])


def without_holes(recorded: Camera, positions: np.ndarray) -> Camera:
    """Recorded cameras [k], with interpolated ones instead of frames that are missing between them.

    Args:
      positions: [k] of the cameras among all frames of the recording, increasing.
    """
    if len(positions) == positions[-1] - positions[0] + 1:
        return recorded
    parts = [_camera(recorded, np.array([0]))]
    for i, distance in enumerate(np.diff(positions).tolist()):
        way = np.arange(1, distance) / distance
        parts += [between(_camera(recorded, i), _camera(recorded, i + 1), way)] if distance > 1 else []
        parts += [_camera(recorded, np.array([i + 1]))]
    return Camera(*(np.concatenate(x) for x in zip(*((p.camera_to_world, p.intrinsics) for p in parts), strict=True)))


def recorded_key_cameras(recorded: Camera, start: int, step: int) -> Camera:
    """Recorded cameras [k] at multiples of `step` frames from frame `start`, first ahead of it, then behind it."""
    count = len(recorded.camera_to_world)
    return _camera(recorded, np.array([*range(start + step, count, step), *range(start - step, -1, -step)], int))


def _pose(cameras: Camera) -> np.ndarray:
    return np.asarray(cameras.camera_to_world, np.float64)


def _camera(cameras: Camera, i: int | np.ndarray) -> Camera:
    return Camera(cameras.camera_to_world[i], cameras.intrinsics[i])
