"""Laws of the camera paths."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfm_jax import viewpoints
from dfm_jax.config.sampling import VIDEO_PATHS
from dfm_jax.errors import UserError
from dfm_jax.sampling import camera_path_json, trajectories
from dfm_jax.sampling.videos import share_inside
from dfm_jax.structs import Camera, RenderedViews

FRAMES = 24


def look_at(position, centre=(0.0, 0.0, 0.0)):
    """camera_to_world of a level OpenCV camera."""
    position = np.asarray(position, float)
    forward = np.asarray(centre, float) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :4] = np.stack([right, np.cross(forward, right), forward, position], axis=-1)
    return pose


def ring(azimuths, elevation=28.0, radius=4.0, centre=(0.0, 0.0, 0.0)):
    """Cameras on one orbit around `centre`, relative to the first of them; and the centre in that frame."""
    a, e = np.radians(azimuths), np.radians(elevation)
    offsets = radius * np.stack([np.cos(a) * np.cos(e), np.sin(a) * np.cos(e), np.full_like(a, np.sin(e))], -1)
    poses = np.stack([look_at(np.asarray(centre) + o, centre) for o in offsets])
    to_first = np.linalg.inv(poses[0])
    intrinsics = np.tile(np.array([[1.4, 0, 0.5], [0, 1.4, 0.5], [0, 0, 1]]), (len(poses), 1, 1))
    return Camera(to_first @ poses, intrinsics), (to_first @ np.append(centre, 1.0))[:3]


@pytest.fixture
def cameras():
    return ring(np.array([10.0, 170.0, 250.0]), centre=(0.3, -0.2, 0.5))


@pytest.mark.parametrize("name", VIDEO_PATHS)
def test_path_starts_at_the_context_camera_and_is_rigid(cameras, name):
    cameras, _ = cameras
    path = trajectories.make_path(name, cameras, target=1, near=2.0, far=6.0, num_frames=FRAMES, recorded=cameras)
    poses = path.camera.camera_to_world
    assert path.order.shape == (FRAMES,) and set(path.order) <= set(range(len(poses)))
    np.testing.assert_allclose(poses[path.order[0]], cameras.camera_to_world[0], atol=1e-9)
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].mT, np.tile(np.eye(3), (len(poses), 1, 1)), atol=1e-9
    )
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1.0, atol=1e-9)
    np.testing.assert_array_equal(poses[:, 3], np.tile([0, 0, 0, 1], (len(poses), 1)))
    if name != "dolly-zoom":
        np.testing.assert_allclose(path.camera.intrinsics, np.tile(cameras.intrinsics[:1], (len(poses), 1, 1)))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 8, 9])
@pytest.mark.parametrize("name", VIDEO_PATHS)
def test_path_has_the_frames_asked_for(cameras, name, num_frames):
    path = trajectories.make_path(
        name, cameras[0], target=1, near=2.0, far=6.0, num_frames=num_frames, recorded=cameras[0]
    )
    assert len(path.order) == num_frames and path.order.max() < len(path.camera.camera_to_world)


def test_orbit_keeps_radius_elevation_and_looks_at_the_centre(cameras):
    cameras, centre = cameras
    np.testing.assert_allclose(viewpoints.scene_centre(cameras, 2.0, 6.0), centre, atol=1e-9)
    poses = trajectories.orbit(cameras, centre, FRAMES).camera.camera_to_world
    to_centre = centre - poses[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(to_centre, axis=-1), 4.0, atol=1e-9)
    np.testing.assert_allclose(to_centre / 4.0, poses[:, :3, 2], atol=1e-9)
    up = viewpoints.up_direction(cameras)
    # The plane through the cameras is fitted: it is up but for a thousandth.
    np.testing.assert_allclose(poses[:, :3, 2] @ up, -np.sin(np.radians(28.0)), atol=2e-3)
    turned = poses[:, :3, 3] - poses[:, :3, 3].mean(0)
    assert np.linalg.norm(turned.sum(0)) < 1e-9  # a whole turn, evenly spaced


def test_up_is_exact_for_level_cameras_though_they_all_look_down():
    cameras, _ = ring(np.array([0.0, 40.0, 80.0]), elevation=35.0)  # one side only: their mean up leans
    true_up = np.linalg.inv(look_at(4.0 * np.array([np.cos(np.radians(35)), 0, np.sin(np.radians(35))])))[:3, 2]
    assert np.degrees(np.arccos(viewpoints.up_direction(cameras) @ true_up)) < 1.0
    average = -cameras.camera_to_world[:, :3, 1].mean(0)
    assert np.degrees(np.arccos(average / np.linalg.norm(average) @ true_up)) > 10.0


def test_centre_of_cameras_that_look_the_same_way_is_mid_depth_of_the_first():
    cameras, _ = ring(np.array([0.0, 0.0]))
    cameras.camera_to_world[1, :3, 3] = [0.1, 0.0, 1.0]
    np.testing.assert_allclose(viewpoints.scene_centre(cameras, 1.0, 9.0), [0.0, 0.0, 5.0], atol=1e-9)


def test_interpolation_goes_around_the_object_through_the_target_and_on(cameras):
    cameras, centre = cameras
    start, end = (Camera(cameras.camera_to_world[i], cameras.intrinsics[i]) for i in (0, 1))
    poses = trajectories.interpolate(start, end, 11).camera.camera_to_world
    np.testing.assert_allclose(np.linalg.norm(poses[:, :3, 3] - centre, axis=-1), 4.0, atol=1e-9)
    turned = Rotation.from_matrix(poses[:, :3, :3]).magnitude()  # relative to the context camera, which is the identity
    np.testing.assert_allclose(turned[:-1], np.radians(160.0) * np.linspace(0, 1.25, 7)[:-1], atol=1e-9)
    np.testing.assert_allclose(turned[-1], np.radians(160.0))  # 200 degrees one way are 160 the other


def test_interpolation_of_parallel_cameras_is_straight_and_blends_intrinsics():
    far_pose = np.eye(4)
    far_pose[:3, 3] = [1.0, 0.0, 4.0]
    path = trajectories.interpolate(Camera(np.eye(4), np.eye(3)), Camera(far_pose, 2 * np.eye(3)), 8)
    positions = path.camera.camera_to_world[:, :3, 3]
    np.testing.assert_allclose(positions, np.linspace(0, 1.25, 5)[:, None] * far_pose[:3, 3], atol=1e-9)
    np.testing.assert_allclose(path.camera.intrinsics[:, 0, 0], np.minimum(1 + np.linspace(0, 1.25, 5), 2.0))
    np.testing.assert_array_equal(path.order, [0, 1, 2, 3, 4, 3, 2, 1])


def test_following_passes_every_recorded_camera():
    cameras, _ = ring(np.array([0.0, 30.0, 80.0]))
    path = trajectories.follow(cameras, 9)
    np.testing.assert_allclose(path.camera.camera_to_world[[0, 4, 8]], cameras.camera_to_world, atol=1e-9)


def test_frames_that_are_missing_from_a_recording_are_interpolated():
    cameras, _ = ring(np.arange(0.0, 70.0, 10.0))
    there = np.array([0, 2, 5, 6])
    recorded = Camera(cameras.camera_to_world[there], cameras.intrinsics[there])
    filled = trajectories.without_holes(recorded, there)
    np.testing.assert_allclose(filled.camera_to_world, cameras.camera_to_world, atol=1e-9)  # rounding of a screw motion
    np.testing.assert_array_equal(filled.camera_to_world[there], recorded.camera_to_world)
    assert trajectories.without_holes(recorded, np.arange(3, 7)) is recorded


def test_unknown_path_is_refused(cameras):
    with pytest.raises(ValueError, match="loop"):
        trajectories.make_path("loop", cameras[0], target=1, near=1.0, far=2.0, num_frames=3)


# --- paths of the photograph's camera alone


def project(camera, points):
    """Image points [n, k, 2] of world points [k, 3]."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], -1)
    seen = np.linalg.inv(camera.camera_to_world) @ homogeneous.T
    image = camera.intrinsics @ seen[:, :3]
    return (image[:, :2] / image[:, 2:]).mT


def frames_of(name, cameras):
    """The cameras of a video, frame by frame."""
    path = trajectories.make_path(name, cameras, target=1, near=2.0, far=6.0, num_frames=FRAMES)
    return Camera(path.camera.camera_to_world[path.order], path.camera.intrinsics[path.order])


def test_a_dolly_zoom_keeps_the_subject_at_its_size_and_what_lies_behind_it_recedes(cameras):
    cameras, centre = cameras
    camera = frames_of("dolly-zoom", cameras)
    right, ahead = cameras.camera_to_world[0, :3, 0], cameras.camera_to_world[0, :3, 2]
    sizes = lambda at: np.diff(project(camera, np.stack([at - 0.3 * right, at + 0.3 * right])), axis=1)[:, 0, 0]
    np.testing.assert_allclose(sizes(centre), sizes(centre)[0], rtol=1e-9)
    assert np.ptp(camera.intrinsics[:, 0, 0]) > 0.1
    behind = sizes(centre + ahead)
    assert behind[FRAMES // 2] < 0.98 * behind[0]


def test_an_orbit_keeps_its_distance(cameras):
    cameras, centre = cameras
    positions = frames_of("orbit", cameras).camera_to_world[:, :3, 3]
    np.testing.assert_allclose(np.linalg.norm(positions - centre, axis=-1), np.linalg.norm(positions[0] - centre))


def test_a_spiral_keeps_what_it_looks_at_in_its_place_and_closes(cameras):
    cameras, centre = cameras
    camera = frames_of("spiral", cameras)
    seen = project(camera, centre[None])
    np.testing.assert_allclose(seen, np.broadcast_to(seen[0], seen.shape), atol=1e-9)
    np.testing.assert_allclose(camera.camera_to_world[-1], camera.camera_to_world[0], atol=1e-9)
    assert np.ptp(camera.camera_to_world[:, 0, 3]) > 0.3 and np.ptp(camera.camera_to_world[:, 1, 3]) > 0.3


def test_a_pan_stands_still_and_turns_to_both_sides(cameras):
    cameras, _ = cameras
    poses = frames_of("pan", cameras).camera_to_world
    np.testing.assert_array_equal(poses[:, :3, 3], np.broadcast_to(poses[0, :3, 3], (FRAMES, 3)))
    sides = poses[:, :3, 2] @ poses[0, :3, 0]
    # The angles are sampled evenly, not symmetrically to the last digit.
    assert sides.max() == pytest.approx(-sides.min(), abs=1e-4) and sides.max() > 0.3


@pytest.mark.parametrize("name", ["dolly", "forward", "dolly-zoom"])
def test_rays_never_begin_behind_what_the_camera_goes_to(cameras, name):
    cameras, centre = cameras
    poses = frames_of(name, cameras).camera_to_world
    ahead = (centre - poses[:, :3, 3]) @ poses[0, :3, 2]
    assert ahead.min() > 2.0 and np.ptp(ahead) > 0.4
    np.testing.assert_allclose(ahead[-1] < ahead[0] - 0.4, name == "forward")  # the others come back


# --- files


def test_a_written_camera_path_is_read_as_it_was(cameras, tmp_path):
    cameras, _ = cameras
    camera = frames_of("dolly-zoom", cameras)
    camera.intrinsics[:, 0] *= [[9 / 16, 1, 1]]  # square pixels of a picture that is 16 by 9
    assert camera_path_json.is_representable(camera, (90, 160))
    assert not camera_path_json.is_representable(camera, (90, 90))
    camera_path_json.write_camera_path(tmp_path / "path.json", camera, (90, 160), 12.5)
    path = camera_path_json.parse_camera_path(json.loads((tmp_path / "path.json").read_text()), "path.json")
    np.testing.assert_allclose(path.camera.camera_to_world, camera.camera_to_world, atol=1e-12)
    np.testing.assert_allclose(path.camera.intrinsics, camera.intrinsics, rtol=1e-12)
    assert (path.size, path.fps) == ((90, 160), 12.5) and path.order.tolist() == list(range(FRAMES))


def test_the_axes_and_angles_of_a_camera_path_are_nerfstudios():
    """A camera of OpenGL axes looks along -z; its vertical field of view is told."""
    frame = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 90.0, "aspect": 2.0}
    content = {"render_height": 100, "render_width": 200, "camera_path": [frame]}
    path = camera_path_json.parse_camera_path(content, "path.json")
    np.testing.assert_array_equal(path.camera.camera_to_world[0, :3, 2], [0, 0, -1])
    np.testing.assert_allclose(path.camera.intrinsics[0, [0, 1], [0, 1]], [0.25, 0.5])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"camera_type": "equirectangular"}, "'equirectangular' are not rendered"),
        ({"camera_path": []}, "list camera_path of 1 to"),
        ({"render_height": 0}, "render_height=0 is no number of pixels"),
        ({"render_height": 8192, "render_width": 8192}, "fill the memory"),
        ({"fps": "fast"}, "fps is no number"),
        ({"fov": 180.0}, "above 0 and below 180"),
        ({"camera_to_world": [1.0] * 16}, "no rotation and translation"),
        ({"camera_to_world": None}, "no camera_to_world of 16 numbers"),
    ],
)
def test_a_camera_path_that_cannot_be_rendered_is_one_clear_error(changed, message):
    frame = {"camera_to_world": np.eye(4).ravel().tolist(), "fov": 90.0}
    frame |= {name: value for name, value in changed.items() if name in frame}
    content = {"render_height": 100, "render_width": 200, "camera_path": [frame] * 8}
    content |= {name: value for name, value in changed.items() if name not in frame}
    with pytest.raises(UserError, match=message):
        camera_path_json.parse_camera_path(content, "path.json")


# --- what a path leads through


def test_cameras_inside_of_something_are_noticed():
    """Of four frames: an open view, a near thing in a corner, a wall at the near plane, and empty space."""
    opacity, depth = np.ones((4, 8, 8)), np.full((4, 8, 8), 3.0)
    depth[1, :3, :3], depth[2], opacity[3] = 1.01, 1.01, 0.01
    depth[3] = 0.01
    views = RenderedViews(np.zeros((4, 8, 8, 3)), depth, opacity)
    assert share_inside(views, 1.0, 5.0) == 0.25
