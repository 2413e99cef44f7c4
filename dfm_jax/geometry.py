"""Pinhole cameras: pixels to rays and back.

Notation: `xy` and `uv` are image coordinates normalised to [0, 1] (x right, y down); `p` is a point; a pose is a 4x4
`camera_to_world`. Cameras follow OpenCV. Distances run along unit rays, not along the optical axis.

`pixel_grid` and `to_pixels` are all that knows where in an image its pixels lie.

Products are sums in float32, written out, and never left to a device's matrix units: these round their inputs (a TPU
to bfloat16, which moves a camera by pixels), and on a GPU cuBLAS was seen to return wrong products of many matrices as
small as these (docs/gpu.md).
"""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from dfm_jax.structs import Camera, Rays

# Keeps the division finite for points in the camera plane (value of the published model).
DEPTH_EPSILON = 1e-9
UNKNOWN_GRID = "unknown pixel grid {!r}: 'centres' or 'corners'"


def transform(matrix: Float[Array, "*#batch i j"], vectors: Float[Array, "*#batch n j"]) -> Float[Array, "*batch n i"]:
    """A small matrix times each of the vectors."""
    rank = max(matrix.ndim, vectors.ndim)
    matrix, vectors = (jnp.expand_dims(x, range(rank - x.ndim)) for x in (matrix, vectors))
    return sum(matrix[..., None, :, j] * vectors[..., j, None] for j in range(vectors.shape[-1]))


def compose(a: Float[Array, "*#batch i j"], b: Float[Array, "*#batch j k"]) -> Float[Array, "*batch i k"]:
    """The product of small matrices."""
    return jnp.swapaxes(transform(a, jnp.swapaxes(b, -1, -2)), -1, -2)


def invert_pose(pose: Float[Array, "*batch 4 4"]) -> Float[Array, "*batch 4 4"]:
    """Inverse of rigid motions, by transposing the rotation."""
    rotation = jnp.swapaxes(pose[..., :3, :3], -1, -2)
    translation = -transform(rotation, pose[..., None, :3, 3])
    top = jnp.concatenate([rotation, jnp.swapaxes(translation, -1, -2)], axis=-1)
    bottom = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0], pose.dtype), (*pose.shape[:-2], 1, 4))
    return jnp.concatenate([top, bottom], axis=-2)


def relative_poses(
    camera_to_world: Float[Array, "*#batch 4 4"], reference: Float[Array, "*#batch 4 4"]
) -> Float[Array, "*batch 4 4"]:
    """Poses in the frame of the camera `reference`."""
    return compose(invert_pose(reference), camera_to_world)


def invert_intrinsics(intrinsics: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3 3"]:
    """Inverse of pinhole matrices [[fx, skew, cx], [turn, fy, cy], [0, 0, 1]] in closed form, by eliminating `turn`. It
    is 0 unless a camera was rolled by less than 90 degrees under a picture that stayed (`data/loading/transforms`)."""
    fx, skew, cx = (intrinsics[..., 0, i] for i in range(3))
    turn, fy, cy = (intrinsics[..., 1, i] for i in range(3))
    fy = fy - turn * skew / fx
    cy = cy - turn * cx / fx
    zero, one = jnp.zeros_like(fx), jnp.ones_like(fx)
    rows = [
        [1 / fx + turn * skew / (fx * fx * fy), -skew / (fx * fy), (skew * cy / fy - cx) / fx],
        [zero - turn / (fx * fy), 1 / fy, -cy / fy],
        [zero, zero, one],
    ]
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)


def pixel_grid(height: int, width: int, grid: str) -> Float[Array, "h w 2"]:
    """Normalised (x, y) of every pixel.

    Args:
      grid: 'centres' puts pixel i of n at (i + 1/2) / n; 'corners' puts it at i / (n - 1), so that the first lies on
        the left border and the last on the right one (the published model's convention).
    """
    if grid == "centres":
        x, y = ((jnp.arange(n, dtype=jnp.float32) + 0.5) / n for n in (width, height))
    elif grid == "corners":
        x, y = (jnp.linspace(0.0, 1.0, n) for n in (width, height))
    else:
        raise ValueError(UNKNOWN_GRID.format(grid))
    return jnp.stack(jnp.meshgrid(x, y, indexing="xy"), axis=-1)


def to_pixels(uv: Float[Array, "*batch 2"], height: int, width: int, grid: str) -> Float[Array, "*batch 2"]:
    """Normalised image points in pixels, (x, y): the inverse of `pixel_grid`, in which pixel i lies at i."""
    size = jnp.array([width, height], uv.dtype).reshape(*[1] * (uv.ndim - 1), 2)
    if grid == "centres":
        return uv * size - 0.5
    if grid == "corners":
        return uv * (size - 1)
    raise ValueError(UNKNOWN_GRID.format(grid))


def cast_rays(camera: Camera, xy: Float[Array, "*#batch r 2"]) -> Rays:
    """Rays through image points `xy` of `camera` (batch axes broadcast), with unit directions in the world."""
    homogeneous = jnp.concatenate([xy, jnp.ones_like(xy[..., :1])], axis=-1)
    directions = transform(invert_intrinsics(camera.intrinsics), homogeneous)
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    directions = transform(camera.camera_to_world[..., :3, :3], directions)
    origins = jnp.broadcast_to(camera.camera_to_world[..., None, :3, 3], directions.shape)
    return Rays(origins=origins, directions=directions)


def project(
    camera: Camera, points: Float[Array, "*#batch n 3"]
) -> tuple[Float[Array, "*batch n 2"], Float[Array, "*batch n 3"]]:
    """Image coordinates `uv` of world points, and the points in camera coordinates.

    Points behind the camera are projected like all others; look at the sign of the camera z to tell them apart.
    """
    world_to_camera = invert_pose(camera.camera_to_world)
    camera_points = transform(world_to_camera[..., :3, :3], points) + world_to_camera[..., None, :3, 3]
    homogeneous = transform(camera.intrinsics, camera_points)
    uv = homogeneous[..., :2] / (homogeneous[..., 2:] + DEPTH_EPSILON)
    return uv, camera_points


def unproject(
    camera: Camera, uv: Float[Array, "*#batch n 2"], distances: Float[Array, "*#batch n"]
) -> Float[Array, "*batch n 3"]:
    """World points at `distances` along the rays through `uv`."""
    rays = cast_rays(camera, uv)
    return rays.origins + distances[..., None] * rays.directions
