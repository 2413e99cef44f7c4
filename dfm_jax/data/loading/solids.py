"""Convex solids with flat faces, met by rays exactly. What procedural scenes are built of.

Letters: `f` faces, `v` cameras, `r` rays of each. Distances run along unit rays; infinite where nothing is met.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer


@dataclasses.dataclass(frozen=True)
class Solid:
    """The points `x` with `normals @ x <= offsets`."""

    normals: Float[np.ndarray, "f 3"]  # outwards, unit vectors
    offsets: Float[np.ndarray, "f"]
    labels: Integer[np.ndarray, "f"]  # which paint each face has

    def turned(self, yaw: float) -> "Solid":
        """About the world's z axis, anticlockwise seen from above."""
        cos, sin = np.cos(yaw), np.sin(yaw)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        return dataclasses.replace(self, normals=self.normals @ turn.T)


def prism(corners: Sequence[tuple[float, float]], height: float, labels: Sequence[int], lid: int) -> Solid:
    """An upright prism on the ground.

    Args:
      corners: of its convex floor, (x, y), anticlockwise seen from above.
      labels: of the walls, the first one from corner 0 to corner 1.
      lid: label of top and bottom.
    """
    start = np.array(corners, np.float64)
    along = np.roll(start, -1, axis=0) - start
    outwards = np.stack([along[:, 1], -along[:, 0], np.zeros(len(along))], axis=-1)
    outwards /= np.linalg.norm(outwards, axis=-1, keepdims=True)
    offsets = (outwards[:, :2] * start).sum(-1)
    up = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    return Solid(np.vstack([outwards, up]), np.append(offsets, [height, 0.0]), np.append(labels, [lid, lid]))


def rays_of(
    camera_to_world: Float[np.ndarray, "v 4 4"], intrinsics: Float[np.ndarray, "3 3"], rays_a_side: int
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3 r"]]:
    """Origins and directions of the rays on a regular grid over square images, row by row."""
    side = (np.arange(rays_a_side) + 0.5) / rays_a_side
    u, v = np.meshgrid(side, side)
    directions = np.linalg.inv(intrinsics) @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    directions /= np.linalg.norm(directions, axis=0)
    return camera_to_world[:, :3, 3].astype(np.float32), (camera_to_world[:, :3, :3] @ directions).astype(np.float32)


def cast(
    solid: Solid, origins: Float[np.ndarray, "v 3"], directions: Float[np.ndarray, "v 3 r"]
) -> tuple[Float[np.ndarray, "v r"], Integer[np.ndarray, "v r"]]:
    """The distance at which rays enter a solid, and the face that they meet."""
    shape = directions.shape[0], directions.shape[2]
    enter, leave = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)
    face = np.zeros(shape, np.uint8)
    for number, (normal, offset) in enumerate(zip(solid.normals.astype(np.float32), solid.offsets, strict=True)):
        towards = np.einsum("c,vcr->vr", normal, directions)
        towards = np.where(towards == 0, np.float32(1e-20), towards)
        distance = (np.float32(offset) - origins @ normal)[:, None] / towards
        later = (towards < 0) & (distance > enter)
        face[later] = number
        enter = np.where(later, distance, enter)
        leave = np.where(towards > 0, np.minimum(leave, distance), leave)
    return np.where((enter <= leave) & (enter > 0), enter, np.float32(np.inf)), face


def cast_disc(
    radius: float, origins: Float[np.ndarray, "v 3"], directions: Float[np.ndarray, "v 3 r"]
) -> Float[np.ndarray, "v r"]:
    """The distance at which rays meet a disc on the ground, around the origin."""
    down = directions[:, 2]
    distance = -origins[:, 2:] / np.where(down == 0, np.float32(1e-20), down)
    at = origins[:, :2, None] + distance[:, None] * directions[:, :2]
    return np.where(((at**2).sum(1) < radius**2) & (distance > 0), distance, np.float32(np.inf))
