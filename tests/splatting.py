"""Gaussians rendered one after the other, without tiles: what the rasteriser is compared with. Plain numpy, float64."""

import numpy as np

from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.structs import Camera


def splat(
    gaussians: Gaussians, camera: Camera, height: int, width: int, near: float = 0.01, background: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours [h, w, 3], expected distances [h, w] and opacity [h, w] at one camera."""
    pose = np.asarray(camera.camera_to_world, np.float64)
    matrix = np.asarray(camera.intrinsics, np.float64)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rgb, depth, left = np.zeros((height, width, 3)), np.zeros((height, width)), np.ones((height, width))
    points = (gaussians.means - pose[:3, 3]) @ pose[:3, :3]
    for i in np.argsort(points[:, 2]):
        p, turn = points[i], pose[:3, :3].T
        if p[2] <= near:
            continue
        middle = project(matrix, p, height, width)
        # The Jacobian by differences of the projection itself, where the slope is at most that of 1.3 half images.
        uv = np.clip(middle / [width, height], 0.5 - 0.65, 0.5 + 0.65)
        at = np.append(np.linalg.solve(matrix[:2, :2], uv - matrix[:2, 2]), 1.0) * p[2]
        step = 1e-6 * p[2]
        jacobian = np.stack(
            [
                (project(matrix, at + d, height, width) - project(matrix, at - d, height, width)) / (2 * step)
                for d in step * np.eye(3)
            ],
            axis=-1,
        )
        covariance = jacobian @ turn @ gaussians.covariances()[i] @ turn.T @ jacobian.T
        offset = np.stack([x, y], axis=-1) - middle
        q = np.einsum("hwi,ij,hwj->hw", offset, np.linalg.inv(covariance), offset)
        alpha = np.minimum(gaussians.opacities[i] * np.exp(-0.5 * q), 0.99)
        alpha[alpha < 1 / 255] = 0
        rgb += (left * alpha)[..., None] * gaussians.colours[i]
        depth += left * alpha * np.linalg.norm(p)
        left *= 1 - alpha
    return rgb + left[..., None] * background, depth, 1 - left


def project(matrix: np.ndarray, p: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels of a point in camera coordinates."""
    return (matrix @ p)[:2] / p[2] * [width, height]


def made_up(count: int, seed: int = 0) -> Gaussians:
    """Gaussians in a ball around (0, 0, 4)."""
    rng = np.random.default_rng(seed)
    turns = rng.normal(size=(count, 4))
    return Gaussians(
        means=rng.uniform([-1, -1, 3], [1, 1, 5], (count, 3)),
        scales=np.exp(rng.uniform(np.log(0.02), np.log(0.4), (count, 3))),
        quaternions=turns / np.linalg.norm(turns, axis=-1, keepdims=True),
        opacities=rng.uniform(0.02, 1, count),
        colours=rng.uniform(size=(count, 3)),
    )
