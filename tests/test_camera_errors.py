"""R_err and T_err: closed forms of cameras that are off by a known motion, and structure-from-motion itself."""

import functools
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfm_jax.commands import reconstructed_cameras
from dfm_jax.errors import Rejected
from dfm_jax.evaluation import camera_errors, summary
from dfm_jax.evaluation.scores import SceneSamples, measure
from dfm_jax.pages import evaluation_page
from dfm_jax.structs import Camera, Example, RenderedViews, Views
from tests.test_perceived import room
from tests.test_scores import made_scores


def poses(rotations, positions):
    found = np.tile(np.eye(4), (len(positions), 1, 1))
    found[:, :3, :3], found[:, :3, 3] = rotations.as_matrix(), positions
    return found


def ring(count=6):
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=-1)
    return poses(Rotation.random(count, random_state=0), 2 * circle)


def moved(cameras, rotation, scale, offset):
    """Seen in another world."""
    matrix = rotation.as_matrix()
    seen = cameras.copy()
    seen[:, :3, :3], seen[:, :3, 3] = matrix @ cameras[:, :3, :3], scale * cameras[:, :3, 3] @ matrix.T + offset
    return seen


WORLD = (Rotation.from_euler("xyz", [0.3, -1.2, 2.0]), 0.37, np.array([5.0, -1.0, 2.0]))


@pytest.mark.parametrize("positions", ["ring", "line", "point"])
def test_another_world_is_no_error(positions):
    true = ring()
    if positions != "ring":
        true[:, 1:3, 3], true[:, 0, 3] = 0, np.arange(6) if positions == "line" else 0
    found = dict(enumerate(moved(true, *WORLD)))
    rotation, translation, share = camera_errors.errors(found, true)
    assert share == 1 and rotation == pytest.approx(0, abs=1e-6)
    assert translation is None if positions == "point" else translation == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("degrees", [0.001, 3.0, 40.0])
def test_turns_to_both_sides_are_what_they_are(degrees):
    """Of cameras turned by an angle, one way and the other, the best rotation is none."""
    true = ring()
    turn = Rotation.from_rotvec(np.array([0, 0, np.deg2rad(degrees)])[None] * np.array([[1], [-1]] * 3))
    off = true.copy()
    off[:, :3, :3] = turn.as_matrix() @ true[:, :3, :3]
    rotation, translation, _ = camera_errors.errors(dict(enumerate(moved(off, *WORLD))), true)
    assert rotation == pytest.approx(degrees, rel=1e-6) and translation == pytest.approx(0, abs=1e-9)


def test_positions_that_are_off_across_have_their_closed_form():
    """Cameras on a circle of radius r, up and down by d: the best scale is s = r^2 / (r^2 + d^2), and what is left at
    each is the length of ((s - 1) r, s d), which is r d / sqrt(r^2 + d^2); the extent is 2 r."""
    true, r, d = ring(), 2.0, 0.5
    off = true.copy()
    off[:, 2, 3] += d * np.array([1, -1] * 3)
    rotation, translation, _ = camera_errors.errors(dict(enumerate(moved(off, *WORLD))), true)
    assert rotation == pytest.approx(0, abs=1e-6)
    assert translation == pytest.approx(r * d / np.hypot(r, d) / (2 * r), rel=1e-9)


def test_views_that_are_not_found_count_and_are_not_guessed():
    true = ring()
    found = moved(true, *WORLD)
    assert camera_errors.errors({i: found[i] for i in (0, 2, 5)}, true)[2] == 0.5
    assert camera_errors.errors({i: found[i] for i in (5, 0, 2)}, true)[0] == pytest.approx(0, abs=1e-6)
    assert camera_errors.errors({0: found[0], 1: found[1]}, true) == (None, None, 2 / 6)
    assert camera_errors.errors({}, true) == (None, None, 0)


# --- of evaluated scenes


def room_example(count=4):
    """The corner of a room as an example, its second target a view of padding; and samples that are the truth."""
    images, cameras, matrices = (x.astype(np.float32) for x in room(count))
    order = np.array([0, 1, 1, *range(2, count)])
    views = Views(images[order], Camera(cameras[order], matrices[order]), cameras[order, :3], np.arange(count + 1) != 2)
    views = views.replace(images=np.where(views.valid[:, None, None, None], views.images, 0))
    context, target = (
        Views(x.images[s], Camera(x.camera.camera_to_world[s], x.camera.intrinsics[s]), x.absolute_pose[s], x.valid[s])
        for x, s in ((views, slice(1)), (views, slice(1, None)))
    )
    one = np.ones(images.shape[:-1], np.float32)[order]
    rendered = RenderedViews(views.images[None], one[None], one[None])
    samples = SceneSamples(rendered, views.images[1:2], views.images[1])
    return Example(context, target, np.float32(0.5), np.float32(9), np.int32(0)), samples


MEASURE = functools.partial(measure, "room", grid="centres", lpips_fn=None)


def test_evaluation_measures_tsed_with_the_cameras_of_the_views():
    """True pictures are consistent with their own cameras, padding left out; with others' cameras they are not."""
    example, samples = room_example()
    assert MEASURE(example, samples).tsed == [1.0]
    turned = example.target.camera.camera_to_world[::-1]
    camera = example.target.camera.replace(camera_to_world=turned)
    others = example.replace(target=example.target.replace(camera=camera))
    assert MEASURE(others, samples).tsed[0] < 1
    lens = example.target.camera.replace(intrinsics=example.target.camera.intrinsics * np.float32([[[0.5], [1], [1]]]))
    assert MEASURE(example.replace(target=example.target.replace(camera=lens)), samples).tsed[0] < 1


def test_evaluation_looks_for_the_cameras_of_the_samples_that_are_asked_for():
    example, samples = room_example()
    seen = []

    def stand_in(images, intrinsics):
        seen.append((images, intrinsics))
        cameras = np.concatenate([example.context.camera.camera_to_world, example.target.camera.camera_to_world])
        return dict(enumerate(moved(cameras[[0, 1, 3, 4]].astype(np.float64), *WORLD)))

    found = MEASURE(example, samples, cameras_fn=functools.partial(camera_errors.of_samples, stand_in, count=1))
    assert len(seen) == 1 and len(seen[0][0]) == len(seen[0][1]) == 4  # without padding
    assert found.rotation_error[0] < 1e-3 and found.translation_error[0] < 1e-5 and found.registered_views == [1.0]


def test_samples_that_are_not_registered_are_counted():
    def nothing(images, intrinsics):
        raise Rejected("too little detail")

    found = camera_errors.of_samples(nothing, np.zeros((3, 4, 8, 8, 3)), ring(4), np.zeros((4, 3, 3)), 2)
    assert found == camera_errors.CameraErrors([None] * 3, [None] * 3, [0.0, 0.0, None])
    scenes = [made_scores([[1.0]] * 3, **vars(found))]
    found = {"rotation_error": [2.0, None, None], "translation_error": [None] * 3, "registered_views": [1.0, 0.5, None]}
    scenes.append(made_scores([[1.0]] * 3, **found))
    numbers = summary.summarise(scenes)
    assert (numbers["num_camera_samples"], numbers["num_camera_samples_registered"]) == (4, 1)
    assert numbers["rotation_error"] == 2.0 and numbers["translation_error"] is None
    assert "registered 1 of 4 sampled scenes" in evaluation_page._registered(numbers)
    assert evaluation_page._registered(summary.summarise([made_scores([[1.0]], registered_views=None)])) == ""
    json.dumps(numbers)


def test_structure_from_motion_finds_the_cameras_of_true_pictures_and_none_in_noise():
    pytest.importorskip("pycolmap", reason="pip install dfm_jax[sfm] brings it")
    images, true, matrices = room(5)
    reconstruct = functools.partial(reconstructed_cameras.reconstruct, grid="centres")
    rotation, translation, share = camera_errors.errors(reconstruct(images, matrices), true)
    assert share == 1 and rotation < 1 and translation < 0.05  # pictures of 160 x 120 pixels
    noise = np.random.default_rng(0).uniform(size=images.shape)
    found = camera_errors.of_samples(reconstruct, noise[None], true, matrices, 1)
    assert found.rotation_error == [None]


@pytest.mark.parametrize("grid", ["centres", "corners"])
def test_lenses_have_their_pixels(grid):
    """A point on the left edge of the picture, and one on pixel 3's centre."""
    matrix = np.array([[0.9, 0, 0.5], [0, 1.2, 0.4], [0, 0, 1]])
    fx, _, cx, _ = reconstructed_cameras._pinhole(matrix, (6, 8), grid)
    u = (3 + 0.5) / 8 if grid == "centres" else 3 / 7
    x = (u - 0.5) / 0.9  # of the ray
    assert fx * x + cx == pytest.approx(3.5)  # where COLMAP has that pixel's centre
