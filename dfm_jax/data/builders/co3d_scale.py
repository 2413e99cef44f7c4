"""The size of a CO3D sequence: its reconstructions have scales of their own, which training must not see.

Published: translations are divided by the mean over frames of the median foreground depth, times 10. Where there are no
depths, by the mean distance of the cameras from what they look at. A few frames that are nothing like the others count
for neither.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.data.builders.co3d_annotations import Annotation
from dfm_jax.data.pictures import pictures
from dfm_jax.data.preparing import camera_checks, outliers
from dfm_jax.errors import Rejected

DISTANCE = 10.0  # of the object, once scaled
FOREGROUND = 128  # masks are 255 times a probability
MIN_DISTANCE = 1e-6  # of the focus, as a share of the coordinates: cameras in one place look at nothing
ODD_DEPTH = 3.0  # factor beyond what is usual, from which a frame's depth is a mistake
TRIMMINGS = 3  # times that the nearer half of the axes is chosen anew
MAX_OFFSET = 10.0  # of an axis from the focus, in medians
MIN_SPREAD = 1e-4  # of the viewing directions, in squared radians: below it, where they meet is noise


def scale(folder: Path, annotations: Sequence[Annotation]) -> tuple[float, str]:
    """What to multiply translations with, and what that came from.

    Raises:
      Rejected: neither depths nor cameras tell.
    """
    depths = [depth for annotation in annotations if (depth := foreground_depth(folder, annotation)) is not None]
    if depths:
        kept = np.array(depths)[~outliers.outlying(np.array(depths), ODD_DEPTH)]
        return DISTANCE / float(np.mean(kept)), f"median foreground depth of {len(kept)} frames"
    poses = [annotation.camera_to_world for annotation in annotations if _usable(annotation)]
    return DISTANCE / focus_distance(np.array(poses).reshape(-1, 4, 4)), "distance of the cameras from their focus"


def foreground_depth(folder: Path, annotation: Annotation) -> float | None:
    """Median depth of what the mask shows; None where the files are missing or useless."""
    if annotation.depth is None or annotation.mask is None:
        return None
    try:
        bits = np.array(_open(folder / annotation.depth))  # 16 bits that mean a float16
        shown = np.array(_open(folder / annotation.mask).convert("L")) >= FOREGROUND
        if annotation.depth_mask is not None and os.path.isfile(folder / annotation.depth_mask):
            shown = shown & (np.array(_open(folder / annotation.depth_mask).convert("L")) > 0)
    except (ValueError, Rejected):  # ValueError: sizes differ
        return None
    if bits.shape != shown.shape:
        return None
    depth = bits.astype(np.uint16).view(np.float16).astype(np.float64) * annotation.depth_factor
    depth = depth[shown & np.isfinite(depth) & (depth > 0)]
    return float(np.median(depth)) if depth.size else None


def focus_distance(camera_to_world: np.ndarray) -> float:
    """Mean distance of cameras [n, 4, 4] from the point nearest to their optical axes.

    Cameras that look somewhere else entirely are left out: sequences have some that were reconstructed wrongly.

    Raises:
      Rejected: the axes are as good as parallel, or do not meet in front of the cameras.
    """
    if not len(camera_to_world):
        raise Rejected("scale is unknown: there are no depths, and no usable cameras")
    kept = camera_to_world
    with np.errstate(all="ignore"):  # absurd cameras
        for _ in range(TRIMMINGS):
            offsets = _offsets(_focus(kept), camera_to_world)
            kept = camera_to_world[offsets <= np.median(offsets)]
        focus = _focus(kept)
        offsets = _offsets(focus, camera_to_world)
        distances = np.linalg.norm(focus - camera_to_world[:, :3, 3], axis=1)
        kept = camera_to_world[offsets <= MAX_OFFSET * np.median(offsets) + MIN_DISTANCE * np.median(distances)]
        focus = _focus(kept)
        distance = float(np.linalg.norm(focus - kept[:, :3, 3], axis=1).mean())
        ahead = ((focus - kept[:, :3, 3]) * kept[:, :3, 2]).sum(1).mean()
    if not (np.isfinite(distance) and ahead > MIN_DISTANCE * np.abs(kept[:, :3, 3]).max()):
        raise Rejected("scale is unknown: there are no depths, and the cameras' axes do not meet in front of them")
    return distance


def _focus(camera_to_world: np.ndarray) -> np.ndarray:
    """The point [3] nearest to the optical axes, by the sum of squared distances."""
    across, origins = _across(camera_to_world), camera_to_world[:, :3, 3]
    if np.linalg.eigvalsh(across.mean(0))[0] < MIN_SPREAD:
        raise Rejected("scale is unknown: there are no depths, and the cameras' axes are parallel")
    return np.linalg.solve(across.sum(0), np.einsum("nij,nj->i", across, origins))


def _offsets(point: np.ndarray, camera_to_world: np.ndarray) -> np.ndarray:
    """Distances [n] of a point from the optical axes."""
    return np.linalg.norm(np.einsum("nij,nj->ni", _across(camera_to_world), point - camera_to_world[:, :3, 3]), axis=1)


def _across(camera_to_world: np.ndarray) -> np.ndarray:
    """Projections [n, 3, 3] onto the planes across the optical axes."""
    axes = camera_to_world[:, :3, 2]
    return np.eye(3) - axes[:, :, None] * axes[:, None, :]


def _usable(annotation: Annotation) -> bool:
    try:
        camera_checks.check_camera(annotation.camera_to_world, annotation.intrinsics)
    except Rejected:
        return False
    return True


def _open(path: Path) -> Image.Image:
    return pictures.open_raw(pictures.read_picture(path))
