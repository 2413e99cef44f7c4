"""The public door: a model that is loaded, scenes that are sampled behind a photograph, rendered, kept and read."""

import dataclasses
import doctest
import importlib
import logging
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import dfm_jax
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import from_dict
from dfm_jax.data.loading import toy_scenes
from dfm_jax.errors import UserError
from dfm_jax.evaluation.reference_scenes import find_reference
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.runs.workdirs import local_folder, shipped_file, shipped_model
from dfm_jax.sampling.cameras import target_pose
from dfm_jax.sampling.familiarity import judge, measure
from dfm_jax.sampling.placement import Placement
from dfm_jax.sampling.sources import to_example
from dfm_jax.structs import Camera, Views
from dfm_jax.training import pretrained
from tests.programs import PATIENCE, environment

CONFIG = from_dict(saved_settings("toy"))
FOCAL = CONFIG.sample.photograph.focal_length
INTRINSICS = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.fixture(scope="module")
def door():
    """What the examples in docstrings speak of: one program samples for all of them."""
    sampler = dfm_jax.load("toy")
    scenes = sampler.sample(dfm_jax.example_photo("toy"), num_samples=2, seed=0)
    return {"dfm_jax": dfm_jax, "np": np, "sampler": sampler, "scenes": scenes}


def example_of(source, config=CONFIG, **placement):
    return to_example(source, config, Placement(**placement))[0]


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


DOCUMENTED = sorted({getattr(dfm_jax, name).__module__ for name in dfm_jax.__all__} | {"dfm_jax"})


@pytest.mark.parametrize("module", DOCUMENTED)
def test_examples_in_docstrings_run(door, module, tmp_path):
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(importlib.import_module(module), extraglobs=door | {"folder": tmp_path}):
        assert runner.run(test).failed == 0, test.name


def test_every_public_name_has_an_example():
    methods = [dfm_jax.Sampler.sample, dfm_jax.Sampler.sampled_with, dfm_jax.Scenes.save, dfm_jax.SampledScene.render]
    for public in [getattr(dfm_jax, name) for name in dfm_jax.__all__] + methods:
        assert ">>> " in public.__doc__, public


def test_nothing_heavy_is_imported_before_it_is_used():
    heavy = "{'jax', 'numpy', 'flax', 'absl', 'ml_collections'}"
    code = (
        f"import sys, dfm_jax; print(sorted({heavy} & sys.modules.keys()), sorted(dfm_jax.__all__) == dfm_jax.__all__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert done.stdout.split("\n")[0] == "[] True"
    assert set(dfm_jax.__all__) <= set(dir(dfm_jax))
    with pytest.raises(AttributeError, match="has no attribute 'sampel'"):
        dfm_jax.sampel  # noqa: B018


# --- what is given


def test_a_photograph_is_the_same_as_a_file_an_image_an_array_and_a_view(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    example = example_of(PHOTO)
    assert example.context.images.shape == (1, 1, 24, 24, 3) and example.target.images.shape == (1, 1, 24, 24, 3)
    camera = Camera(np.eye(4), np.diag([2 / 3, 1, 1]) @ (INTRINSICS - [[0, 0, 0.5], [0, 0, 0], [0, 0, 0]]))
    camera.intrinsics[0, 2] = 0.5  # of the whole picture: the square in its middle has the default intrinsics
    one = example.context
    view = Views(one.images[0], jax.tree.map(lambda x: x[0], one.camera), one.absolute_pose[0], one.valid[0])
    for same in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(PHOTO), [PHOTO], view, example):
        assert_same(example_of(same), example)
    assert_same(example_of(one.images[0, 0]), example)
    given = example_of(PHOTO, camera=camera)
    np.testing.assert_allclose(given.context.camera.intrinsics, one.camera.intrinsics, atol=1e-6)
    np.testing.assert_array_equal(given.context.images, one.images)


def test_a_photograph_is_seen_as_viewers_show_it(tmp_path):
    square = PHOTO[:24, :24]
    turned, exif = Image.fromarray(square).transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise
    turned.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        for source in (tmp_path / "turned.png", opened):
            np.testing.assert_array_equal(example_of(source).context.images[0, 0], square / np.float32(255))


def test_coordinates_of_the_source_change_nothing_and_come_back(door):
    """Photographs with cameras anywhere are relative to the first of them, and so is what is asked about them."""
    world = toy_scenes.orbit_pose(np.array([0.3, 0.9]))
    cameras = Camera(world, np.stack([INTRINSICS] * 2))
    target = Camera(toy_scenes.orbit_pose(np.array(2.0)), INTRINSICS)
    config = dataclasses.replace(
        CONFIG,
        data=dataclasses.replace(
            CONFIG.data, view_sampling=dataclasses.replace(CONFIG.data.view_sampling, max_context=2)
        ),
    )
    example, worlds, *_ = to_example([PHOTO, PHOTO], config, Placement(cameras, target, near=1.0, far=9.0))
    np.testing.assert_allclose(example.context.camera.camera_to_world[0, 0], np.eye(4), atol=1e-6)
    np.testing.assert_allclose(worlds[0] @ example.context.camera.camera_to_world[0, 1], world[1], atol=1e-5)
    np.testing.assert_allclose(
        worlds[0] @ example.target.camera.camera_to_world[0, 0], target.camera_to_world, atol=1e-5
    )
    np.testing.assert_allclose(example.target.absolute_pose[0, 0], target.camera_to_world[:3], atol=1e-5)
    assert (example.near, example.far) == (1.0, 9.0)
    scene = door["scenes"][0]
    moved = dataclasses.replace(scene, sampled=dataclasses.replace(scene.sampled, world=worlds))
    np.testing.assert_allclose(moved.context_camera.camera_to_world, world[0], atol=1e-5)
    again = moved.render(moved.target_camera, 8, 12).rgb
    # The same camera, by another way: float32's rounding of its pose.
    np.testing.assert_allclose(again, scene.render(scene.target_camera, 8, 12).rgb, atol=1e-3)


def test_the_target_camera_of_a_toy_photograph_looks_at_the_back():
    there = toy_scenes.orbit_pose(np.array([0.0, np.pi]))
    np.testing.assert_allclose(target_pose(CONFIG.sample.target_camera), np.linalg.inv(there[0]) @ there[1], atol=1e-9)
    quarter = dataclasses.replace(CONFIG.sample.target_camera, azimuth=90.0, forward=0.5)
    right = toy_scenes.orbit_pose(np.array([0.0, np.pi / 2]))
    right[1, :3, 3] += 0.5 * right[1, :3, 2]
    np.testing.assert_allclose(target_pose(quarter), np.linalg.inv(right[0]) @ right[1], atol=1e-9)


def test_a_model_that_is_told_absolute_poses_takes_the_origin_and_says_so(caplog):
    config = read_config("configs/co3d.py:tiny")
    with caplog.at_level(logging.INFO):
        example = example_of(PHOTO, config)
    said = [record for record in caplog.records if "at the origin" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]  # once
    np.testing.assert_array_equal(example.context.absolute_pose[0, 0], np.eye(4)[:3])
    np.testing.assert_allclose(
        example.target.absolute_pose[0, 0], target_pose(config.sample.target_camera)[:3], atol=1e-6
    )


SILENT = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, photograph=None, target_camera=None))
MISTAKES = {
    "nothing is assumed": (
        lambda: example_of(PHOTO, SILENT),
        r"nothing of photographs \(config.sample.target_camera\)",
    ),
    "no target": (lambda: example_of(PHOTO, SILENT, camera=Camera(np.eye(4), INTRINSICS)), "give target_camera="),
    "no file": (lambda: example_of("nowhere.jpg"), "nowhere.jpg: the photograph cannot be read"),
    "no picture": (lambda: example_of(__file__), "is no picture"),
    "no photograph": (lambda: example_of(3), "a photograph is a path, an image"),
    "nothing": (lambda: example_of([]), "a photograph is a path, an image"),
    "levels as floats": (lambda: example_of(PHOTO.astype(np.float32)), "divide by 255"),
    "not a number": (lambda: example_of(np.full((24, 24, 3), np.nan)), "some are infinite or no number"),
    "integers": (lambda: example_of(PHOTO.astype(np.int64)), "not an array of int64"),
    "channels first": (lambda: example_of(np.moveaxis(PHOTO, -1, 0)), r"not an array of shape \(3, 40, 60\)"),
    "two without cameras": (lambda: example_of([PHOTO, PHOTO]), "2 photographs of a scene need their cameras"),
    "too few cameras": (
        lambda: example_of([PHOTO, PHOTO], camera=Camera(np.eye(4)[None], INTRINSICS[None])),
        "give 2 of each",
    ),
    "no camera": (lambda: example_of(PHOTO, camera=np.eye(4)), "camera is ndarray, not dfm_jax.Camera"),
    "a pose of rows": (
        lambda: example_of(PHOTO, camera=Camera(np.eye(4)[:3], INTRINSICS)),
        r"camera_to_world \[3, 4\]",
    ),
    "two targets": (
        lambda: example_of(PHOTO, target_camera=Camera(np.stack([np.eye(4)] * 2), INTRINSICS)),
        "target_camera is one camera",
    ),
    "bounds": (lambda: example_of(PHOTO, near=3.0, far=2.0), "near=3 must be above 0 and below far=2"),
    "another size": (
        lambda: example_of(jax.tree.map(lambda x: x[..., :12, :, :] if x.ndim == 5 else x, example_of(PHOTO))),
        r"images are \[1, 1, 12, 24, 3\]; this model's are \[s, v, 24, 24, 3\]",
    ),
    "an example's camera": (
        lambda: example_of(example_of(PHOTO), near=1.0),
        "an Example has cameras and bounds of its own",
    ),
    "no model": (lambda: dfm_jax.load("nowhere"), "there is no checkpoint in .*nowhere"),
    "no setting": (
        lambda: dfm_jax.load("toy", guidence=2.0),
        "'guidence' is no setting of sampling: these are seed, steps",
    ),
    "of a command alone": (lambda: dfm_jax.load("toy", video_frames=3), "'video_frames' is no setting of sampling"),
    "no steps": (lambda: dfm_jax.load("toy", steps=0), "num_steps must be at least 1"),
    "a setting's own name": (  # is heeded in calls that have a short one
        lambda: dfm_jax.load("toy").sample(PHOTO, num_steps=0),
        "num_steps must be at least 1",
    ),
    "steps twice": (
        lambda: dfm_jax.load("toy").sample(PHOTO, steps=3, num_steps=4),
        "'num_steps' and 'steps' are the same setting",
    ),
    "no photograph of that name": (lambda: dfm_jax.example_photo("fox"), "there is 'shapes' and 'toy'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises(UserError, match=message):
        call()


# --- scenes


def test_samples_differ_and_depend_on_the_seed(door):
    first, second = door["scenes"]
    assert np.abs(first.image - second.image).max() > 0.1
    other = door["sampler"].sample(dfm_jax.example_photo("toy"), num_samples=2, seed=1)
    assert np.abs(other[0].image - first.image).max() > 0.01
    again = door["sampler"].sample(dfm_jax.example_photo("toy"), num_samples=2, seed=0)
    assert_same(again.sampled.signal, door["scenes"].sampled.signal)


def test_equal_rays_have_equal_colours_at_any_height_and_width(door):
    """The left and the right half of a picture, twice as wide each, are that picture."""
    scene = door["scenes"][0]
    camera = scene.target_camera
    whole = scene.render(camera, height=12, width=16)
    halves = [np.diag([2.0, 1.0, 1.0]) @ camera.intrinsics for _ in range(2)]
    halves[1] = halves[1] - [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    both = scene.render(Camera(camera.camera_to_world, np.stack(halves)), height=12, width=8)
    assert both.rgb.shape == (2, 12, 8, 3) and both.depth.shape == both.opacity.shape == (2, 12, 8)
    for halved, seen in zip(jax.tree.leaves(both), jax.tree.leaves(whole), strict=True):
        # Other intrinsics give the same rays but for float32's rounding, which the field passes on.
        np.testing.assert_allclose(np.concatenate(halved, axis=1), seen, atol=2e-3)
    assert np.abs(scene.render(camera).rgb - scene.image).mean() < 0.02  # what diffusion ended with is seen there again


def test_scenes_are_a_sequence(door):
    scenes = door["scenes"]
    assert len(scenes) == 2 and [scene.number for scene in scenes] == [0, 1]
    assert scenes[-1].position == 1 and [scene.position for scene in scenes[:1]] == [0]
    with pytest.raises(IndexError):
        scenes[2]
    assert "sample 1 of source 0" in repr(scenes[1])


def test_scenes_that_are_saved_and_loaded_are_rendered_as_before(door, tmp_path):
    scenes, sampler = door["scenes"], door["sampler"]
    scenes.save(tmp_path / "scenes.npz")
    again = dfm_jax.load_scenes(tmp_path / "scenes.npz", sampler)
    assert repr(again) == repr(scenes)
    assert_same(vars(again.sampled), vars(scenes.sampled))
    camera = scenes.target_camera
    assert_same(again[1].render(camera, 12, 16), scenes[1].render(camera, 12, 16))


def test_scenes_of_another_model_and_other_files_are_refused(door, tmp_path):
    door["scenes"].save(tmp_path / "scenes.npz")
    sampler = door["sampler"]
    other = dataclasses.replace(sampler, params=jax.tree.map(lambda x: x + 1e-6, sampler.params))
    with pytest.raises(UserError, match="are of another model"):
        dfm_jax.load_scenes(tmp_path / "scenes.npz", other)
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(UserError, match="holds no scenes"):
        dfm_jax.load_scenes(tmp_path / "other.npz", sampler)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "scenes.npz").read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        dfm_jax.load_scenes(tmp_path / "cut.npz", sampler)
    with pytest.raises(UserError, match="there is no file"):
        dfm_jax.load_scenes(tmp_path / "nowhere.npz", sampler)
    with pytest.raises(UserError, match=r"saved as \.npz"):
        door["scenes"].save(tmp_path / "scenes.ply")
    with pytest.raises(UserError, match="at least 1"):
        door["scenes"][0].render(door["scenes"].target_camera, height=0)


def test_a_workdir_of_the_name_of_a_shipped_model_is_taken_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shipped_model("toy") and local_folder("toy") == pathlib.Path("runs/toy")
    pretrained.unpack(pathlib.Path("toy"), shipped_file("toy"))
    assert not shipped_model("toy") and local_folder("toy") == pathlib.Path("toy")
    again = dfm_jax.load("toy", steps=3)
    assert again.step == 6000 and again.config.sample.num_steps == 3
    assert not shipped_model(tmp_path / "toy") and not shipped_model("runs/toy")


def test_noise_is_unlike_all_that_the_model_knows_and_its_own_photograph_is_not(door):
    """The shipped model, by the values that ship with it."""
    sampler = door["sampler"]
    reference, _ = find_reference(sampler, "toy")
    noise = np.random.default_rng(0).random((24, 24, 3), np.float32)
    for scenes, unlike in ((door["scenes"], False), (sampler.sample(noise, num_samples=2, seed=0), True)):
        cameras = jax.tree.map(lambda *x: np.stack(x), scenes[0].context_camera, scenes.target_camera)
        views = np.stack([scene.render(cameras, 24, 24).rgb for scene in scenes])[None]
        found = judge(measure(scenes.sampled.example, views, scenes[0].estimate[None])[0], reference)
        assert found.unfamiliar == unlike, found
