"""Whether pictures and cameras belong together, without looking for corresponding points."""

import numpy as np
from scipy import ndimage

SIZE = 72


def error(picture, other, intrinsics, other_from_this):
    """Median over pixels of the smallest colour difference that any depth explains: low if the cameras are right."""
    side = (np.arange(SIZE) + 0.5) / SIZE
    u, v = np.meshgrid(side, side)
    rays = np.linalg.inv(intrinsics) @ np.stack([u.ravel(), v.ravel(), np.ones(SIZE**2)])
    best = np.full((SIZE, SIZE), np.inf)
    for depth in np.geomspace(0.7, 60, 40):
        projected = intrinsics @ (other_from_this[:3, :3] @ (depth * rays) + other_from_this[:3, 3:])
        x, y = projected[:2] / projected[2] * SIZE - 0.5
        seen = (projected[2] > 0) & (x > 0) & (x < SIZE - 1) & (y > 0) & (y < SIZE - 1)
        warped = [
            ndimage.map_coordinates(channel, [y, x], order=1, mode="nearest") for channel in other.transpose(2, 0, 1)
        ]
        difference = np.abs(np.stack(warped, -1) - picture.reshape(-1, 3)).mean(-1) * seen
        share, difference = (ndimage.uniform_filter(x.reshape(SIZE, SIZE), 5) for x in (seen.astype(float), difference))
        best = np.where(share > 0.9, np.minimum(best, difference / np.maximum(share, 0.9)), best)
    return np.median(best[np.isfinite(best)])
