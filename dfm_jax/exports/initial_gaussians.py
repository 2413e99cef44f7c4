"""Gaussians on the surfaces that renderings of a scene agree on: what fitting starts from.

Letters: `p` points, `m` of them that are near to each other.
"""

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.exports.points import merged, pixel_widths, surface_points
from dfm_jax.exports.renderings import SOLID, NothingOpaque, SceneViews

# A gaussian is as wide as this share of its voxel, and lies flat on the surface through so many neighbours: this thin
# at least, as a share of its width.
SPREAD, NEIGHBOURS, THINNEST = 0.45, 8, 0.2
OPACITY = 0.7


def initial_gaussians(views: SceneViews, most: int) -> Gaussians:
    """One gaussian a pixel of agreeing depths, in the scene's coordinates, merged by voxels until at most `most` are
    left.

    Raises:
      UserError: nothing of the scene is opaque.
    """
    points = surface_points(views, over_samples=False)
    if not len(points):
        raise NothingOpaque("nothing in the scene is opaque: no gaussians can be fitted to it")
    rows, voxel = merged(np.concatenate([points.positions, points.colours], axis=-1), pixel_width(views), most)
    return _on_surface(rows[:, :3], rows[:, 3:].clip(0, 1), voxel)


def pixel_width(views: SceneViews) -> float:
    """How wide the typical pixel is on the surface that it shows, in units of the scene."""
    return float(np.median(pixel_widths(views)[views.images.opacity > SOLID]))


def _on_surface(means: np.ndarray, colours: np.ndarray, voxel: float) -> Gaussians:
    """Flat gaussians that cover the surface of which `means` are points, one in each voxel."""
    count = len(means)
    axes, flat = np.tile(np.eye(3), (count, 1, 1)), np.ones((count, 3))
    if count > NEIGHBOURS:
        _, nearest = cKDTree(means).query(means, NEIGHBOURS + 1)
        offsets = means[nearest] - means[nearest].mean(1, keepdims=True)
        variances, axes = np.linalg.eigh(np.einsum("pmi,pmj->pij", offsets, offsets))
        axes[:, :, 0] *= np.sign(np.linalg.det(axes))[:, None]
        flat = np.sqrt(variances.clip(0) / variances[:, 2:].clip(1e-12)).clip(THINNEST, 1.0)
    turns = Rotation.from_matrix(axes).as_quat(scalar_first=True)
    return Gaussians(means, SPREAD * voxel * flat, turns, np.full(count, OPACITY), colours)
