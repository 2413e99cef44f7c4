"""What the cameras of a scene tell about mistakes, without looking at the pictures.

What cannot be right is `Rejected`. What may be right is a *warning*, a sentence for a person. What a frequent mistake
would look like, but an honest capture might too, is a *suspicion*, for the pictures to decide (`scene_checks`): cameras
swung around at arm's length look away from a centre exactly as an orbit does whose axes point backwards.
"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

from dfm_jax.data.preparing import outliers
from dfm_jax.data.preparing.bounds import nearest_to_axes
from dfm_jax.errors import Rejected

# Each undoes itself, so that it cannot be told in which direction it was made.
OPENGL = "y and z of the camera axes are flipped (OpenGL's taken for OpenCV's, or the other way round)"
PYTORCH3D = "x and y of the camera axes are flipped (PyTorch3D's taken for OpenCV's, or the other way round)"
INVERSE = "world-to-camera poses were taken for camera-to-world, or the other way round"

UNANIMOUS = 0.9  # share of the cameras
MAX_MISS = np.deg2rad(15)  # median angle between an axis and the common point, above which they meet nowhere
MAX_INVERSE_MISS = np.deg2rad(5)  # the same for inverse poses: turning on a walk can make them look like an orbit
MIN_BELOW = np.sin(np.deg2rad(20))  # cameras look up this steeply at what they share if they are upside down
MAX_TILT, MIN_TURN = 0.01, 0.05  # mean squared sines of cameras' x axes out of their plane, and within it
MIN_BASELINE = 0.005  # of the depth: one pixel of parallax at a usual size and field of view
STILL = 1e-9  # positions relative to their size
MAX_OFF_CENTRE = 0.2  # of the principal point, as a share of the picture
MAX_PIXEL_ASPECT = 1.25
SAME_ANGLE, SAME_PLACE = np.deg2rad(0.5), 0.005  # poses count as the same; the place relative to the scene's extent


@dataclasses.dataclass(frozen=True)
class Suspicion:
    mistake: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Convergence:
    """How optical axes meet, each seen as a line that runs both ways."""

    point: np.ndarray  # [3] nearest to all of them
    ahead: float  # share of the cameras that have it in front of them
    miss: float  # median angle between an axis and the direction of the point, radians


def convergence(camera_to_world: np.ndarray) -> Convergence | None:
    """Of poses [v, 4, 4]; None where the axes are parallel or meet nowhere in particular."""
    point = nearest_to_axes(camera_to_world)
    if point is None:
        return None
    towards = point - camera_to_world[:, :3, 3]
    along = (towards * camera_to_world[:, :3, 2]).sum(-1)
    distance = np.maximum(np.linalg.norm(towards, axis=-1), 1e-300)
    miss = np.arccos(np.clip(np.abs(along) / distance, 0, 1))
    return Convergence(point, float((along > 0).mean()), float(np.median(miss)))


def suspicion(camera_to_world: np.ndarray) -> Suspicion | None:
    """The mistake in the convention of poses [v, 4, 4] that would explain how the cameras are arranged.

    Parallel axes (cameras side by side, or moving ahead) say nothing.
    """
    if len(camera_to_world) < 3:
        return None
    stored, inverse = convergence(camera_to_world), convergence(np.linalg.inv(camera_to_world))
    if stored and stored.miss < MAX_MISS and stored.ahead <= 1 - UNANIMOUS:
        return Suspicion(OPENGL, "the cameras look away from the place where their optical axes meet")
    if stored and stored.miss < MAX_MISS and stored.ahead >= UNANIMOUS:
        if _upside_down(camera_to_world, stored):
            return Suspicion(PYTORCH3D, "the cameras stand below what they look at, as if all were upside down")
        return None
    if inverse and inverse.miss < MAX_INVERSE_MISS and not 1 - UNANIMOUS < inverse.ahead < UNANIMOUS:
        return Suspicion(INVERSE, "the optical axes of the inverse poses meet, those of the poses do not")
    return None


def _upside_down(camera_to_world: np.ndarray, axes: Convergence) -> bool:
    """Whether cameras that are held level, so that all have their x axes in one plane, are far below that point."""
    sideways, down = camera_to_world[:, :3, 0], camera_to_world[:, :3, 1]
    (tilt, turn, _), (vertical, *_) = map(np.transpose, np.linalg.eigh(sideways.T @ sideways / len(sideways)))
    if tilt > MAX_TILT or turn < MIN_TURN:
        return False
    vertical = vertical * np.sign((down @ vertical).sum())
    from_point = camera_to_world[:, :3, 3] - axes.point
    sine = from_point @ vertical / np.maximum(np.linalg.norm(from_point, axis=-1), 1e-300)
    return bool((sine > MIN_BELOW).mean() >= UNANIMOUS)


def check_bounds(near: float, far: float) -> None:
    """Raises:
    Rejected: bounds that a source states are not finite, not positive or not in order.
    """
    if np.isnan(near) and np.isnan(far):
        return
    if not (np.isfinite(near) and np.isfinite(far) and 0 < near < far):
        raise Rejected(f"no sensible bounds: near {near:.3g}, far {far:.3g}")


def baseline_warnings(camera_to_world: np.ndarray, near: float, far: float) -> list[str]:
    """Whether cameras with poses [v, 4, 4] are too close together to tell anything about depth.

    Without stated bounds (NaN) only cameras at one place are.
    """
    positions = camera_to_world[:, :3, 3]
    if len(positions) < 2:
        return []
    extent = _extent(positions)
    if extent <= STILL * np.abs(positions).max():
        return ["all cameras are at one place: there is no parallax"]
    depth = np.sqrt(near * far)
    if extent < MIN_BASELINE * depth:
        return [f"the cameras lie within {extent / depth:.2g} of the depth: there is hardly any parallax"]
    return []


def far_off_warnings(camera_to_world: np.ndarray, names: Sequence[str]) -> list[str]:
    """Whether cameras with poses [v, 4, 4] are far from all others; they are named."""
    far_off = np.flatnonzero(outliers.isolated(camera_to_world[:, :3, 3]))
    return [f"frame {names[i]}: camera is far from all others" for i in far_off]


def intrinsics_warnings(intrinsics: np.ndarray, sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Odd intrinsics [v, 3, 3], of the squares in the middle of pictures of sizes (width, height)."""
    warnings = []
    width, height = np.array(sizes, np.float64).T
    square = np.minimum(width, height)
    offset = np.abs(intrinsics[:, :2, 2] - 0.5) * (square / np.stack([width, height])).T
    far_off = (offset > MAX_OFF_CENTRE).any(-1)
    if far_off.any():
        worst = offset.max()
        warnings.append(f"principal point {worst:.2g} of the picture away from its centre{_of(far_off)}")
    aspect = intrinsics[:, 0, 0] / intrinsics[:, 1, 1]
    oblong = np.maximum(aspect, 1 / aspect) > MAX_PIXEL_ASPECT
    if oblong.any():
        first = int(np.argmax(oblong))
        swapped = (width[first] / height[first]) ** 2
        cause = ": width and height may be swapped" if abs(np.log(aspect[first] / swapped)) < 0.05 else ""
        warnings.append(f"focal lengths fx and fy differ by a factor of {aspect[first]:.3g}{_of(oblong)}{cause}")
    return warnings


def repeated_pictures(
    camera_to_world: np.ndarray, pictures: Sequence[Hashable], names: Sequence[str]
) -> dict[int, str]:
    """Frames whose picture an earlier frame has at another pose, with reasons.

    Args:
      camera_to_world: [v, 4, 4].
      pictures: something that is equal for equal pictures.
    """
    repeated, first_of = {}, {}
    for i, picture in enumerate(pictures):
        first = first_of.setdefault(picture, i)
        if first != i and not _same_pose(
            camera_to_world[first], camera_to_world[i], _extent(camera_to_world[:, :3, 3])
        ):
            repeated[i] = f"picture is the same as that of frame {names[first]}, whose camera is elsewhere"
    return repeated


def repeated_pose_warnings(camera_to_world: np.ndarray, pictures: Sequence[Hashable]) -> list[str]:
    """Whether frames with different pictures have exactly the same pose, of [v, 4, 4]."""
    first_of: dict[bytes, int] = {}
    firsts = [first_of.setdefault(pose.tobytes(), i) for i, pose in enumerate(camera_to_world)]
    count = sum(pictures[first] != picture for first, picture in zip(firsts, pictures, strict=True))
    return [f"{count} frames have exactly the pose of an earlier one, but another picture"] if count else []


def _same_pose(a: np.ndarray, b: np.ndarray, extent: float) -> bool:
    turned = np.linalg.norm(a[:3, :3] - b[:3, :3]) / np.sqrt(2)  # 2 sin(angle / 2)
    return bool(turned < SAME_ANGLE and np.linalg.norm(a[:3, 3] - b[:3, 3]) <= SAME_PLACE * extent)


def _extent(positions: np.ndarray) -> float:
    """Largest side of the box around positions [v, 3]."""
    return float(np.ptp(positions, axis=0).max())


def _of(odd: np.ndarray) -> str:
    """How many of the frames."""
    return "" if odd.all() else f" in {odd.sum()} of {len(odd)} frames"
