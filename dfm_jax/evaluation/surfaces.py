"""Sampled surfaces against true ones, where depth is known: distances between two clouds of points. Pure numpy."""

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

SOLID = 0.5  # rays of which less than this share is stopped meet no surface
MOST_POINTS = 4096  # of a cloud; larger ones are thinned out evenly


def chamfer_distance(x: Float[np.ndarray, "n 3"], y: Float[np.ndarray, "m 3"]) -> float | None:
    """Mean distance of the points of one cloud to the nearest of the other, averaged over the two directions; None if
    one is empty."""
    if not len(x) or not len(y):
        return None
    x, y = (cloud[:: -(-len(cloud) // MOST_POINTS)] for cloud in (x, y))
    return float((cKDTree(y).query(x)[0].mean() + cKDTree(x).query(y)[0].mean()) / 2)


def seen_points(
    origins: Float[np.ndarray, "t 3"],
    directions: Float[np.ndarray, "t h w 3"],
    distances: Float[np.ndarray, "t h w"],
) -> Float[np.ndarray, "_ 3"]:
    """Points on the rays of some views at the distances that are finite."""
    points = origins[:, None, None] + distances[..., None] * directions
    return points[np.isfinite(distances)]
