"""The check of a single camera."""

import numpy as np

from dfm_jax.errors import Rejected

LEAST_ANGLE, MOST_ANGLE = 2.0, 150.0  # degrees that a pinhole camera can see
ROTATION_TOLERANCE = 1e-3  # of R R^T - 1 and of the determinant; published files carry 6 to 9 digits


def check_camera(camera_to_world: np.ndarray, intrinsics: np.ndarray) -> None:
    """Accepts a finite rigid pose [4, 4] with pinhole intrinsics [3, 3].

    Raises:
      Rejected: with the first thing that is wrong.
    """
    if camera_to_world.shape != (4, 4) or intrinsics.shape != (3, 3):
        raise Rejected(f"camera has shapes {camera_to_world.shape} and {intrinsics.shape}, not (4, 4) and (3, 3)")
    if not np.isfinite(camera_to_world).all():
        raise Rejected("pose is not finite")
    if not np.isfinite(intrinsics).all():
        raise Rejected("intrinsics are not finite")
    rotation = camera_to_world[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if error > ROTATION_TOLERANCE:
        raise Rejected(f"rotation is not orthonormal (off by {error:.2g})")
    if np.linalg.det(rotation) < 0:
        raise Rejected("rotation has determinant -1: a reflection")
    if (camera_to_world[3] != [0, 0, 0, 1]).any():
        raise Rejected("last row of the pose is not 0 0 0 1")
    if intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
        raise Rejected(f"focal length is not positive ({intrinsics[0, 0]:.3g}, {intrinsics[1, 1]:.3g})")
    for focal, axis in ((intrinsics[0, 0], "wide"), (intrinsics[1, 1], "high")):
        angle = 2 * np.rad2deg(np.arctan(0.5 / focal))
        if not LEAST_ANGLE < angle < MOST_ANGLE:
            raise Rejected(f"picture is {angle:.3g} degrees {axis}: focal lengths are in the wrong unit")
    if (intrinsics[:2, 2] < 0).any() or (intrinsics[:2, 2] > 1).any():
        x, y = intrinsics[:2, 2]
        raise Rejected(f"principal point ({x:.3g}, {y:.3g}) is not within the picture, which is (0, 0) to (1, 1)")
