"""Which reading of a scene's poses its pictures agree with.

The usual mistakes with poses are few: camera axes of another program, world-to-camera for camera-to-world, positions
with the wrong sign. Each *reading* undoes one of them (or two); the one under which the points that pictures share lie
on their epipolar lines, and in front of the cameras, is right.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from dfm_jax.data.preparing import epipolar
from dfm_jax.data.preparing.epipolar import Pair
from dfm_jax.data.preparing.geometry_checks import INVERSE, OPENGL, PYTORCH3D

GOOD = 0.005  # median epipolar error, as a share of the picture, of poses that need no further look
FITS = 0.01  # up to which a reading may be right
MUCH_BETTER = 4.0  # factor between the errors of a wrong and a right reading
MUCH_BETTER_FOCAL = 2.5  # less, since the right focal length lies between those that are tried
MIN_MATCHES = 30  # of a scene, to say anything
FOCAL_FACTORS = (0.4, 0.5, 0.6, 0.7, 0.8, 1.25, 1.4, 1.7, 2.0, 2.5)
MIN_AHEAD = 0.6  # share of the points that lie in front of their cameras, below which a reading is wrong
CLEARLY_AHEAD = 0.8  # from which it may be right where another is wrong

BACKWARDS = "x and z of the camera axes are flipped"
NEGATED = "camera positions have the wrong sign"


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
    error: float = np.nan  # median epipolar error as stored, as a share of the picture; NaN: too few matches
    error_without: float = np.nan  # and if the mistake is undone
    focal_factor: float = np.nan  # by which longer focal lengths would fit much better, where no mistake is known

    @property
    def evidence(self) -> str:
        """A sentence."""
        missed = f"Points miss their epipolar lines by {self.error:.1%} of the picture"
        if self.mistake and self.error < 2 * self.error_without:
            return "Points that pictures share lie behind their cameras, and in front of them once that is undone"
        if self.mistake:
            return f"{missed}, and by {self.error_without:.1%} once that is undone"
        if np.isfinite(self.focal_factor):
            return f"{missed}, and by much less if focal lengths were {self.focal_factor:g} times as long"
        return f"{missed}: poses, focal lengths or lens distortion are wrong, or not exact"


def judge(pairs: Sequence[Pair], camera_to_world: np.ndarray, intrinsics: np.ndarray) -> Verdict:
    """What matches say about poses [v, 4, 4]."""
    error, ahead = epipolar.pooled(pairs, camera_to_world, intrinsics)
    if sum(len(pair.a) for pair in pairs) < MIN_MATCHES or not np.isfinite(error):
        return Verdict(None)
    in_front = ahead >= MIN_AHEAD
    if in_front and error <= GOOD:
        return Verdict(True, error=error)
    tried = {mistake: epipolar.pooled(pairs, read(camera_to_world), intrinsics) for mistake, read in READINGS.items()}
    fitting = {mistake: e for mistake, (e, share) in tried.items() if share >= CLEARLY_AHEAD and e <= FITS}
    if fitting:
        mistake = min(fitting, key=fitting.__getitem__)
        if not in_front or error >= MUCH_BETTER * fitting[mistake]:
            return Verdict(False, mistake, error, fitting[mistake])
    right = True if in_front and error <= FITS else None
    return Verdict(right, error=error, focal_factor=_better_focal(pairs, camera_to_world, intrinsics, error))


def _better_focal(pairs: Sequence[Pair], camera_to_world: np.ndarray, intrinsics: np.ndarray, error: float) -> float:
    """The factor for focal lengths with which points miss their lines by much less; NaN if there is none."""

    def error_with(factor: float) -> float:
        scaled = intrinsics * [[factor, 1, 1], [1, factor, 1], [1, 1, 1]]
        return epipolar.pooled(pairs, camera_to_world, scaled)[0]

    best = min(FOCAL_FACTORS, key=error_with)
    left = error_with(best)
    return best if left <= GOOD and left * MUCH_BETTER_FOCAL < error else np.nan
