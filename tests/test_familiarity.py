"""Photographs that are unlike all that a model knows: how that is measured, compared, kept and told."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

import dfm_jax
from dfm_jax.config.changes import with_sampling
from dfm_jax.errors import UserError
from dfm_jax.evaluation.reference_scenes import FILE, FOLDER, find_reference, keep
from dfm_jax.pages.sample_page import _familiarity as on_page
from dfm_jax.sampling.familiarity import Reference, judge, measure
from dfm_jax.structs import Camera, Example, Views
from dfm_jax.studies import familiarity

SIZE, SCENES, SAMPLES = 6, 4, 3
RNG = np.random.default_rng(0)
USUAL = np.array([-1.5, -0.7, -1.0])  # parts of held-out scenes, on average
HELD_OUT = Reference(USUAL + 0.1 * RNG.standard_normal((24, 3)))


def example(images, valid):
    camera = Camera(np.zeros((len(images), len(valid), 4, 4)), np.zeros((len(images), len(valid), 3, 3)))
    views = Views(images, camera, np.zeros((len(images), len(valid), 3, 4)), np.tile(valid, (len(images), 1)))
    return Example(views, views, np.ones(len(images)), np.ones(len(images)), np.arange(len(images)))


def test_parts_are_root_mean_squares_of_real_views():
    given = np.full((SCENES, 2, SIZE, SIZE, 3), 0.5)
    views = np.full((SCENES, SAMPLES, 4, SIZE, SIZE, 3), 0.5)
    views[:, :, 0] += 0.1  # of the context view; the second is padding, and the last a novel view
    views[:, :, 1] = 0.0
    views[:, :, 2] = np.array([0.2, 0.4, 0.6])[None, :, None, None, None]
    estimate = np.full((SCENES, SIZE, SIZE, 3), 0.4)
    parts = measure(example(given, [True, False]), views, estimate)
    expected = np.log10([0.1, np.sqrt(0.08 / 3), 0.2])
    # Of images in float32, whose errors are small differences.
    np.testing.assert_allclose(parts, np.tile(expected, (SCENES, 1)), atol=1e-4)
    alone = measure(example(given, [True, False]), views[:, :1], estimate)
    # Likewise.
    np.testing.assert_allclose(alone[:, :2], np.tile(np.log10([0.1, 0.2]), (SCENES, 1)), atol=1e-4)
    assert np.isnan(alone[:, 2]).all()


def test_only_what_is_above_held_out_scenes_counts():
    assert HELD_OUT.scores(USUAL - 1.0) == 0
    above = USUAL + np.array([0.5, 0, 0])
    assert 4 < HELD_OUT.scores(above) < 6  # deviations of 0.1
    assert HELD_OUT.scores(np.where([False, False, True], np.nan, above)) == HELD_OUT.scores(above)
    assert np.isfinite(Reference(np.tile(USUAL, (24, 1))).scores(above))  # scenes that do not differ


def test_a_photograph_is_judged_by_its_worst_part():
    known, other = judge(USUAL, HELD_OUT), judge(USUAL + np.array([0, 1, 0]), HELD_OUT)
    assert not known.unfamiliar and other.unfamiliar and other.score > other.limit > known.score
    assert not any(judge(parts, HELD_OUT).unfamiliar for parts in HELD_OUT.values)
    assert [part.name for part in other.parts] == ["context_error", "estimate_error", "spread"]
    assert other.parts[1].deviations == other.score and other.parts[1].value == pytest.approx(10**0.3)
    unknown = judge(np.array([-1.0, -1.0, np.nan]), None, "no data")
    assert unknown.unfamiliar is None and len(unknown.parts) == 2 and unknown.said == "no data"
    for found, text in ((known, "It is."), (other, "means little"), (unknown, "This is not known: no data")):
        assert text in on_page(found)
        json.dumps(dataclasses.asdict(found), allow_nan=False)


def test_values_are_kept_for_the_same_model_sampled_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where there is no data set
    trained = dfm_jax.load("toy")
    shipped, said = find_reference(trained, "toy")
    assert len(shipped.values) == 24 and "toy.reference.json" in said
    otherwise = trained.sampled_with(steps=5)
    found, why = find_reference(otherwise, "toy")
    assert found is None and "the model's data is not here" in why
    keep(tmp_path / "runs" / "toy" / FOLDER / FILE, otherwise, HELD_OUT)
    np.testing.assert_allclose(find_reference(otherwise, "toy")[0].values, HELD_OUT.values, atol=1e-5)
    np.testing.assert_array_equal(find_reference(trained, "toy")[0].values, shipped.values)
    other = dataclasses.replace(otherwise, params=jax.tree.map(lambda x: x + 1, otherwise.params))
    assert find_reference(other, "toy")[0] is None
    without = with_sampling(trained.config, {"reference_scenes": 0}, of_commands=True)
    assert find_reference(dataclasses.replace(trained, config=without), "toy")[0] is None
    (tmp_path / "runs" / "toy" / FOLDER / FILE).write_text("{}")
    assert find_reference(otherwise, "toy")[0] is None


def test_the_area_is_the_chance_that_one_is_above_the_other():
    assert familiarity.roc_area(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
    assert familiarity.roc_area(np.array([0.0, 1.0]), np.array([0.0, 1.0])) == 0.5
    scores = {"held-out scenes": np.array([0.0, 1.0, 5.0]), "noise": np.array([9.0, 8.0]), "textures": np.array([0.5])}
    found = familiarity.numbers(scores, 4.0)
    assert found["roc_areas"] == {"noise": 1.0, "textures": pytest.approx(1 / 3)}
    assert found["roc_area"] == pytest.approx(7 / 9) and found["false_alarms"] == pytest.approx(1 / 3)
    assert found["found"] == {"noise": 1.0, "textures": 0.0}


def test_other_pictures_take_the_place_of_context_views(tmp_path):
    images = RNG.random((12, SIZE, SIZE, 3)).astype(np.float32)
    kinds = familiarity.other_pictures(images)
    np.testing.assert_allclose(kinds["negatives"] + images[: familiarity.OF_EACH], 1.0)
    more, fewer = (familiarity.other_pictures(images, count) for count in (12, 3))
    assert {len(found) for found in more.values()} == {12} and {len(found) for found in fewer.values()} == {3}
    assert all(found.min() >= 0 and found.max() <= 1 and found[0].shape == (SIZE, SIZE, 3) for found in kinds.values())
    given = example(np.zeros((4, 2, SIZE, SIZE, 3)), [True, True])
    made = familiarity.with_pictures(given, kinds["noise"])
    np.testing.assert_array_equal(made.context.images[:, 1], kinds["noise"])
    assert len(set(made.index.tolist())) == familiarity.OF_EACH
    config = dfm_jax.load("toy").config
    Image.fromarray((255 * images[0]).astype(np.uint8)).save(tmp_path / "a.png")
    assert familiarity.photographs_in(config, str(tmp_path))["photographs"].shape == (1, 24, 24, 3)
    for name in "bcd":
        Image.fromarray((255 * images[0]).astype(np.uint8)).save(tmp_path / f"{name}.png")
    assert [len(familiarity.photographs_in(config, str(tmp_path), n)["photographs"]) for n in (2, 3, 9)] == [2, 3, 4]
    with pytest.raises(UserError, match="has no pictures"):
        familiarity.photographs_in(config, str(tmp_path / "nowhere"))
