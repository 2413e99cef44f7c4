"""R_err and T_err: where structure-from-motion finds the cameras of generated views, against where they were asked for.

Wonderland (arXiv 2412.12091) and others report them of videos. The cameras that were found are moved onto the true ones
by a similarity, as structure-from-motion knows no world of its own: its rotation is the mean of those between the
cameras' orientations, which cameras on a line have too; scale and offset are those of least squares. Of the cameras
that were found, R_err is the mean angle between orientations, in degrees, and T_err the mean distance of positions,
relative to the distance of the farthest true camera from the first.

Notation: `k` cameras, `n` samples; poses are camera-to-world.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from dfm_jax.errors import Rejected

# Pictures [k, h, w, 3] in [0, 1] and normalised intrinsics [k, 3, 3] -> poses [4, 4] by the views' numbers.
# Raises `Rejected` where nothing is found.
Reconstruct = Callable[[np.ndarray, np.ndarray], Mapping[int, np.ndarray]]
FEWEST = 3  # cameras that must be found: any two are those of a similarity, but for their orientations


@dataclasses.dataclass(frozen=True)
class CameraErrors:
    """Lists over samples; None where nothing was asked for, or found."""

    rotation_error: list[float | None]  # [n] degrees
    translation_error: list[float | None]  # [n] relative to the extent of the true cameras
    registered_views: list[float | None]  # [n] share of the views whose camera was found


def align(found: Float[np.ndarray, "k 4 4"], true: Float[np.ndarray, "k 4 4"]) -> Float[np.ndarray, "k 4 4"]:
    """The cameras that were found, moved onto the true ones by a similarity."""
    between = np.einsum("kij,klj->il", true[:, :3, :3], found[:, :3, :3])
    u, _, vt = np.linalg.svd(between)
    rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    centred = lambda poses: poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    moved, aim = centred(found) @ rotation.T, centred(true)
    scale = max(0.0, np.sum(moved * aim) / max(np.sum(moved**2), np.finfo(np.float64).tiny))
    aligned = np.tile(np.eye(4), (len(found), 1, 1))
    aligned[:, :3, :3] = rotation @ found[:, :3, :3]
    aligned[:, :3, 3] = scale * moved + true[:, :3, 3].mean(0)
    return aligned


def rotation_angles(a: Float[np.ndarray, "k 4 4"], b: Float[np.ndarray, "k 4 4"]) -> Float[np.ndarray, "k"]:
    """Angles between orientations, degrees."""
    difference = np.linalg.norm(a[:, :3, :3] - b[:, :3, :3], axis=(1, 2))
    return np.rad2deg(2 * np.arcsin(np.clip(difference / np.sqrt(8), 0, 1)))  # exact near 0, as the arccosine is not


def errors(
    found: Mapping[int, np.ndarray], true: Float[np.ndarray, "k 4 4"]
) -> tuple[float | None, float | None, float]:
    """R_err, T_err and the share of the cameras that were found, by their numbers; None of fewer than `FEWEST`, and
    T_err of cameras that all stand in one place."""
    share = len(found) / len(true)
    if len(found) < FEWEST:
        return None, None, share
    numbers = sorted(found)
    aim = true[numbers].astype(np.float64)
    aligned = align(np.stack([found[i] for i in numbers]), aim)
    extent = np.linalg.norm(true[:, :3, 3] - true[0, :3, 3], axis=1).max()
    distance = np.linalg.norm(aligned[:, :3, 3] - aim[:, :3, 3], axis=1).mean()
    return float(rotation_angles(aligned, aim).mean()), float(distance / extent) if extent > 0 else None, share


def of_samples(
    reconstruct: Reconstruct,
    samples: Float[np.ndarray, "n k h w 3"],
    camera_to_world: Float[np.ndarray, "k 4 4"],
    intrinsics: Float[np.ndarray, "k 3 3"],
    count: int,
) -> CameraErrors:
    """Of the first `count` samples of a scene."""
    rows: list[tuple[float | None, float | None, float | None]] = []
    for images in samples[:count]:
        try:
            found = reconstruct(images, intrinsics)
        except Rejected:
            found = {}
        rows.append(errors(found, camera_to_world))
    rows += [(None, None, None)] * (len(samples) - len(rows))
    return CameraErrors(*(list(column) for column in zip(*rows, strict=True)))
