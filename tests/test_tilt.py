"""The study of tilted photographs: what it puts in the place of the context, its page, and what it refuses."""

import dataclasses
import pathlib
import types

import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.data.builders.procedural import FEW_PICTURES, ToySource
from dfm_jax.data.loading import toy_scenes
from dfm_jax.pages import tilt_page
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.studies import tilt
from tests.test_consistency import BOX
from tests.test_savings_sweep import Boxes, box_scenes

POSES = toy_scenes.orbit_pose(np.array([0.0, np.pi, 0.8 * np.pi]))


class SeenBoxes(Boxes):
    def scene(self, number: int) -> types.SimpleNamespace:
        intrinsics = np.tile(toy_scenes.intrinsics(), (3, 1, 1))
        return types.SimpleNamespace(attributes=BOX, camera_to_world=POSES, intrinsics=intrinsics)


@pytest.fixture(scope="module")
def scenes():
    return dataclasses.replace(box_scenes(1), data=object.__new__(SeenBoxes))


def world_rays(views) -> np.ndarray:
    """Of pixels, up to their lengths: what intrinsics and the rotation in the world make of them."""
    return views.absolute_pose[..., :3] @ np.linalg.inv(views.camera.intrinsics)


@pytest.mark.parametrize("picture", [True, False])
def test_without_a_tilt_nothing_is_changed_but_that_cameras_are_relative(scenes, picture):
    same = tilt.tilted(scenes, 0.0, picture=picture).example
    np.testing.assert_allclose(same.context.images, scenes.example.context.images, rtol=1e-6)
    np.testing.assert_allclose(world_rays(same.context), world_rays(scenes.example.context), atol=1e-6)
    np.testing.assert_allclose(POSES[0] @ same.target.camera.camera_to_world[0], POSES[1:], atol=1e-6)


def test_turned_axes_leave_pictures_and_rays_as_they_are(scenes):
    turned = tilt.tilted(scenes, 30.0, picture=False).example
    np.testing.assert_array_equal(turned.context.images, scenes.example.context.images)
    np.testing.assert_allclose(world_rays(turned.context), world_rays(scenes.example.context), atol=1e-6)
    # The targets are where they were, told from a context camera whose x axis fell by 30 degrees, or rose.
    first, second = turned.target.camera.camera_to_world[:, 0, :3, 0]
    assert first[1] == pytest.approx(-second[1], abs=1e-5) and abs(first[1]) == pytest.approx(0.5, abs=1e-5)


def test_a_tilted_picture_shows_the_same_scene_from_a_camera_with_the_usual_intrinsics(scenes):
    seen = tilt.tilted(scenes, 30.0, picture=True).example
    np.testing.assert_allclose(seen.context.camera.intrinsics[0, 0], toy_scenes.intrinsics(), rtol=1e-6)
    pose = np.vstack([seen.context.absolute_pose[0, 0], [0, 0, 0, 1]])
    expected, _, _ = toy_scenes.render_view(BOX, pose, toy_scenes.intrinsics(), 24)
    np.testing.assert_allclose(seen.context.images[0, 0], expected, rtol=1e-6)
    assert np.abs(expected - scenes.example.context.images[0, 0]).mean() > 0.02


def test_the_page_names_models_and_their_training(tmp_path):
    point = {"context_psnr": 20.0, "total_variation": 0.1, "purity": 0.9, "novel_view_agreement": 1.0}
    found = {kind: [{"degrees": angle, **point} for angle in (0.0, 30.0)] for kind in tilt_page.KINDS}
    found["num_samples"] = 96
    models = {name: found | {"trained_with_roll": roll} for name, roll in (("plain", 0.0), ("rolled", 30.0))}
    page = tilt_page.write_page(tmp_path, {"models": models}).read_text()
    assert "rolled with a roll of 30 degrees, measured with 96 samples" in page and page.count("20.0&nbsp;dB") == 8
    assert (tmp_path / "tilt.png").stat().st_size > 5_000


def measured_points(tmp_path, monkeypatch) -> dict[str, list[dict[str, float]]]:
    """Of the shipped model, by the kind of tilt."""
    monkeypatch.setattr(tilt, "ANGLES", (0.0, 30.0))
    monkeypatch.setattr(tilt, "NUM_SAMPLES", 1)
    settings = {"data.dir": tmp_path, "data.toy_scenes": 2, "sample.num_steps": 2}
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    found = tilt._of_model(read_config("", overrides, saved_settings("toy")), "toy")
    assert found["num_samples"] == 16 < tilt.NUM_SCENES  # as many as there are
    for kind in tilt_page.KINDS:
        assert [point["degrees"] for point in found[kind]] == [0.0, 30.0]
        assert all(np.isfinite([point[name] for name, *_ in tilt_page.COLUMNS]).all() for point in found[kind])
    return {kind: found[kind] for kind in tilt_page.KINDS}


def test_samples_that_are_the_truth_are_as_good_at_every_angle(tmp_path, monkeypatch):
    def sample_all(sampler, finishing, scenes, seed):
        example = scenes.example
        views = np.concatenate([example.context.images, example.target.images], axis=1)
        return np.asarray(example.target.images[:, 0]), views + 0.01, []

    monkeypatch.setattr(tilt, "sample_all", sample_all)
    points = [point for found in measured_points(tmp_path, monkeypatch).values() for point in found]
    for point in points:
        # Of pictures in float32.
        assert point["context_psnr"] == pytest.approx(40.0, abs=1e-3)
        assert point["purity"] == point["purity_of_x0"] == point["novel_view_agreement"] == 1.0
        assert point["total_variation"] == points[0]["total_variation"]


@pytest.mark.slow
def test_a_model_that_saw_no_tilt_knows_the_context_worse_behind_one(tmp_path, monkeypatch):
    for upright, tilted in measured_points(tmp_path, monkeypatch).values():
        assert tilted["context_psnr"] < upright["context_psnr"] - 3


def test_a_workdir_without_a_model_is_one_clear_error(tmp_path, capsys):
    out = pathlib.Path(tmp_path / "out")
    assert tilt.main([f"--out={out}", f"plain={tmp_path}"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ") and "Traceback" not in printed.err and not printed.out and not out.exists()


# --- sets of few pictures, for which the same is asked: what a model learns of them


def test_of_scenes_that_are_not_whole_there_are_the_front_its_opposite_and_one_more():
    source, whole = (ToySource(40, 4, 0, count) for count in (3, None))
    names = source.splits()["train"]
    assert [len(source.read("train", name).frames) for name in names[:3]] == [13] * 3
    chosen = [[frame.number for frame in source.read("train", name).frames] for name in names[3:]]
    assert all(len(set(of)) == FEW_PICTURES and of[0] == 0 and set(of) & {5, 6, 7, 8} for of in chosen)
    assert len({tuple(of) for of in chosen}) > 10
    assert len(source.read("test", "test-000000").frames) == 13
    kept, all_of = source.read("train", names[5]), whole.read("train", names[5])
    for frame in kept.frames:
        np.testing.assert_array_equal(frame.camera_to_world, all_of.frames[frame.number].camera_to_world)
