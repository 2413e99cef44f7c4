"""Mistakes in cameras are found and named, and honest captures of every kind are left alone."""

import pathlib

import numpy as np
import pytest

from dfm_jax.data.preparing import camera_checks, geometry_checks
from dfm_jax.data.preparing.geometry_checks import INVERSE, OPENGL, PYTORCH3D
from dfm_jax.errors import Rejected
from tests.captures_source import arc, pose
from tests.tiny import random_rotations

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
INTRINSICS = np.array([[1.25, 0, 0.5], [0, 1.25, 0.5], [0, 0, 1]])
AXES = np.diag([1.0, -1, -1, 1])


def worlds(count=5):
    """Rigid motions with a change of scale: [n, 4, 4]; scales apply to positions only."""
    rng = np.random.default_rng(0)
    motions = np.broadcast_to(np.eye(4), (count, 4, 4)).copy()
    motions[:, :3, :3] = random_rotations(rng, (count,), 3.0)
    motions[:, :3, 3] = rng.uniform(-5, 5, (count, 3))
    return motions


def mistake_in(poses):
    suspicion = geometry_checks.suspicion(poses)
    return suspicion and suspicion.mistake


def looking(positions, directions):
    """Poses [v, 4, 4], upright with y down, from positions and directions [v, 3]."""
    poses = np.broadcast_to(np.eye(4), (len(positions), 4, 4)).copy()
    forward = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
    right = np.cross([0.0, 1, 0], forward)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    poses[:, :3] = np.stack([right, np.cross(forward, right), forward, positions], axis=-1)
    return poses


# --- poses alone


def test_an_orbit_meets_at_its_centre_and_is_not_suspected():
    for world in worlds():
        found = geometry_checks.convergence(world @ arc())
        np.testing.assert_allclose(found.point, world[:3, 3], atol=1e-9)
        assert found.ahead == 1 and found.miss < 1e-6 and mistake_in(world @ arc()) is None


def test_backward_axes_are_suspected_in_any_world():
    for world in worlds():
        assert mistake_in(world @ arc() @ AXES) == OPENGL


def test_world_to_camera_poses_are_suspected():
    """Not in any world: far from its origin, inverse poses can look like poses."""
    assert mistake_in(np.linalg.inv(arc())) == INVERSE
    assert (
        mistake_in(AXES @ np.linalg.inv(arc()) @ AXES) == INVERSE
    )  # in OpenGL's axes, converted as if they were poses


def test_upside_down_cameras_are_suspected():
    above = np.stack([pose(angle) for angle in np.linspace(-0.6, 0.6, 6)])
    above[:, 1, 3] -= 2.0  # y is down: higher up
    above = looking(above[:, :3, 3], -above[:, :3, 3])
    assert mistake_in(above) is None and mistake_in(above @ np.diag([-1.0, -1, 1, 1])) == PYTORCH3D


STEPS = np.linspace(0, 1, 16)[:, None]
TURN = np.c_[np.sin(0.6 * STEPS - 0.3), 0 * STEPS, np.cos(0.6 * STEPS - 0.3)]
HONEST = {
    "side by side": looking(STEPS * [1.0, 0, 0], np.array([[0, 0.1, 1.0]]) + 0 * STEPS),
    "walking ahead": looking(STEPS * [0.2, 0, 2.0], np.array([[0.05, 0.1, 1.0]]) + 0 * STEPS),
    "walking and turning": looking(STEPS * [0.2, 0, 2.0], TURN),
    "stepping aside and turning inwards": looking(STEPS * [-1.0, 0, 0] + [0.5, 0, 0], TURN),
    "walking backwards": looking(STEPS * [0, 0, -2.0], np.array([[0.05, 0.1, 1.0]]) + 0 * STEPS),
}


@pytest.mark.parametrize("name", HONEST)
def test_walks_are_not_suspected(name):
    rng = np.random.default_rng(0)
    shaken = HONEST[name].copy()
    shaken[:, :3, :3] = shaken[:, :3, :3] @ random_rotations(rng, (len(shaken),), 0.04)
    assert mistake_in(shaken) is None
    for world in worlds():  # in which a turn can look like the inverse of an orbit
        assert mistake_in(world @ HONEST[name]) in (None, INVERSE) and mistake_in(world @ shaken) in (None, INVERSE)


def test_cameras_at_one_place_have_no_parallax():
    turned = arc()
    turned[:, :3, 3] = 7.0
    assert "one place" in geometry_checks.baseline_warnings(turned, np.nan, np.nan)[0]
    assert geometry_checks.baseline_warnings(arc(), np.nan, np.nan) == []
    assert geometry_checks.baseline_warnings(arc(), 1.0, 10.0) == []
    assert "hardly any parallax" in geometry_checks.baseline_warnings(arc(), 1e3, 1e4)[0]


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (0.0, 1.0), (1.0, np.inf), (1.0, np.nan), (-1.0, 1.0)])
def test_impossible_bounds_are_rejected(bounds):
    with pytest.raises(Rejected, match="bounds"):
        geometry_checks.check_bounds(*bounds)
    geometry_checks.check_bounds(1.0, 2.0)
    geometry_checks.check_bounds(np.nan, np.nan)


# --- intrinsics


@pytest.mark.parametrize(
    ("entry", "value", "reason"),
    [((0, 2), 1.1, "principal point"), ((1, 2), -0.1, "principal point"), ((0, 0), 500.0, "degrees wide"),
     ((1, 1), 0.1, "degrees high")],
)  # fmt: skip
def test_impossible_intrinsics_are_rejected(entry, value, reason):
    intrinsics = INTRINSICS.copy()
    camera_checks.check_camera(np.eye(4), intrinsics)
    intrinsics[entry] = value
    with pytest.raises(Rejected, match=reason):
        camera_checks.check_camera(np.eye(4), intrinsics)


def in_the_middle(fx, fy, cx, cy, width, height):
    """Normalised intrinsics of the middle square of a picture, from those in pixels."""
    side = min(width, height)
    return np.array([[fx / side, 0, 0.5 + (cx - width / 2) / side], [0, fy / side, 0.5 + (cy - height / 2) / side],
                     [0, 0, 1]])  # fmt: skip


def test_odd_intrinsics_are_warned_of():
    def warnings(*pixels):
        return geometry_checks.intrinsics_warnings(in_the_middle(*pixels, 160, 90)[None], [(160, 90)])

    assert warnings(120, 120, 80, 45) == [] and warnings(120, 120, 80 + 31, 45 - 17) == []
    assert "away from its centre" in warnings(120, 120, 80 + 33, 45)[0]
    assert "away from its centre" in warnings(120, 120, 80, 45 + 19)[0]
    assert warnings(120, 140, 80, 45) == []  # pictures squeezed a little
    assert "fx and fy" in warnings(120, 160, 80, 45)[0] and "swapped" not in warnings(120, 160, 80, 45)[0]
    # fx divided by the height and fy by the width
    assert "swapped" in warnings(120 * 160 / 90, 120 * 90 / 160, 80, 45)[0]


def test_warnings_count_the_frames_they_are_about():
    intrinsics = np.stack([INTRINSICS] * 4)
    intrinsics[2, 0, 0] *= 2
    (warning,) = geometry_checks.intrinsics_warnings(intrinsics, [(64, 64)] * 4)
    assert "1 of 4 frames" in warning


# --- duplicates


def test_a_camera_far_from_all_others_is_named():
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, 2, 3] = np.linspace(0, 1, 20)  # a walk
    names = [str(i) for i in range(20)]
    assert geometry_checks.far_off_warnings(poses, names) == []
    poses[7, 0, 3] = 10
    (warning,) = geometry_checks.far_off_warnings(poses, names)
    assert "frame 7:" in warning


def test_a_picture_at_two_poses_is_kept_once():
    names = [f"f{i}" for i in range(6)]
    repeated = geometry_checks.repeated_pictures(arc(), ["a", "b", "a", "c", "b", "a"], names)
    assert sorted(repeated) == [2, 4, 5] and "f0" in repeated[5] and "f1" in repeated[4]
    poses = arc()
    poses[2] = poses[0]  # a camera that waits
    assert sorted(geometry_checks.repeated_pictures(poses, ["a", "b", "a", "c", "d", "e"], names)) == []


def test_a_pose_with_two_pictures_is_warned_of():
    poses = arc()
    assert geometry_checks.repeated_pose_warnings(poses, list("abcdef")) == []
    poses[3:5] = poses[0]
    assert "2 frames" in geometry_checks.repeated_pose_warnings(poses, list("abcdef"))[0]
    assert "1 frame" in geometry_checks.repeated_pose_warnings(poses, list("abcaef"))[0]
