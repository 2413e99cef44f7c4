"""What posed cameras look at, and cameras between and around them, in pure numpy.

Notation: `T` is a 4x4 camera_to_world (OpenCV: columns right, down, forward, position). All poses are in one frame,
whichever it is.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.structs import Camera

# Weight of the average up direction against the cameras' right axes; small, so that right axes win where they speak.
_UP_RIDGE = 1e-3
# Optical axes whose normal equations are worse conditioned than this (parallel to about 3 degrees) share no point.
_MIN_CONVERGENCE = 1e-3
# Directions from which context and target see the scene that differ by more than this (radians) say that it is looked
# at from all sides; by less, that it is seen from one.
_ALL_AROUND = np.radians(60.0)
# How far cameras around a scene rise and sink (radians), how far those before one go beyond context and target as a
# share of the way, and how far they shift aside as a share of the distance to what they see.
_RISE, _BEYOND, _ASIDE = np.radians(12.0), 0.25, 0.1
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


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


def between(start: Camera, end: Camera, way: np.ndarray) -> Camera:
    """Cameras [m] at the shares `way` [m] of the screw motion from `start` to `end`; 0 is `start` and 1 is `end`."""
    first, last = np.asarray(start.camera_to_world, np.float64), np.asarray(end.camera_to_world, np.float64)
    relative = np.linalg.inv(first) @ last
    turn = Rotation.from_matrix(relative[:3, :3]).as_rotvec()
    velocity = np.linalg.solve(_screw_integral(turn), relative[:3, 3])
    step = np.tile(np.eye(4), (len(way), 1, 1))
    step[:, :3, :3] = Rotation.from_rotvec(way[:, None] * turn).as_matrix()
    step[:, :3, 3] = np.reshape([w * _screw_integral(w * turn) @ velocity for w in way], (-1, 3))
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


def cameras_around(context: Camera, target: Camera, near: float, far: float, count: int) -> Camera:
    """Cameras [count] that together see what can be seen of a scene: first `context`, then `target`, then, at
    an even pace, around what both look at; or, where they look from about the same side, between and beside them."""
    ends = Camera(*(np.stack(x).astype(np.float64) for x in zip(_parts(context), _parts(target), strict=True)))
    centre = scene_centre(ends, near, far)
    number = np.arange(max(count - 2, 0))
    way = (number + 0.5) / max(len(number), 1)
    scattered = (number * _GOLDEN) % 1.0  # evenly over [0, 1) at any stretch of the way
    if are_all_around(ends, centre):
        more = _ring(ends, centre, 2 * np.pi * way, _RISE * (2 * scattered - 1))
    else:
        more = _beside(ends, 2 * near * far / (near + far), way, 2 * np.pi * scattered)
    both = zip(_parts(ends), _parts(more), strict=True)
    return Camera(*(np.concatenate(x)[:count] for x in both))


def are_all_around(ends: Camera, centre: np.ndarray) -> bool:
    """Whether two cameras [2] see `centre` [3] from so different sides that it is looked at from all."""
    outward = np.asarray(ends.camera_to_world, np.float64)[:, :3, 3] - centre
    cosine = outward[0] @ outward[1] / np.maximum(np.linalg.norm(outward[0]) * np.linalg.norm(outward[1]), 1e-9)
    return bool(np.arccos(np.clip(cosine, -1, 1)) > _ALL_AROUND)


def _ring(ends: Camera, centre: np.ndarray, azimuths: np.ndarray, rises: np.ndarray) -> Camera:
    """The first camera, turned about `centre` by azimuths and raised by angles [m], nearer to the second one's distance
    the nearer it comes to it."""
    first, up = ends.camera_to_world[0], up_direction(ends)
    distances = np.linalg.norm(ends.camera_to_world[:, :3, 3] - centre, axis=-1)
    share = 0.5 - 0.5 * np.cos(azimuths)
    turn = Rotation.from_rotvec(azimuths[:, None] * up) * Rotation.from_rotvec(-rises[:, None] * first[:3, 0])
    poses = np.tile(np.eye(4), (len(azimuths), 1, 1))
    poses[:, :3, :3] = turn.as_matrix() @ first[:3, :3]
    stretched = (1 - share) + share * distances[1] / distances[0]
    poses[:, :3, 3] = centre + stretched[:, None] * turn.apply(first[:3, 3] - centre)
    return Camera(poses, np.tile(ends.intrinsics[0], (len(azimuths), 1, 1)))


def _beside(ends: Camera, distance: float, way: np.ndarray, angles: np.ndarray) -> Camera:
    """Cameras on the way [m] from the first to the second and beyond both, shifted aside in directions `angles`."""
    start, end = (Camera(ends.camera_to_world[i], ends.intrinsics[i]) for i in range(2))
    path = between(start, end, way * (1 + 2 * _BEYOND) - _BEYOND)
    poses = path.camera_to_world.copy()
    aside = np.cos(angles)[:, None] * poses[:, :3, 0] + np.sin(angles)[:, None] * poses[:, :3, 1]
    poses[:, :3, 3] += _ASIDE * distance * aside
    return Camera(poses, path.intrinsics)


def _parts(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(camera.camera_to_world), np.asarray(camera.intrinsics)


def _pose(cameras: Camera) -> np.ndarray:
    return np.asarray(cameras.camera_to_world, np.float64)
