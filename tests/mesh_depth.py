"""Depths of triangle meshes, for tests: every triangle over the centres of the pixels that it covers, nearest first."""

import numpy as np


def mesh_depth(vertices, faces, camera, side):
    """Distances [side, side] along the pixels' rays to the nearest triangle; inf where there is none."""
    pose, intrinsics = (np.asarray(x, np.float64) for x in (camera.camera_to_world, camera.intrinsics))
    in_camera = (vertices - pose[:3, 3]) @ pose[:3, :3]
    homogeneous = in_camera @ intrinsics.T
    corners = (side * homogeneous[:, :2] / homogeneous[:, 2:])[faces]  # [f, 3, 2] pixels
    whole = (in_camera[faces][..., 2] > 1e-3).all(-1)
    corners, inverse = corners[whole], 1 / in_camera[faces][whole][..., 2]  # 1 / z is linear in a picture
    first = np.ceil(corners.min(1) - 0.5).astype(int)
    span = np.floor(corners.max(1) - 0.5).astype(int) - first
    nearest = np.zeros((side, side))  # 1 / z
    for dy in range(span[:, 1].max(initial=-1) + 1):
        for dx in range(span[:, 0].max(initial=-1) + 1):
            own = (span[:, 0] >= dx) & (span[:, 1] >= dy)
            x, y = (first[own] + [dx, dy]).T
            _cover(nearest, x, y, corners[own], inverse[own])
    grid = (np.arange(side) + 0.5) / side
    image_points = np.stack([*np.meshgrid(grid, grid), np.ones((side, side))], axis=-1)
    lengths = np.linalg.norm(image_points @ np.linalg.inv(intrinsics).T, axis=-1)
    with np.errstate(divide="ignore"):
        return lengths / nearest


def _cover(nearest, x, y, corners, inverse):
    """Puts triangles into the pixels (x, y) whose centres they cover."""
    p = np.stack([x, y], axis=-1) + 0.5
    edges = [_cross(corners[:, (i + 2) % 3] - corners[:, (i + 1) % 3], p - corners[:, (i + 1) % 3]) for i in range(3)]
    area = sum(edges)
    shares = np.stack(edges, axis=-1) / np.where(area == 0, 1, area)[:, None]
    inside = (area != 0) & (shares >= -1e-9).all(-1) & (x >= 0) & (y >= 0) & (x < len(nearest)) & (y < len(nearest))
    np.maximum.at(nearest, (y[inside], x[inside]), (shares * inverse).sum(-1)[inside])


def _cross(a, b):
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
