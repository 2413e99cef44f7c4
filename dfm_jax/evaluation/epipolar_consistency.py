"""TSED, the thresholded symmetric epipolar distance (Yu et al. 2023, arXiv 2304.10700): do points that two generated
views share lie where the views' cameras say?

A pair of views is consistent if at least MIN_MATCHES points of SIFT match and the median of their symmetric epipolar
distances is at most MAX_DISTANCE. Nothing but images and cameras is needed, so that models without a scene can be
measured by it, too; `consistency` asks more, with depth. Pairs are views that follow each other.

Notation: `k` views, `m` matches; points in pixels, in which pixel i lies at i, as OpenCV has it.
"""

import cv2
import numpy as np
from jaxtyping import Float

SMALLEST_IMAGE = 64  # pixels; smaller ones have too few points
MIN_MATCHES, MAX_DISTANCE = 10, 2.0  # of a consistent pair; the distance in pixels
RATIO = 0.8  # of the best to the second best match


def consistent_pairs(
    images: Float[np.ndarray, "k h w 3"],
    camera_to_world: Float[np.ndarray, "k 4 4"],
    intrinsics: Float[np.ndarray, "k 3 3"],
    grid: str,
) -> float:
    """Share of the pairs of neighbouring views that are consistent.

    Args:
      images: in [0, 1]; two or more.
      intrinsics: normalised.
      grid: 'centres' or 'corners', where pixels lie.
    """
    found = [_features(image) for image in images]
    matrices = [_in_pixels(matrix, images.shape[1:3], grid) for matrix in intrinsics.astype(np.float64)]
    consistent = []
    for i in range(len(images) - 1):
        a, b = _matches(found[i], found[i + 1])
        f = fundamental(*camera_to_world[i : i + 2].astype(np.float64), *matrices[i : i + 2])
        consistent.append(len(a) >= MIN_MATCHES and np.median(symmetric_distance(a, b, f)) <= MAX_DISTANCE)
    return float(np.mean(consistent))


def fundamental(pose_a: np.ndarray, pose_b: np.ndarray, matrix_a: np.ndarray, matrix_b: np.ndarray) -> np.ndarray:
    """F [3, 3] with `b^T F a = 0` for points of two views, from camera-to-world poses and intrinsics in pixels."""
    motion = np.linalg.inv(pose_b) @ pose_a
    x, y, z = motion[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.inv(matrix_b).T @ cross @ motion[:3, :3] @ np.linalg.inv(matrix_a)


def symmetric_distance(
    a: Float[np.ndarray, "m 2"], b: Float[np.ndarray, "m 2"], f: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "m"]:
    """Mean of the distances of each point to the epipolar line of its partner, pixels."""
    a, b = (np.concatenate([x, np.ones_like(x[:, :1])], axis=1) for x in (a, b))
    lines_b, lines_a = a @ f.T, b @ f
    residual = np.abs(np.sum(b * lines_b, axis=1))
    length = lambda lines: np.linalg.norm(lines[:, :2], axis=1).clip(1e-12)
    return (residual / length(lines_a) + residual / length(lines_b)) / 2


def _in_pixels(matrix: np.ndarray, size: tuple[int, int], grid: str) -> np.ndarray:
    height, width = size
    if grid == "centres":
        return np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1]]) @ matrix
    return np.diag([width - 1.0, height - 1.0, 1.0]) @ matrix


def _features(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    grey = cv2.cvtColor(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    points, descriptors = cv2.SIFT_create().detectAndCompute(grey, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    return np.array([point.pt for point in points], np.float64), descriptors


def _matches(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Points [m, 2] of both views whose best match is clearly better than the next."""
    if min(len(first[0]), len(second[0])) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    best = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first[1], second[1], k=2)
    kept = [m for m, other in best if m.distance < RATIO * other.distance]
    return first[0][[m.queryIdx for m in kept]], second[0][[m.trainIdx for m in kept]]
