"""Cameras: what is projected comes back, and the conventions are those of OpenCV."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfm_jax.geometry import (
    cast_rays,
    invert_intrinsics,
    invert_pose,
    pixel_grid,
    project,
    relative_poses,
    to_pixels,
    unproject,
)
from dfm_jax.structs import Camera
from tests.tiny import jit, random_camera

seeds = st.integers(0, 2**32 - 1)
examples = settings(max_examples=25, deadline=None)
GRIDS = ["centres", "corners"]
round_trip = jit(lambda camera, uv, distances: project(camera, unproject(camera, uv, distances)))


def identity_camera() -> Camera:
    return Camera(jnp.eye(4), jnp.array([[1.2, 0, 0.5], [0, 1.1, 0.45], [0, 0, 1]]))


@examples
@given(seeds)
def test_what_is_unprojected_projects_back(seed):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng, (3,), angle=3.0)
    uv = jnp.asarray(rng.uniform(-0.2, 1.2, (3, 7, 2)), jnp.float32)
    distances = jnp.asarray(np.exp(rng.uniform(-2, 4, (3, 7))), jnp.float32)
    back, camera_points = round_trip(camera, uv, distances)
    # Of the image's width: at distances of e^-2 a camera at 1 loses a digit of float32.
    np.testing.assert_allclose(back, uv, atol=1e-4)
    # At distances of e^-2 a camera at 1 loses a digit of float32.
    np.testing.assert_allclose(jnp.linalg.norm(camera_points, axis=-1), distances, rtol=1e-4)
    assert bool(np.all(camera_points[..., 2] > 0))


@pytest.mark.parametrize("grid", GRIDS)
def test_every_pixel_comes_back(grid):
    camera = random_camera(np.random.default_rng(0), (2,))
    uv = pixel_grid(4, 6, grid).reshape(1, 24, 2)
    back, _ = round_trip(camera, uv, jnp.full((2, 24), 3.0))
    np.testing.assert_allclose(back, jnp.broadcast_to(uv, (2, 24, 2)), atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_pixel_grid_is_x_then_y_at_the_documented_places(grid):
    height, width = 3, 5
    xy = pixel_grid(height, width, grid)
    place = (lambda i, n: (i + 0.5) / n) if grid == "centres" else (lambda i, n: i / (n - 1))
    for row in range(height):
        for column in range(width):
            np.testing.assert_allclose(xy[row, column], [place(column, width), place(row, height)], atol=1e-6)
            np.testing.assert_allclose(to_pixels(xy[row, column], height, width, grid), [column, row], atol=1e-6)


def test_an_unknown_grid_is_refused():
    with pytest.raises(ValueError, match="middles"):
        pixel_grid(2, 2, "middles")
    with pytest.raises(ValueError, match="middles"):
        to_pixels(jnp.zeros(2), 2, 2, "middles")


@examples
@given(seeds)
def test_inverses_equal_linear_algebra(seed):
    rng = np.random.default_rng(seed)
    camera = random_camera(rng, (4,), angle=6.0)
    np.testing.assert_allclose(invert_pose(camera.camera_to_world), np.linalg.inv(camera.camera_to_world), atol=1e-5)
    intrinsics = np.array(camera.intrinsics)
    intrinsics[:, 0, 1] = rng.uniform(-0.2, 0.2, 4)
    np.testing.assert_allclose(invert_intrinsics(jnp.asarray(intrinsics)), np.linalg.inv(intrinsics), atol=1e-5)
    intrinsics[:, 1, 0] = rng.uniform(-0.5, 0.5, 4)  # of a camera that was rolled under its picture
    np.testing.assert_allclose(invert_intrinsics(jnp.asarray(intrinsics)), np.linalg.inv(intrinsics), atol=1e-5)


def test_relative_poses_compose_to_the_world():
    rng = np.random.default_rng(1)
    poses, reference = random_camera(rng, (2, 3), 3.0).camera_to_world, random_camera(rng, (2, 1), 3.0).camera_to_world
    relative = relative_poses(poses, reference)
    np.testing.assert_allclose(np.asarray(reference) @ np.asarray(relative), poses, atol=1e-5)
    np.testing.assert_allclose(relative_poses(reference, reference)[:, 0], np.tile(np.eye(4), (2, 1, 1)), atol=1e-6)


def test_products_are_left_to_no_matrix_unit():
    camera = random_camera(np.random.default_rng(1), (3,))
    points, poses = jnp.ones((3, 5, 3)), camera.camera_to_world
    for function, arguments in (
        (cast_rays, (camera, points[..., :2])),
        (project, (camera, points)),
        (unproject, (camera, points[..., :2], points[..., 2])),
        (relative_poses, (poses, poses)),
    ):
        assert "dot_general" not in str(jax.make_jaxpr(function)(*arguments)), function


def test_rays_are_unit_and_the_principal_ray_is_the_optical_axis():
    camera = random_camera(np.random.default_rng(2), (3,), angle=3.0)
    principal = camera.intrinsics[:, :2, 2][:, None]
    xy = jnp.concatenate([principal, jnp.zeros((3, 1, 2))], axis=1)
    rays = cast_rays(camera, xy)
    np.testing.assert_allclose(jnp.linalg.norm(rays.directions, axis=-1), np.ones((3, 2)), rtol=1e-6)
    np.testing.assert_allclose(rays.directions[:, 0], camera.camera_to_world[:, :3, 2], atol=1e-6)
    np.testing.assert_allclose(rays.origins[:, 1], camera.camera_to_world[:, :3, 3])


def test_x_is_right_y_is_down_z_is_forward():
    points = jnp.array([[0, 0, 2.0], [1, 0, 2], [0, 1, 2], [0, 0, -2]])
    uv, camera_points = project(identity_camera(), points)
    np.testing.assert_allclose(uv[:3], [[0.5, 0.45], [0.5 + 1.2 / 2, 0.45], [0.5, 0.45 + 1.1 / 2]], atol=1e-6)
    np.testing.assert_array_equal(jnp.sign(camera_points[:, 2]), [1, 1, 1, -1])


def test_projection_is_finite_in_the_camera_plane():
    uv, _ = project(identity_camera(), jnp.array([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert bool(np.all(np.isfinite(uv)))


@examples
@given(seeds)
def test_projection_is_unchanged_by_a_motion_of_cameras_and_points(seed):
    rng = np.random.default_rng(seed)
    camera, motion = random_camera(rng, (3,)), random_camera(rng, (), angle=6.0).camera_to_world
    points = jnp.asarray(rng.uniform((-1, -1, 2), (1, 1, 4), (5, 3)), jnp.float32)
    moved_points = points @ motion[:3, :3].T + motion[None, :3, 3]
    moved_camera = camera.replace(camera_to_world=motion[None] @ camera.camera_to_world)
    still = project(camera, jnp.tile(points, (3, 1, 1)))
    moved = project(moved_camera, jnp.tile(moved_points, (3, 1, 1)))
    for a, b in zip(still, moved, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)  # coordinates of about 4, moved and moved back in float32
