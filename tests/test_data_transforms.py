"""Pictures and cameras change together."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from dfm_jax.data.loading import transforms
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.rendering.ray_marching import render_single_pass
from dfm_jax.structs import Camera
from tests.tiny import jit


def random_pose(rng):
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = np.eye(4)
    pose[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    pose[:3, 3] = rng.normal(size=3)
    return pose


def project(camera_to_world, intrinsics, points):
    """Normalised coordinates [n, 2] of world points [n, 3]."""
    world_to_camera = np.linalg.inv(camera_to_world)
    in_camera = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    projected = in_camera @ intrinsics.T
    return projected[:, :2] / projected[:, 2:]


INTRINSICS = np.array([[0.8, 0.02, 0.45], [0.0, 1.3, 0.6], [0.0, 0.0, 1.0]])


def test_a_crop_shifts_projections_by_its_corner():
    rng = np.random.default_rng(0)
    pose, points = random_pose(rng), rng.normal(size=(20, 3))
    image = Image.new("RGB", (64, 36))
    cropped, intrinsics = transforms.crop(image, INTRINSICS, left=10, top=4, width=30, height=20)
    before = project(pose, INTRINSICS, points) * [64, 36]
    after = project(pose, intrinsics, points) * cropped.size
    assert cropped.size == (30, 20)
    np.testing.assert_allclose(after, before - [10, 4], atol=1e-9)


def test_a_crop_shows_the_pixels_that_its_intrinsics_say():
    image = Image.fromarray(np.arange(36 * 64, dtype=np.int32).reshape(36, 64))
    cropped, _ = transforms.crop(image, INTRINSICS, left=10, top=4, width=30, height=20)
    assert np.asarray(cropped)[0, 0] == 4 * 64 + 10


@pytest.mark.parametrize(("size", "corner"), [((640, 360), (140, 0)), ((360, 640), (0, 140)), ((50, 50), (0, 0))])
def test_the_square_is_the_largest_in_the_middle(size, corner):
    square, intrinsics = transforms.center_square(Image.new("RGB", size), np.array(INTRINSICS))
    assert square.size == (min(size), min(size))
    np.testing.assert_allclose(
        intrinsics[:2, 2] * min(size), INTRINSICS[:2, 2] * size - np.array(corner), atol=1e-9
    )  # the principal point, in pixels


def test_a_mirrored_world_point_lands_at_one_minus_u():
    rng = np.random.default_rng(1)
    poses, points = np.stack([random_pose(rng) for _ in range(3)]), rng.normal(size=(20, 3))
    images = rng.uniform(size=(3, 4, 5, 3))
    mirrored, mirrored_poses, mirrored_intrinsics = transforms.mirror(images, poses, np.stack([INTRINSICS] * 3))
    np.testing.assert_array_equal(mirrored, images[:, :, ::-1])
    for pose, mirrored_pose, intrinsics in zip(poses, mirrored_poses, mirrored_intrinsics, strict=True):
        before = project(pose, INTRINSICS, points)
        after = project(mirrored_pose, intrinsics, points * [-1, 1, 1])
        np.testing.assert_allclose(after, [1, 0] + before * [-1, 1], atol=1e-9)
        assert intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0
        assert np.linalg.det(mirrored_pose[:3, :3]) == pytest.approx(1)


def test_under_a_rolled_camera_points_are_seen_where_they_were_and_its_axes_turn():
    rng = np.random.default_rng(3)
    poses, points, angles = np.stack([random_pose(rng) for _ in range(3)]), rng.normal(size=(20, 3)), [0.0, 0.7, -1.3]
    rolled, intrinsics = transforms.roll(poses, np.stack([INTRINSICS] * 3), np.array(angles))
    for pose, turned, matrix, angle in zip(poses, rolled, intrinsics, angles, strict=True):
        np.testing.assert_allclose(project(turned, matrix, points), project(pose, INTRINSICS, points), atol=1e-9)
        np.testing.assert_allclose(turned[:, 2:], pose[:, 2:], atol=1e-12)  # the optical axis and the place stay
        assert np.arccos(np.clip(turned[:3, 0] @ pose[:3, 0], -1, 1)) == pytest.approx(abs(angle), abs=1e-6)


def test_rendering_is_unchanged_by_rolling_cameras():
    """Of any radiance field: the rays through the pixels are the same."""
    rng = np.random.default_rng(4)
    poses = np.stack([random_pose(rng) for _ in range(3)])
    plain = poses, np.stack([INTRINSICS] * 3)
    rolled = transforms.roll(*plain, np.array([0.3, 1.3, -0.9]))

    def field(rays, distances):
        points = rays.origins[:, :, None] + distances[..., None] * rays.directions[:, :, None]
        return jnp.exp(jnp.sin(3 * points[..., 0])), 0.5 + 0.5 * jnp.cos(2 * points)

    @jit
    def seen(camera):
        xy = pixel_grid(6, 8, "centres").reshape(1, -1, 2)
        near, far = jnp.full(3, 0.5), jnp.full(3, 4.0)
        return render_single_pass(field, cast_rays(camera, xy), near, far, num_samples=16, background=0.0).rgb

    renderings = [seen(Camera(*(jnp.asarray(x, jnp.float32) for x in camera))) for camera in (plain, rolled)]
    np.testing.assert_allclose(*renderings, atol=1e-4)  # an angle near 90 degrees divides by its cosine
    assert np.std(renderings[0]) > 0.05


def test_mirroring_twice_changes_nothing():
    rng = np.random.default_rng(2)
    scene = rng.uniform(size=(2, 4, 4, 3)), np.stack([random_pose(rng) for _ in range(2)]), np.stack([INTRINSICS] * 2)
    for once, twice in zip(scene, transforms.mirror(*transforms.mirror(*scene)), strict=True):
        np.testing.assert_allclose(once, twice, atol=1e-12)


def test_projections_do_not_see_the_scale_of_the_world():
    rng = np.random.default_rng(3)
    poses, points = np.stack([random_pose(rng) for _ in range(2)]), rng.normal(size=(20, 3))
    scaled = transforms.scale_world(poses, 1.7)
    for pose, scaled_pose in zip(poses, scaled, strict=True):
        np.testing.assert_allclose(
            project(scaled_pose, INTRINSICS, 1.7 * points), project(pose, INTRINSICS, points), atol=1e-9
        )


def test_relative_poses_are_those_of_one_rigid_motion_that_puts_the_first_at_the_origin():
    rng = np.random.default_rng(4)
    poses = np.stack([random_pose(rng) for _ in range(3)])
    relative = transforms.relative_to_first(poses)
    np.testing.assert_allclose(relative[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(poses[0] @ relative, poses, atol=1e-12)


def encode(image, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, **options)
    return buffer.getvalue()


def test_reducing_is_antialiased():
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = transforms.decode(encode(stripes, format="PNG"), 12)
    assert reduced.shape == (12, 12, 3) and reduced.dtype == np.float32
    # 8 levels of 255: the filter's ripple; an aliased stripe would be off by 0.5.
    np.testing.assert_allclose(reduced[:, 1:-1], 0.5, atol=0.03)


@pytest.mark.parametrize("side", [256, 361, 509])
def test_a_jpeg_decoded_at_a_fraction_of_its_size_keeps_its_place(side):
    ramp = (np.arange(side) + 0.5) / side
    image = np.rint(255 * np.stack([np.broadcast_to(ramp, (side, side)), np.broadcast_to(ramp[:, None], (side, side))]))
    image = np.concatenate([image, np.zeros((1, side, side))]).transpose(1, 2, 0).astype(np.uint8)
    size = 16
    small = transforms.decode(encode(image, format="JPEG", quality=98), size)
    expected = (np.arange(size) + 0.5) / size
    # Inside; a border mixes with its own reflection. One source pixel of displacement would be an error of 1 / side.
    np.testing.assert_allclose(small[4:-4, 1:-1, 0].mean(0), expected[1:-1], atol=0.006)
    np.testing.assert_allclose(small[1:-1, 4:-4, 1].mean(1), expected[1:-1], atol=0.006)  # as above


@pytest.mark.parametrize("size", [64, 128])
def test_a_jpeg_decoded_at_a_fraction_of_its_size_looks_as_if_it_was_decoded_whole(size):
    rng = np.random.default_rng(0)
    octaves = [Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((360, 360)) for n in (5, 40, 180)]
    image = np.average([np.asarray(octave) for octave in octaves], axis=0, weights=(5, 3, 1)).astype(np.uint8)
    encoded = encode(image, format="JPEG", quality=95)
    whole = Image.open(io.BytesIO(encoded)).resize((size, size), Image.Resampling.BICUBIC)
    error = transforms.decode(encoded, size) - np.asarray(whole, np.float32) / 255
    assert -10 * np.log10(np.mean(error**2)) > 40


@pytest.mark.parametrize("size", [64, 128])
def test_a_jpeg_decoded_at_a_fraction_of_its_size_is_antialiased(size):
    stripes = np.zeros((360, 360, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = transforms.decode(encode(stripes, format="JPEG", quality=98), size)
    # 8 levels of 255: JPEG and the filter's ripple; an aliased stripe would be off by 0.5.
    np.testing.assert_allclose(reduced[:, 2:-2], 0.5, atol=0.03)


def test_a_picture_of_the_right_size_is_only_decoded():
    image = np.random.default_rng(5).integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(
        transforms.decode(encode(image, format="PNG"), 8), image.astype(np.float32) / np.float32(255)
    )
