"""Structure-from-motion of the views of a sampled scene, for the camera errors of an evaluation."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.data.builders import colmap_model
from dfm_jax.data.builders.colmap import pose_of
from dfm_jax.data.preparing import sfm


def reconstruct(images: np.ndarray, intrinsics: np.ndarray, *, grid: str) -> dict[int, np.ndarray]:
    """A `camera_errors.Reconstruct`, whose lenses are known.

    Args:
      grid: 'centres' or 'corners', where pixels lie.
    """
    size = images.shape[1:3]
    names = [f"{i:04d}.png" for i in range(len(images))]
    lenses = {name: _pinhole(matrix, size, grid) for name, matrix in zip(names, intrinsics, strict=True)}
    with tempfile.TemporaryDirectory() as folder:
        pictures, workspace = Path(folder) / "images", Path(folder) / "workspace"
        pictures.mkdir()
        workspace.mkdir()
        for name, image in zip(names, images, strict=True):
            Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8)).save(pictures / name)
        found = sfm.reconstruct(pictures, names, workspace, lenses=lenses, min_share=0.0)
        model = colmap_model.read_model(found.model)
    return {names.index(image.name): pose_of(image) for image in model.images}


def _pinhole(matrix: np.ndarray, size: tuple[int, int], grid: str) -> sfm.Pinhole:
    """From normalised intrinsics; the centre of COLMAP's first pixel is (0.5, 0.5)."""
    height, width = size
    across, down = (width, height) if grid == "centres" else (width - 1, height - 1)
    shift = 0.0 if grid == "centres" else 0.5
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return fx * across, fy * down, cx * across + shift, cy * down + shift
