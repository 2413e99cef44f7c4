"""Which reading of a scene's poses its pictures agree with.

The usual mistakes with poses are few: camera axes of another program, world-to-camera for camera-to-world, positions
with the wrong sign. Each *reading* undoes one of them (or two); the one under which the points that pictures share lie
on their epipolar lines, and in front of the cameras, is right.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from dfm_jax.data import epipolar
from dfm_jax.data.epipolar import Pair
from dfm_jax.data.geometry_checks import INVERSE, OPENGL, PYTORCH3D

GOOD = 0.004  # median epipolar error, as a share of the picture, of poses that need no further look
FITS = 0.01  # up to which a reading may be right
MUCH_BETTER = 4.0  # factor between the errors of a wrong and a right reading
MIN_MATCHES = 30  # of a scene, to say anything
MIN_AHEAD = 0.6  # share of the points that must lie in front of their cameras

BACKWARDS = "camera axes with x left and z back read as OpenCV's (x right, z forward)"
NEGATED = "camera positions with the wrong sign"


def _axes(*signs: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda poses: poses @ np.diag([*signs, 1.0])


def _negated(poses: np.ndarray) -> np.ndarray:
    return np.concatenate([poses[..., :3], poses[..., 3:] * [[-1.0], [-1.0], [-1.0], [1.0]]], axis=-1)


READINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    OPENGL: _axes(1, -1, -1),
    INVERSE: np.linalg.inv,
    PYTORCH3D: _axes(-1, -1, 1),
    BACKWARDS: _axes(-1, 1, -1),
    NEGATED: _negated,
    f"{INVERSE}, and {OPENGL}": lambda poses: np.linalg.inv(poses) @ np.diag([1.0, -1, -1, 1]),
    f"{INVERSE}, and {PYTORCH3D}": lambda poses: np.linalg.inv(poses) @ np.diag([-1.0, -1, 1, 1]),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    right: bool | None  # whether the poses as stored agree with the pictures; None: the pictures do not tell
    mistake: str = ""  # of READINGS, where they do not and something else does
    error: float = np.nan  # median epipolar error as stored, as a share of the picture
    error_without: float = np.nan  # and if the mistake is undone


def judge(pairs: Sequence[Pair], camera_to_world: np.ndarray, intrinsics: np.ndarray) -> Verdict:
    """What matches say about poses [v, 4, 4]."""
    error, ahead = epipolar.pooled(pairs, camera_to_world, intrinsics)
    if sum(len(pair.a) for pair in pairs) < MIN_MATCHES or not np.isfinite(error):
        return Verdict(None, error=error)
    in_front = ahead >= MIN_AHEAD
    if in_front and error <= GOOD:
        return Verdict(True, error=error)
    tried = {mistake: epipolar.pooled(pairs, read(camera_to_world), intrinsics) for mistake, read in READINGS.items()}
    fitting = {mistake: e for mistake, (e, share) in tried.items() if share >= MIN_AHEAD and e <= FITS}
    if fitting:
        mistake = min(fitting, key=fitting.__getitem__)
        if not in_front or error >= MUCH_BETTER * fitting[mistake]:
            return Verdict(False, mistake, error, fitting[mistake])
    return Verdict(True if in_front and error <= FITS else None, error=error)
