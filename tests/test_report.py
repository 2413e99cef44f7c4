"""A scene's files and the page, from made-up images: several context views, padding, no known hidden attribute."""

import dataclasses

import numpy as np
import pytest

from dfm_jax.pages.sample_page import write_report
from dfm_jax.pages.scene_media import write_scene
from dfm_jax.sampling.sample_summary import Summary
from dfm_jax.sampling.videos import SampledImages
from dfm_jax.structs import Camera, Example, Views

SIZE, SAMPLES = 8, 3
NAME = "<clip> & co"  # names come from a data set: anything


def views(images: np.ndarray, valid: list[bool]) -> Views:
    v = len(valid)
    camera = Camera(np.tile(np.eye(4), (1, v, 1, 1)), np.tile(np.eye(3), (1, v, 1, 1)))
    return Views(images[None], camera, np.zeros((1, v, 3, 4)), np.array([valid]))


@pytest.fixture
def pictured() -> tuple[Example, SampledImages]:
    """Two context views and a padding one, one target view; samples that are off by 0.1 from contexts and truth."""
    contexts, truth = np.full((3, SIZE, SIZE, 3), 0.5), np.full((1, SIZE, SIZE, 3), 0.4)
    contexts[2] = 0.0
    example = Example(
        views(contexts, [True, True, False]), views(truth, [True]), np.ones(1), 2 * np.ones(1), np.zeros(1, int)
    )
    seen = np.tile(np.concatenate([contexts, truth]) + 0.1, (1, SAMPLES, 1, 1, 1, 1))
    seen[:, :, 2] = 0.9  # at the padding view: must not count
    seen[:, 1, 3] += 0.3
    return example, SampledImages(seen, seen[:, :, 3], truth + 0.01, np.zeros((1, SAMPLES)))


@pytest.fixture
def made(tmp_path, pictured):
    scene = write_scene(tmp_path, 0, NAME, *pictured)
    summary = Summary(5, False, {"seed": 1}, (), (scene,), 20.0, 40.0, scene.spread, None, {}, {"loading": 1.0})
    return tmp_path, scene, summary


def test_numbers_count_real_views_only(made):
    _, scene, _ = made
    assert len(scene.contexts) == 2
    assert [found.context_psnr for found in scene.samples] == pytest.approx([20.0] * SAMPLES)
    assert [found.target_psnr for found in scene.samples] == pytest.approx([20.0, -20 * np.log10(0.4), 20.0])
    assert all(found.novel_psnr is None for found in scene.samples)
    assert all(found.scene_psnr == 99.0 for found in scene.samples)  # equal images: finite, for JSON
    assert scene.estimate_psnr == pytest.approx(40.0)
    assert scene.mean_psnr == pytest.approx(-20 * np.log10(0.2))
    assert scene.spread == pytest.approx(np.std([0.5, 0.8, 0.5]))


def test_one_sample_has_no_spread_and_says_nothing_of_certainty(tmp_path, pictured):
    example, sampled = pictured
    one = SampledImages(sampled.views[:, :1], sampled.x0[:, :1], sampled.estimate, sampled.inside[:, :1])
    scene = write_scene(tmp_path, 0, NAME, example, one)
    summary = Summary(5, False, {"seed": 1}, (), (scene,), 20.0, 40.0, scene.spread, None, {}, {"loading": 1.0})
    page = write_report(tmp_path, summary, []).read_text()
    assert scene.spread is None
    for absent in ("Uncertainty", "Mean of the samples", "averaged over the target view</li>", "0.0&nbsp;%</td>"):
        assert absent not in page


def test_named_pictures_exist(made):
    folder, scene, _ = made
    for path in (*scene.contexts, *dataclasses.asdict(scene).values()):
        if isinstance(path, str) and path.startswith("scene_"):
            assert (folder / path).is_file(), path


def test_page_does_without_curve_odds_and_commands(made):
    folder, _, summary = made
    page = write_report(folder, summary, []).read_text()
    for absent in ("<polyline", "odds", "<pre>", NAME, "http"):
        assert absent not in page
    assert "&lt;clip&gt; &amp; co" in page


def test_page_does_not_promise_many_scenes_of_a_deterministic_model(made):
    folder, _, summary = made
    assert "many possible scenes" in write_report(folder, summary, []).read_text()
    page = write_report(folder, dataclasses.replace(summary, deterministic=True), []).read_text()
    assert "many possible scenes" not in page and "one 3D scene" in page


def test_samples_without_colours_are_compared_with_what_diffusion_ended_with_alone(made, pictured):
    folder, _, summary = made
    (folder / "depth").mkdir()
    scene = write_scene(folder / "depth", 0, NAME, *pictured, in_colour=False)
    against_truth = {scene.estimate_psnr, scene.mean_psnr}
    against_truth |= {x for found in scene.samples for x in (found.context_psnr, found.target_psnr, found.novel_psnr)}
    assert against_truth == {None} and all(found.scene_psnr == 99.0 for found in scene.samples)
    told = dataclasses.replace(summary, scenes=(scene,), context_psnr=None, estimate_psnr=None)
    page = write_report(folder, told, []).read_text()
    assert "dB" not in page and "True target view" in page and "dB" in write_report(folder, summary, []).read_text()


def test_curve_is_drawn_within_its_frame_whatever_the_values(made):
    folder, _, summary = made
    for values in ([3.0, 2.0, 1.0], [1.0, 1.0], [-1.0, 5.0, float("nan"), 0.0], np.linspace(9, 1, 1001)):
        page = write_report(folder, summary, [(10 * i, float(value)) for i, value in enumerate(values)]).read_text()
        points = page.split('<polyline points="')[1].split('"')[0].split()
        xy = np.array([point.split(",") for point in points], float)
        assert 2 <= len(xy) <= 400
        assert np.all((xy >= [60, 20]) & (xy <= [730, 210])) and np.all(np.diff(xy[:, 0]) > 0)
