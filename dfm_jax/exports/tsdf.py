"""Truncated signed distances to the surfaces that depth maps show (Curless and Levoy 1996), on a grid.

Letters: `x y z` voxels of a grid, `k` cameras, `h w` pixels, `v` vertices, `f` faces.
"""

import dataclasses

import numpy as np
from scipy import ndimage, sparse

from dfm_jax.exports.renderings import SOLID, seen_at
from dfm_jax.structs import Camera, RenderedViews

TRUNCATION = 4.0  # voxels: as far before and behind a surface, distances to it count
ONE_SURFACE = 0.05  # share of their distance by which neighbouring pixels of one surface differ at most
# Pieces with fewer faces than this share of all are left out: what a few pixels claim in mid-air.
SMALLEST_PIECE = 0.005


@dataclasses.dataclass(frozen=True)
class Grid:
    """`resolution` voxels of side `voxel` along each axis; the centre of the first is `lowest` [3]."""

    lowest: np.ndarray
    voxel: float
    resolution: int

    @classmethod
    def around(cls, points: np.ndarray, resolution: int) -> "Grid":
        """A cube around points [p, 3], but for the outermost of them, with room for what is truncated."""
        low, high = np.percentile(points, [0.5, 99.5], axis=0)
        voxel = float((high - low).max()) / (resolution - 1 - 3 * TRUNCATION)
        return cls(0.5 * (low + high) - 0.5 * voxel * (resolution - 1), voxel, resolution)

    def slab(self, i: int) -> np.ndarray:
        """[y, z, 3] centres of voxels number i along x."""
        y, z = np.meshgrid(*[np.arange(self.resolution)] * 2, indexing="ij")
        return self.lowest + self.voxel * np.stack([np.full_like(y, i), y, z], axis=-1)


@dataclasses.dataclass(frozen=True)
class Fused:
    distances: np.ndarray  # [x, y, z] in truncations, from -1 (behind a surface) to 1 (in front of it)
    colours: np.ndarray  # [x, y, z, 3] of the surfaces that are near
    seen: np.ndarray  # [x, y, z] bool: others are behind all surfaces, or in no picture


def fuse(images: RenderedViews, cameras: Camera, grid: Grid) -> Fused:
    """All depth maps [k, h, w] in one grid. Where a pixel is not opaque, there is nothing in front of the camera."""
    slabs = [_fused_slab(images, cameras, grid.slab(i), TRUNCATION * grid.voxel) for i in range(grid.resolution)]
    distances, weights, colours, colour_weights = (np.stack(part) for part in zip(*slabs, strict=True))
    return Fused(
        distances=np.where(weights > 0, distances / weights.clip(1e-6), 1.0),
        colours=colours / colour_weights.clip(1e-6)[..., None],
        seen=weights > 0,
    )


def _fused_slab(
    images: RenderedViews, cameras: Camera, centres: np.ndarray, truncation: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Sums over cameras, at voxels [y, z], of weighted distances, weights, weighted colours, and their weights."""
    shape = centres.shape[:-1]
    distances, weights, colour_weights = (np.zeros(shape, np.float32) for _ in range(3))
    colours = np.zeros((*shape, 3), np.float32)
    surface = images.surface_depth()
    for i, opacities in enumerate(images.opacity):
        inside, places, far = seen_at(centres, cameras.camera_to_world[i], cameras.intrinsics[i], len(opacities))
        column, row = np.where(inside[..., None], places, 0).astype(int).transpose(2, 0, 1)
        opacity = opacities[row, column]
        solid = inside & (opacity > SOLID)
        signed = np.where(solid, (surface[i][row, column] - far) / truncation, 1.0)
        near = solid & (np.abs(signed) < 2)
        exact = _between_pixels(surface[i], opacities, places[near])
        signed[near] = np.where(np.isnan(exact), signed[near], (exact - far[near]) / truncation)
        weight = np.where(inside & (signed > -1), np.where(solid, opacity, 1 - opacity), 0.0)
        distances += weight * np.minimum(signed, 1.0)
        weights += weight
        near &= np.abs(signed) < 1
        colours[near] += weight[near, None] * images.rgb[i][row[near], column[near]]
        colour_weights += np.where(near, weight, 0.0)
    return distances, weights, colours, colour_weights


def _between_pixels(surface: np.ndarray, opacity: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Distances [p] of a depth map [h, w] at places [p, 2] (x, y) in pixels, between the four nearest of them; NaN
    where these are not all opaque and of one surface."""
    last = len(surface) - 1
    x, y = (places - 0.5).clip(0, last).T
    x0, y0 = (np.minimum(a.astype(int), max(last - 1, 0)) for a in (x, y))
    x1, y1 = (np.minimum(a + 1, last) for a in (x0, y0))
    corners = np.stack([surface[y0, x0], surface[y0, x1], surface[y1, x0], surface[y1, x1]])
    opaque = np.minimum.reduce([opacity[y0, x0], opacity[y0, x1], opacity[y1, x0], opacity[y1, x1]]) > SOLID
    below, right = y - y0, x - x0
    shares = np.stack([(1 - below) * (1 - right), (1 - below) * right, below * (1 - right), below * right])
    one_surface = opaque & (np.ptp(corners, axis=0) < ONE_SURFACE * corners.min(0))
    return np.where(one_surface, (shares * corners).sum(0), np.nan)


def surface(fused: Fused, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where distances are 0: vertices [v, 3], faces [f, 3] whose normals point away from what is solid, and colours
    [v, 3]; all empty where there is none."""
    from skimage.measure import marching_cubes  # which is large

    empty = np.zeros((0, 3)), np.zeros((0, 3), int), np.zeros((0, 3))
    if not (fused.distances[fused.seen] < 0).any():
        return empty
    try:
        vertices, faces, _, _ = marching_cubes(fused.distances, 0.0, mask=_whole_cells(fused.seen))
    except (RuntimeError, ValueError):  # no surface among the cells that count
        return empty
    vertices, faces = _large_pieces(vertices, faces)
    colours = [ndimage.map_coordinates(fused.colours[..., c], vertices.T, order=1) for c in range(3)]
    return grid.lowest + grid.voxel * vertices, faces, np.stack(colours, axis=-1)


def _whole_cells(seen: np.ndarray) -> np.ndarray:
    """[x, y, z] cells, by the last of their 8 voxels as marching cubes has them, of which all voxels were seen: between
    one that was and one that was not there is no surface, but the end of what is known."""
    whole = np.zeros_like(seen)
    whole[1:, 1:, 1:] = np.lib.stride_tricks.sliding_window_view(seen, (2, 2, 2)).all((3, 4, 5))
    return whole


def _large_pieces(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Without small pieces that hang together with nothing."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = sparse.coo_array((np.ones(len(edges), bool), edges.T), shape=(len(vertices),) * 2)
    _, piece = sparse.csgraph.connected_components(graph, directed=False)
    of_face = piece[faces[:, 0]]
    kept = faces[np.bincount(of_face)[of_face] >= SMALLEST_PIECE * len(faces)]
    used, index = np.unique(kept, return_inverse=True)
    return vertices[used], index.reshape(-1, 3)
