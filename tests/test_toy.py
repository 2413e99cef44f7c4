"""Toy scenes are rendered exactly, and what the front hides has the distribution it is said to have."""

import numpy as np
import pytest

from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import procedural as procedural_scenes
from dfm_jax.data.loading import toy_scenes, transforms
from dfm_jax.evaluation.calibration import toy_modes

SIZE = 16


@pytest.fixture(scope="module")
def source():
    return procedural.ToySource(num_scenes=40, image_size=SIZE, seed=3)


def pictures(scene):
    return np.stack([transforms.decode(frame.load(), SIZE) for frame in scene.frames])


def render(scene, frame, size=SIZE, **attributes):
    camera = scene.frames[frame]
    return toy_scenes.render_view(dict(scene.attributes) | attributes, camera.camera_to_world, camera.intrinsics, size)


def points_seen(scene, frame, size):
    """World points [n, 3] that the pixel centres of a frame see, from its depth."""
    _, depth, _ = render(scene, frame, size)
    camera = scene.frames[frame]
    centres = (np.stack(np.meshgrid(np.arange(size), np.arange(size)), axis=-1).reshape(-1, 2) + 0.5) / size
    rays = np.append(centres, np.ones((len(centres), 1)), axis=1) @ np.linalg.inv(camera.intrinsics).T
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    hit = np.isfinite(depth.ravel())
    in_camera = (rays * depth.reshape(-1, 1))[hit]
    return in_camera @ camera.camera_to_world[:3, :3].T + camera.camera_to_world[:3, 3]


def test_every_point_seen_lies_on_the_box_or_on_the_floor(source):
    scene = source.read("train", "train-000007")
    box = scene.attributes
    cos, sin = np.cos(box["yaw"]), np.sin(box["yaw"])
    for frame in (0, 4, 9):
        points = points_seen(scene, frame, 48)
        on_floor = np.abs(points[:, 2]) < 1e-4
        assert np.all(np.linalg.norm(points[on_floor, :2], axis=1) <= toy_scenes.FLOOR_RADIUS + 1e-4)
        on_box = points[~on_floor] @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]).T
        # Distance to the box's surface: the largest of the distances to its pairs of planes.
        centre, half = np.array([0, 0, box["height"] / 2]), np.array([*box["half_sizes"], box["height"] / 2])
        # Depths are float32, and the cameras 4 away.
        np.testing.assert_allclose((np.abs(on_box - centre) - half).max(1), 0, atol=1e-4)
        assert len(on_box) > 100 and on_floor.sum() > 100


def test_nothing_stands_in_front_of_what_is_seen(source):
    """An independent check of visibility: walk along the rays, and meet nothing before the stated depth."""
    scene = source.read("train", "train-000011")
    box = scene.attributes
    eye = scene.frames[5].camera_to_world[:3, 3]
    points = points_seen(scene, 5, 24)
    steps = eye + np.linspace(0, 0.999, 2000)[:, None, None] * (points - eye)  # [steps, n, 3]
    cos, sin = np.cos(box["yaw"]), np.sin(box["yaw"])
    x, y = cos * steps[..., 0] + sin * steps[..., 1], -sin * steps[..., 0] + cos * steps[..., 1]
    inside = (np.abs(x) < box["half_sizes"][0]) & (np.abs(y) < box["half_sizes"][1])
    inside &= (steps[..., 2] > 0) & (steps[..., 2] < box["height"])
    assert not inside.any() and (steps[..., 2] > 0).all()


def test_surfaces_lie_between_near_and_far(source):
    for name in ("train-000000", "train-000039"):
        scene = source.read("train", name)
        for frame in range(len(scene.frames)):
            _, depth, _ = render(scene, frame)
            seen = depth[np.isfinite(depth)]
            assert seen.min() > toy_scenes.NEAR and seen.max() < toy_scenes.FAR
            assert np.isinf(depth).any()


def test_stored_pictures_are_what_render_view_shows(source):
    scene = source.read("test", "test-000004")
    for frame, picture in enumerate(pictures(scene)):
        rgb, _, _ = render(scene, frame)
        np.testing.assert_allclose(picture, rgb, atol=0.5 / 255 + 1e-6)  # stored as one of 255 levels


def test_the_front_shows_nothing_of_the_hidden_colour(source):
    for number in range(0, 40, 5):
        scene = source.read("train", f"train-{number:06d}")
        views = [render(scene, 0, hidden=colour) for colour in range(3)]
        np.testing.assert_array_equal(views[0][0], views[1][0])
        np.testing.assert_array_equal(views[0][0], views[2][0])
        assert not views[0][2].any()


def test_the_back_shows_much_of_it_and_the_mask_is_where_it_alone_shows(source):
    scene = source.read("train", "train-000020")
    for frame in range(1, len(scene.frames)):
        (red, _, hidden), (blue, _, same) = render(scene, frame, hidden=0), render(scene, frame, hidden=2)
        np.testing.assert_array_equal(hidden, same)
        shades = {toy_scenes.SHADE[toy_scenes.BACK], toy_scenes.SHADE[toy_scenes.SIDE]}
        for picture, colour in ((red, toy_scenes.HIDDEN_COLOURS[0]), (blue, toy_scenes.HIDDEN_COLOURS[2])):
            shade = picture[hidden] / np.array(colour)
            assert np.all((shade >= min(shades) - 1e-5) & (shade <= max(shades) + 1e-5))
        changed = np.abs(red - blue).max(-1) > 1e-6
        assert not (hidden & ~changed).any()
    # frames are sorted by azimuth; 6 and 7 look at the back
    assert render(scene, 6, hidden=0)[2].mean() > 0.1


def test_what_a_view_might_show_are_its_renderings_as_often_as_the_odds_say(source):
    scene = source.read("train", "train-000020")
    camera = scene.frames[6]
    likely = toy_modes.likely_pictures(
        dict(scene.attributes), camera.camera_to_world[:3], np.asarray(camera.intrinsics), SIZE
    )
    for colour, probability in enumerate(toy_scenes.HIDDEN_PROBABILITIES):
        rgb, _, _ = render(scene, 6, hidden=colour)
        assert sum(np.allclose(picture, rgb, atol=1e-5) for picture in likely) == round(probability * len(likely))


def test_modes_of_the_hidden_colour_are_far_apart_in_every_shade():
    for label in toy_scenes.HIDDEN_LABELS:
        shown = toy_scenes.SHADE[label] * np.array(toy_scenes.HIDDEN_COLOURS)
        for mode, colour in enumerate(toy_scenes.HIDDEN_COLOURS):
            distances = np.linalg.norm(shown - colour, axis=1)
            assert distances[mode] < 0.25 and (np.delete(distances, mode) > 0.5).all()


def test_hidden_colours_have_their_probabilities_and_ignore_what_is_visible():
    source = procedural.ToySource(num_scenes=3000, image_size=4, seed=0)
    attributes = [source.read("train", name).attributes for name in source.splits()["train"]]
    hidden = np.array([a["hidden"] for a in attributes])
    shares = np.bincount(hidden, minlength=3) / 3000
    # Three standard deviations of a share of 3000 draws.
    np.testing.assert_allclose(shares, toy_scenes.HIDDEN_PROBABILITIES, atol=0.03)
    visible = np.array([[*a["visible_colour"], a["floor_colour"][0], a["yaw"], a["height"]] for a in attributes])
    for mode in range(3):
        correlation = [np.corrcoef(hidden == mode, column)[0, 1] for column in visible.T]
        assert np.abs(correlation).max() < 0.07


def test_views_cover_the_circle_and_start_at_the_front(source):
    scene = source.read("train", "train-000001")
    azimuth = [np.arctan2(f.camera_to_world[0, 3], -f.camera_to_world[1, 3]) % (2 * np.pi) for f in scene.frames]
    assert azimuth[0] == 0
    part = np.floor(np.array(azimuth[1:]) / (2 * np.pi / procedural_scenes.NUM_AZIMUTHS))
    np.testing.assert_array_equal(part, np.arange(procedural_scenes.NUM_AZIMUTHS))


def test_scenes_depend_on_seed_and_split_alone(source):
    again = procedural.ToySource(num_scenes=40, image_size=SIZE, seed=3)
    again.read("train", "train-000030")  # in another order
    scene = source.read("train", "train-000002")
    np.testing.assert_array_equal(pictures(scene), pictures(again.read("train", "train-000002")))
    other_seed = procedural.ToySource(num_scenes=40, image_size=SIZE, seed=4).read("train", "train-000002")
    other_split = source.read("test", "test-000002")
    assert scene.attributes != other_seed.attributes and scene.attributes != other_split.attributes
