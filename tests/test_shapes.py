"""The procedural data set `shapes`: its odds, its depth, what its front hides, and what is read off its pictures."""

import numpy as np
import pytest
from scipy import stats

from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import shapes_scenes
from dfm_jax.data.loading.shapes_scenes import ShapesScenes
from dfm_jax.data.loading.solids import rays_of
from dfm_jax.evaluation.calibration import shapes_modes
from dfm_jax.evaluation.calibration.known_odds import SHAPES
from dfm_jax.evaluation.calibration.reading import UNSEEN

SIZE, FINE = 32, 192  # pixels and rays along a side; the former are the config's
MATRIX = shapes_scenes.intrinsics()
BACK = np.deg2rad(120)  # the target views of training and evaluation are this far from the front, or farther


@pytest.fixture(scope="module")
def scenes():
    """Of which each case occurs."""
    small, made = (ShapesScenes(num_scenes=150, image_size=size, seed=3) for size in (4, SIZE))
    names = {}  # what is hidden does not depend on the size of pictures
    for name in small.splits()["train"]:
        names.setdefault(SHAPES.truth(small.scene("train", name).attributes)[shapes_modes.CASE], name)
    assert len(names) == shapes_scenes.ODDS.size
    return [made.scene("train", name) for name in names.values()]


def azimuths(scene):
    return np.arctan2(scene.camera_to_world[:, 0, 3], -scene.camera_to_world[:, 1, 3])


def from_behind(scene):
    """Poses and pictures [t, ...] of the views that look at the back."""
    back = np.abs(azimuths(scene)) >= BACK
    return scene.camera_to_world[back], scene.images[back].astype(np.float32) / 255


def read(scene, pose, images):
    """Of pictures [n, h, w, 3] of one view."""
    return SHAPES.read(scene.attributes, pose[None, :3], MATRIX[None], images[:, None])


def test_cases_have_their_odds_and_ignore_what_is_visible():
    source = procedural.ShapesSource(num_scenes=1500, image_size=4, seed=0)
    attributes = [source.read("train", name).attributes for name in source.splits()["train"]]
    cases = np.array([int(SHAPES.truth(each)[shapes_modes.CASE]) for each in attributes])
    counts = np.bincount(cases, minlength=shapes_scenes.ODDS.size)
    assert stats.chisquare(counts, 1500 * shapes_scenes.ODDS.ravel()).pvalue > 0.001
    visible = np.array([[*a["visible_colour"], a["floor_colour"][0], a["yaw"], a["height"]] for a in attributes])
    hidden = np.array([[a[name] for name in ("side", "shape", "neighbour")] for a in attributes])
    # Four standard deviations of the correlation of 1000 independent pairs; some walls are shared.
    assert np.abs(np.corrcoef(visible.T, hidden.T)[: visible.shape[1], visible.shape[1] :]).max() < 4 / np.sqrt(1000)
    for name, limits in (("shape_height", shapes_scenes.SHAPE_HEIGHT), ("neighbour_height", (0.3, 0.75))):
        heights = np.array([a[name] for a in attributes if a[name]])
        assert stats.kstest(heights, stats.uniform(limits[0], limits[1] - limits[0]).cdf).pvalue > 0.001


def test_likely_values_have_the_odds():
    for axis, name in enumerate(SHAPES.factors):
        odds = SHAPES.odds.sum(tuple({0, 1, 2} - {axis}))
        np.testing.assert_allclose(np.bincount(SHAPES.likely[name].astype(int)) / len(SHAPES.likely[name]), odds)
    cases = SHAPES.likely[shapes_modes.CASE].astype(int)
    np.testing.assert_allclose(np.bincount(cases) / len(cases), SHAPES.odds.ravel())
    assert SHAPES.odds.sum() == pytest.approx(1)


def test_the_front_shows_nothing_of_what_is_hidden(scenes):
    tallest = {"shape_height": shapes_scenes.SHAPE_HEIGHT[1], "neighbour_height": shapes_scenes.NEIGHBOUR_HEIGHT[1]}
    for scene in scenes:
        hidden = [{"side": 2, "shape": shape, "neighbour": 1, **tallest} for shape in range(3)]
        hidden.append({"side": 0, "shape": 0, "neighbour": 0})
        attributes = [{**scene.attributes, **each} for each in hidden]
        views = [shapes_scenes.render_view(each, scene.camera_to_world[0], MATRIX, 2 * SIZE) for each in attributes]
        for view in views[1:]:
            np.testing.assert_array_equal(view, views[0])
        picture = shapes_scenes.render_view(scene.attributes, scene.camera_to_world[0], MATRIX, SIZE)
        # One level of 255.
        np.testing.assert_allclose(picture, scene.images[0] / 255, atol=1 / 255)


def test_depth_is_where_a_ray_first_comes_to_lie_inside_of_something(scenes):
    """Against small steps along each ray; and depth, label and shade are one ray's."""
    steps = np.linspace(shapes_scenes.NEAR, shapes_scenes.FAR, 1200, dtype=np.float32)
    for scene in scenes[::4]:
        pose, yaw = scene.camera_to_world[7], scene.attributes["yaw"]
        depth = shapes_scenes.view_depth(scene.attributes, pose, MATRIX, 12).ravel()
        (origin,), (directions,) = rays_of(pose[None], MATRIX, 12)
        points = origin[:, None, None] + directions[..., None] * steps  # [xyz, r, steps]
        inside = (np.abs(points[2]) <= 0.002) & (points[0] ** 2 + points[1] ** 2 < shapes_scenes.FLOOR_RADIUS**2)
        for solid in (shapes_scenes.wall(scene.attributes), *shapes_scenes.hidden_solids(scene.attributes)):
            heights = np.einsum("fc,crs->frs", solid.turned(yaw).normals, points)
            inside |= (heights <= solid.offsets[:, None, None]).all(0)
        first = np.where(inside.any(1), steps[inside.argmax(1)], np.inf)
        # Rays that graze an edge meet it in one and miss it in the other.
        assert np.isclose(first, depth, atol=2 * (steps[1] - steps[0])).mean() > 0.95
        assert np.array_equal(np.isfinite(first), np.isfinite(depth))


def test_a_point_has_one_colour_in_all_views_that_see_it(scenes):
    """Depth carries a pixel to another view: what is seen there, if nothing nearer, has the same label and shade."""
    for scene in scenes[::4]:
        poses = scene.camera_to_world[[5, 7]]
        one, two = (shapes_scenes.view_of(scene.attributes, pose, MATRIX, FINE) for pose in poses)
        (origin, _), (directions, _) = rays_of(poses, MATRIX, FINE)
        there = np.isfinite(one.distance[0])
        points = origin[:, None] + one.distance[0][there] * directions[:, there]
        camera = poses[1, :3, :3].T @ (points - poses[1, :3, 3:])
        u, v = np.floor(FINE * (MATRIX @ camera)[:2] / camera[2]).astype(int)
        met = two.distance.reshape(FINE, -1)[v, u]
        away = np.linalg.norm(camera, axis=0)
        assert (met <= away + 0.05).mean() > 0.98  # nothing is seen through; at an edge, the next pixel is farther
        same = np.abs(met - away) < 0.01
        assert same.mean() > 0.4
        for name in ("label", "shade"):
            a, b = getattr(one, name)[0][there], getattr(two, name).reshape(FINE, -1)[v, u]
            assert (a == b)[same].mean() > 0.98


def test_near_and_far_bound_every_surface(scenes):
    for scene in scenes:
        for pose in scene.camera_to_world:
            depth = shapes_scenes.view_depth(scene.attributes, pose, MATRIX, 2 * SIZE)
            known = depth[np.isfinite(depth)]
            assert known.min() > shapes_scenes.NEAR and known.max() < shapes_scenes.FAR


def test_what_true_pictures_show_is_read_without_a_mistake(scenes):
    unseen = []
    for scene in scenes:
        truth = SHAPES.truth(scene.attributes)
        poses, images = from_behind(scene)
        for i in range(0, len(poses), 2):
            shown = read(scene, poses[i], images[i : i + 1])
            if shown.modes.item() == UNSEEN:  # from the side
                unseen.append(np.abs(np.arctan2(poses[i][0, 3], -poses[i][1, 3])))
                continue
            assert shown.modes.item() == truth[shapes_modes.CASE] and shown.clean.item()
            for name, value in shown.scalars.items():
                # Heights: a pixel is about 0.04.
                np.testing.assert_allclose(value, truth[name], atol=0.02 if name.startswith("height") else 0)
    assert len(unseen) < 4 and max(unseen, default=0) < np.deg2rad(130)


def test_mixtures_of_cases_are_not_clean(scenes):
    scene = max(scenes, key=lambda scene: scene.attributes["neighbour_height"])
    (pose, *_), _ = from_behind(scene)
    picture = lambda **hidden: shapes_scenes.render_view({**scene.attributes, **hidden}, pose, MATRIX, SIZE)
    heights = {"shape_height": 0.65, "neighbour_height": 0.6}
    pairs = [
        ({"side": 0}, {"side": 1}),
        ({"shape": 1, **heights}, {"shape": 2, **heights}),
        ({"shape": 0}, {"shape": 1, **heights}),
        ({"neighbour": 0}, {"neighbour": 1, **heights}),
    ]
    mixed = np.stack([(picture(**a) + picture(**b)) / 2 for a, b in pairs])
    clean = read(scene, pose, np.concatenate([[picture(**a) for a, _ in pairs], mixed])).clean[:, 0]
    assert clean.tolist() == [True] * 4 + [False] * 4


def test_noise_does_not_hide_a_case(scenes):
    rng = np.random.default_rng(0)
    for scene in scenes[::3]:
        (pose, *_), (image, *_) = from_behind(scene)
        noisy = np.clip(image + rng.normal(0, 0.05, (4, *image.shape)), 0, 1).astype(np.float32)
        assert (read(scene, pose, noisy).modes == SHAPES.truth(scene.attributes)[shapes_modes.CASE]).all()


def test_a_view_from_the_front_tells_nothing(scenes):
    shown = read(scenes[0], scenes[0].camera_to_world[0], scenes[0].images[:1].astype(np.float32) / 255)
    assert shown.modes.item() == UNSEEN and not shown.clean.item()
    assert all(np.isnan(value).all() for value in shown.scalars.values())
