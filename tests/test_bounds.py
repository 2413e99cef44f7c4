"""Depth and bounds of scenes: laws of scale, and what each rule promises."""

import pathlib

import numpy as np
import pytest

from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.preparing import bounds
from dfm_jax.errors import Rejected
from tests.captures_source import RADIUS, arc

POINTS = np.random.default_rng(0).uniform(-1, 1, (200, 3))
DISTANCE = RADIUS * np.sqrt(1.09)  # of the cameras from the origin
BEHIND = np.diag([-1.0, 1, -1, 1])  # turns a camera round


def side_by_side(count=5):
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = np.linspace(-1, 1, count)
    return poses


def test_points_lie_between_near_and_far():
    found = bounds.scene_bounds(arc(), [POINTS] * 6)
    distances = np.linalg.norm(POINTS - arc()[:, None, :3, 3], axis=-1)
    assert found.rule == "points" and found.near < distances.min() and found.far > distances.max()
    assert found.near > 0.7 * distances.min() and found.far < 1.3 * distances.max()
    # The depth is a median of the cameras' medians, which is not that of all distances.
    assert found.depth == pytest.approx(np.median(distances), rel=0.05)


def test_a_few_points_gone_astray_change_little():
    astray = np.concatenate([POINTS, [[0, 0, 1e6]], arc()[:1, :3, 3] * 0.999])
    clean, dirty = (bounds.scene_bounds(arc(), [points] * 6) for points in (POINTS, astray))
    for field in ("depth", "near", "far"):
        # Quantiles move by two ranks when two points are added.
        assert getattr(dirty, field) == pytest.approx(getattr(clean, field), rel=0.1)


def test_cameras_round_an_object_find_it():
    found = bounds.scene_bounds(arc(), object_alone=True)
    assert found.rule == "focus" and found.depth == pytest.approx(DISTANCE)
    assert (found.near, found.far) == pytest.approx((0.5 * DISTANCE, 1.5 * DISTANCE))
    surrounded = bounds.scene_bounds(arc())
    assert surrounded.near < found.near and surrounded.far > found.far


def test_too_few_points_leave_it_to_the_cameras():
    assert bounds.scene_bounds(arc(), [POINTS[:5]] * 6).rule == "focus"
    assert bounds.scene_bounds(arc(), [POINTS] * 2 + [POINTS[:0]] * 4).rule == "focus"


@pytest.mark.parametrize("poses", [side_by_side(), arc() @ BEHIND], ids=["parallel", "looking away"])
def test_cameras_that_look_at_nothing_in_common_go_by_their_spread(poses):
    found = bounds.scene_bounds(poses)
    spread = np.sqrt(((poses[:, :3, 3] - poses[:, :3, 3].mean(0)) ** 2).sum(-1).mean())
    assert found.rule == "extent" and found.depth == pytest.approx(5 * spread)


@pytest.mark.parametrize("poses", [arc(), side_by_side(), arc() @ BEHIND], ids=["focus", "extent", "away"])
@pytest.mark.parametrize("factor", [1e-3, 50])
def test_bounds_grow_with_the_world(poses, factor):
    larger = poses.copy()
    larger[:, :3, 3] *= factor
    a, b = bounds.scene_bounds(poses), bounds.scene_bounds(larger)
    np.testing.assert_allclose([b.depth, b.near, b.far], factor * np.array([a.depth, a.near, a.far]))


def test_bounds_with_points_grow_with_the_world():
    larger = arc()
    larger[:, :3, 3] *= 7
    a, b = bounds.scene_bounds(arc(), [POINTS] * 6), bounds.scene_bounds(larger, [7 * POINTS] * 6)
    np.testing.assert_allclose([b.depth, b.near, b.far], 7 * np.array([a.depth, a.near, a.far]))


def test_cameras_at_one_place_are_rejected():
    with pytest.raises(Rejected, match="at one place"):
        bounds.scene_bounds(np.stack([pose @ np.eye(4) for pose in arc()[:1]] * 4))


def test_points_behind_their_cameras_are_rejected():
    with pytest.raises(Rejected, match="behind"):
        bounds.scene_bounds(arc() @ BEHIND, [POINTS] * 6)


def test_positions_that_overflow_are_rejected():
    poses = arc()
    poses[:, :3, 3] *= 1e200
    with np.errstate(all="ignore"), pytest.raises(Rejected):
        bounds.scene_bounds(poses)


def with_outlier(poses, far, number=2):
    """One camera `far` away from the origin, looking anywhere."""
    changed = poses.copy()
    changed[number] = arc(3)[0]
    changed[number, :3, 3] = far * np.array([0.8, -0.6, 0.1])
    return changed


SCENES = {"focus": lambda: (arc(10), None), "extent": lambda: (side_by_side(10), None)}
SCENES["points"] = lambda: (arc(10), [POINTS] * 10)
SCENES["points of some"] = lambda: (arc(10), [POINTS] * 2 + [POINTS[:3]] + [POINTS] * 7)  # few of camera 2


@pytest.mark.parametrize("far", [60.0, 1e3, 1e6, 1e200])
@pytest.mark.parametrize("kind", SCENES)
def test_one_camera_far_away_has_no_say(kind, far):
    poses, seen = SCENES[kind]()
    rest = np.arange(10) != 2
    expected = bounds.scene_bounds(
        poses[rest], seen and [points for points, kept in zip(seen, rest, strict=True) if kept]
    )
    with np.errstate(over="ignore", invalid="ignore"):
        found = bounds.scene_bounds(with_outlier(poses, far), seen)
    for field in ("depth", "near", "far", "rule"):
        assert getattr(found, field) == getattr(expected, field)
    assert list(found.outliers) == [2] and found.blind == {2}


@pytest.mark.parametrize("kind", SCENES)
def test_cameras_that_differ_as_cameras_do_all_count(kind):
    poses, seen = SCENES[kind]()
    rng = np.random.default_rng(0)
    for camera in poses:
        camera[:3, 3] -= camera[:3, 2] * rng.uniform(0, 3)
    found = bounds.scene_bounds(poses, seen)
    assert not found.outliers and not found.blind


def test_a_camera_much_nearer_than_the_others_has_no_say():
    poses = arc(10)
    poses[4, :3, 3] *= 0.01
    found, expected = bounds.scene_bounds(poses), bounds.scene_bounds(np.delete(arc(10), 4, axis=0))
    assert (found.near, found.far) == pytest.approx((expected.near, expected.far)) and found.blind == {4}


def test_many_cameras_far_away_are_part_of_the_scene():
    poses = arc(10)
    poses[::3, :3, 3] *= 40
    assert not bounds.scene_bounds(poses).outliers


def test_a_camera_with_its_points_behind_it_goes_alone():
    poses = arc(10)
    poses[3] = poses[3] @ BEHIND
    found = bounds.scene_bounds(poses, [POINTS] * 10)
    assert found.blind == {3} and "behind" in found.outliers[3]
    assert found.far == bounds.scene_bounds(np.delete(arc(10), 3, axis=0), [POINTS] * 9).far


@pytest.mark.parametrize("stray", [[np.nan, 0, 0], [0, np.inf, 0], [0, 0, 1e6], [1e300, 1e300, 0]])
@pytest.mark.parametrize("count", [20, 200])
def test_one_point_that_is_nowhere_has_no_say(stray, count):
    points = POINTS[:count]
    clean = bounds.scene_bounds(arc(), [points] * 6)
    with np.errstate(over="ignore"):
        dirty = bounds.scene_bounds(arc(), [np.concatenate([points, [stray]])] * 6)
    for field in ("depth", "near", "far"):
        assert getattr(dirty, field) == pytest.approx(getattr(clean, field), rel=1e-9)


@pytest.mark.parametrize("kind", SCENES)
def test_a_world_far_from_its_origin_is_the_same(kind):
    """As in geographic coordinates. Doubles leave 1e-10 of a unit there."""
    poses, seen = SCENES[kind]()
    offset = np.array([5e5, 4.6e6, 300.0])
    expected = bounds.scene_bounds(poses, seen)
    poses[:, :3, 3] += offset
    found = bounds.scene_bounds(poses, seen and [points + offset for points in seen])
    np.testing.assert_allclose(
        [found.depth, found.near, found.far], [expected.depth, expected.near, expected.far], 1e-6
    )


def plain(poses, seen):
    """The three rules, of all cameras and points."""
    if seen is not None:
        distances = [np.linalg.norm(points - pose[:3, 3], axis=-1) for pose, points in zip(poses, seen, strict=True)]
        near, far = np.array([np.percentile(d, (2, 98)) for d in distances]).T
        return np.median([np.median(d) for d in distances]), 0.8 * np.percentile(near, 5), 1.2 * np.percentile(far, 95)
    to_focus = bounds.focus_distances(poses)
    if to_focus is not None:
        return np.median(to_focus), 0.3 * to_focus.min(), 2.5 * to_focus.max()
    depth = 5 * np.sqrt(((poses[:, :3, 3] - poses[:, :3, 3].mean(0)) ** 2).sum(-1).mean())
    return depth, 0.2 * depth, 4 * depth


@pytest.mark.parametrize("kind", ["focus", "extent", "points"])
@pytest.mark.parametrize("seed", range(5))
def test_without_outliers_all_cameras_and_points_count(kind, seed):
    poses, seen = SCENES[kind]()
    rng = np.random.default_rng(seed)
    for camera in poses:  # from 2.1 to 4.5 of the arc's centre
        camera[:3, 3] -= camera[:3, 2] * rng.uniform(-1, 1.3)
    found = bounds.scene_bounds(poses, seen)
    assert not found.outliers
    np.testing.assert_allclose([found.depth, found.near, found.far], plain(poses, seen), rtol=1e-12)


@pytest.mark.parametrize("folder", ["fox", "nerf_synthetic_lego"])
def test_without_outliers_real_cameras_all_count(folder):
    root = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / folder
    if not root.is_dir():
        pytest.skip(f"no real capture at {root}")
    source = TransformsSource(root, (0, 0, 0))
    ((split, (name,)),) = source.splits().items()
    scene = source.read(split, name)
    expected = np.array(plain(np.stack([frame.camera_to_world for frame in scene.frames]), None))
    if folder == "nerf_synthetic_lego":  # an object alone
        expected *= [1, 0.5 / 0.3, 1.5 / 2.5]
    np.testing.assert_allclose([4.0, scene.near, scene.far], expected, rtol=1e-9)
