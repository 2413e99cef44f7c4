"""A scene in closed form for tests of exports: coloured balls, which cameras see exactly."""

import dataclasses

import numpy as np

from dfm_jax.exports.protocol import Frame
from dfm_jax.structs import Camera, RenderedViews

INTRINSICS = np.array([[1.2, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]])
CENTRES = np.array([[0.0, 0, 0], [0.7, 0.35, -0.1], [-0.5, -0.4, 0.3]])
RADII = np.array([0.6, 0.3, 0.25])
COLOURS = np.array([[0.9, 0.2, 0.1], [0.1, 0.8, 0.2], [0.2, 0.3, 0.9]])


def looking_at_the_origin(angle, height=-1.0, distance=3.0):
    """Camera-to-world, OpenCV axes, at an angle around y, which points down; its height counts along y."""
    position = np.array([distance * np.sin(angle), height, -distance * np.cos(angle)])
    forward = -position / np.linalg.norm(position)
    right = np.cross([0.0, 1, 0], forward)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, position], axis=1)
    return pose


@dataclasses.dataclass(frozen=True)
class Balls:
    """Opaque and matt; `shade` is added to their colours."""

    frame: Frame = dataclasses.field(default_factory=Frame)
    shade: float = 0.0
    pixel_grid: str = "centres"
    image_size: int = 32
    bounds: tuple = (1.0, 6.0)
    background: float = 0.0

    @property
    def context_camera(self):
        return Camera(looking_at_the_origin(0.3), INTRINSICS)

    @property
    def target_camera(self):
        return Camera(looking_at_the_origin(2.8), INTRINSICS)

    @property
    def context_image(self):
        return self.render(self.context_camera).rgb

    def render(self, camera, height=None, width=None):
        height, width = height or self.image_size, width or self.image_size
        single = np.ndim(camera.intrinsics) == 2
        poses, intrinsics = (
            np.reshape(x, (-1, *np.shape(x)[-2:])) for x in (camera.camera_to_world, camera.intrinsics)
        )
        x, y = (self._places(n) for n in (width, height))
        image_points = np.stack([*np.meshgrid(x, y), np.ones((height, width))], axis=-1)
        rays = np.einsum("kij,hwj->khwi", np.linalg.inv(intrinsics), image_points)
        rays = np.einsum("kij,khwj->khwi", poses[:, :3, :3], rays / np.linalg.norm(rays, axis=-1, keepdims=True))
        offsets = poses[:, None, :3, 3] - CENTRES  # [k, balls, 3]
        along = np.einsum("khwi,kbi->khwb", rays, offsets)
        squared = along**2 - ((offsets**2).sum(-1) - RADII**2)[:, None, None]
        distances = np.where(squared > 0, -along - np.sqrt(squared.clip(0)), np.inf)
        hit = distances.min(-1) < self.bounds[1]
        rgb = np.where(hit[..., None], COLOURS[distances.argmin(-1)] + self.shade, self.background)
        views = RenderedViews(rgb, np.where(hit, distances.min(-1), 0.0), hit.astype(float))
        return RenderedViews(*(x[0] for x in (views.rgb, views.depth, views.opacity))) if single else views

    def _places(self, n):
        return (np.arange(n) + 0.5) / n if self.pixel_grid == "centres" else np.linspace(0, 1, n)
