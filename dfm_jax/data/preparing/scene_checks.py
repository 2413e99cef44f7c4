"""The checks of a scene as a whole, for `prepare`: of its cameras, and of its pictures where those are suspect."""

import collections
import hashlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dfm_jax.data.preparing import epipolar, geometry_checks, pose_conventions
from dfm_jax.data.preparing.source import SourceFrame, SourceScene
from dfm_jax.errors import Rejected

VIEWS, OTHERS = 4, 3  # pairs of pictures that are compared


def odd_sizes(sizes: list[tuple[int, int]]) -> list[int]:
    """Which pictures (width, height) differ in size from most of their scene."""
    if not sizes:
        return []
    usual = collections.Counter(sizes).most_common(1)[0][0]
    return [i for i, size in enumerate(sizes) if size != usual]


def repeated(frames: Sequence[SourceFrame], pictures: Sequence[bytes]) -> dict[int, str]:
    """Which frames have an earlier one's encoded picture, but another pose; with reasons."""
    if not frames:
        return {}
    return geometry_checks.repeated_pictures(_poses(frames), _hashes(pictures), [frame.name for frame in frames])


def check_scene(
    scene: SourceScene, frames: Sequence[SourceFrame], pictures: Sequence[bytes], sizes: Sequence[tuple[int, int]]
) -> list[str]:
    """Warnings about a scene: what may be wrong, a sentence each.

    Args:
      frames: those that are kept, with the intrinsics of their square pictures.
      pictures: encoded and square, the middles of pictures of these `sizes` (width, height).

    Raises:
      Rejected: the cameras cannot be right.
    """
    poses, intrinsics = _poses(frames), np.stack([frame.intrinsics for frame in frames])
    far_off = [] if scene.own_poses else geometry_checks.far_off_warnings(poses, [frame.name for frame in frames])
    with np.errstate(all="ignore"):  # positions as large as floats can be lie nowhere in particular
        return far_off + _check(scene, poses, intrinsics, pictures, sizes)


def _check(
    scene: SourceScene,
    poses: np.ndarray,
    intrinsics: np.ndarray,
    pictures: Sequence[bytes],
    sizes: Sequence[tuple[int, int]],
) -> list[str]:
    geometry_checks.check_bounds(scene.near, scene.far)
    warnings = [*scene.warnings, *geometry_checks.intrinsics_warnings(intrinsics, sizes)]
    still = geometry_checks.baseline_warnings(poses, scene.near, scene.far)
    if still:
        return warnings + still
    warnings += geometry_checks.repeated_pose_warnings(poses, _hashes(pictures))
    suspicion = geometry_checks.suspicion(poses)
    if suspicion or scene.own_poses:
        warnings += _compare(poses, intrinsics, pictures, suspicion)
    return warnings


def _compare(
    poses: np.ndarray,
    intrinsics: np.ndarray,
    pictures: Sequence[bytes],
    suspicion: geometry_checks.Suspicion | None,
) -> list[str]:
    """Warnings, from the pictures."""

    def picture(frame: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(pictures[frame])).convert("RGB"))

    pairs = epipolar.match_views(picture, poses, VIEWS, OTHERS)
    verdict = pose_conventions.judge(pairs, poses, intrinsics)
    if verdict.mistake:
        seen = f"{suspicion.reason}; " if suspicion else ""
        raise Rejected(f"poses in another convention: {seen}{verdict.mistake}. {verdict.evidence}")
    warnings = []
    if verdict.right is None and suspicion:
        warnings.append(f"{suspicion.reason}: perhaps {suspicion.mistake}; the pictures do not tell")
    if verdict.error > pose_conventions.GOOD:
        warnings.append(verdict.evidence)
    return warnings


def _poses(frames: Sequence[SourceFrame]) -> np.ndarray:
    return np.stack([np.asarray(frame.camera_to_world, np.float64) for frame in frames])


def _hashes(pictures: Sequence[bytes]) -> list[bytes]:
    return [hashlib.sha256(picture).digest() for picture in pictures]
