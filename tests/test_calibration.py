"""Samples against known odds: exact probabilities, what honest draws come to, and samples that are not honest."""

import types

import numpy as np
import pytest

from dfm_jax.data.loading import toy_scenes
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.errors import UserError
from dfm_jax.evaluation import summary, uncertainty
from dfm_jax.evaluation.calibration import honest_draws
from dfm_jax.evaluation.calibration.known_odds import KINDS
from dfm_jax.studies import calibration
from tests.test_consistency import BOX
from tests.test_scores import made_scores

TOY = KINDS[0]
COLOUR = "hidden colour"
(LIKELY,) = TOY.likely.values()
CONTINUOUS = (np.arange(100) + 0.5) / 100


def test_likely_values_have_the_odds():
    np.testing.assert_allclose(np.bincount(LIKELY.astype(int)) / len(LIKELY), toy_scenes.HIDDEN_PROBABILITIES)


@pytest.mark.parametrize("likely", [LIKELY, CONTINUOUS])
def test_the_probabilities_of_places_are_those_of_many_places(likely):
    rng = np.random.default_rng(0)
    samples = rng.choice(likely, (5, 4))
    samples[0, 1:], samples[4] = np.nan, np.nan  # the last scene tells nothing
    told = [row[np.isfinite(row)] for row in samples[:4]]
    draw = lambda row: uncertainty.places(np.tile(row[:, None], 20_000), rng.choice(likely, 20_000), rng)
    place, at = np.concatenate([draw(row) for row in told]), np.linspace(0, 1, 7)
    shares = (place[:, None] <= at).mean(0)
    # Four standard deviations of a share of 80 000.
    np.testing.assert_allclose(honest_draws.place_cdf(samples, likely, at), shares, atol=4 * 0.5 / np.sqrt(80_000))


@pytest.mark.parametrize("likely", [LIKELY, CONTINUOUS])
def test_honest_draws_are_found_to_be_and_others_are_not(likely):
    rng = np.random.default_rng(1)
    honest = honest_draws.of_odds(rng.choice(likely, (60, 6)), likely)
    assert honest["num_samples"] == 360 and honest["p"] > 0.01
    deviation = np.abs(np.array(honest["coverage"]) - honest["levels"])
    assert (deviation < 2 * np.array(honest["limit"])).all()
    sure = honest_draws.of_odds(
        np.repeat(rng.choice(likely, (60, 1)), 6, axis=1), likely
    )  # all samples of a scene alike
    biased = honest_draws.of_odds(np.sort(rng.choice(likely, (60, 12)), axis=1)[:, :6], likely)
    for other in (sure, biased):
        assert other["p"] == 1 / (1 + honest_draws.REPEATS)
        assert np.abs(other["coverage"][0] - 0.5) > 2 * other["limit"][0] or other is biased
    assert biased["ranks"][-1] > 0.12  # truths above all samples


def box_views():
    """Two boxes whose hidden colours are 0 and 2, in the place of a data set, and their views from behind."""
    poses = toy_scenes.orbit_pose(np.array([np.pi, 0.0]))
    intrinsics = np.tile(toy_scenes.intrinsics(), (2, 1, 1))
    boxes = [{**BOX, "hidden": k} for k in (0, 2)]
    scenes = [types.SimpleNamespace(attributes=b, camera_to_world=poses, intrinsics=intrinsics) for b in boxes]
    data = types.SimpleNamespace(scene=lambda i: scenes[i])
    return data, [(i, ViewIndices(np.array([1]), np.array([0]))) for i in range(2)], poses[0], intrinsics[0]


def test_attributes_are_read_off_samples_in_their_order():
    data, views, pose, intrinsics = box_views()
    shown = [0, 1, 2, 2, 1, 0]  # of scene 0, of scene 1, and so on
    images = np.stack([toy_scenes.render_view({**BOX, "hidden": k}, pose, intrinsics, 24)[0] for k in shown])
    drawn = calibration.read_samples(TOY, data, views, images)
    assert drawn[COLOUR].tolist() == [[0, 2, 1], [1, 2, 0]]
    truth = calibration.true_values(TOY, data, views)
    assert truth[COLOUR].tolist() == [0, 2]
    records = calibration.attributes_of(TOY, {0: drawn, 3: drawn}, truth)[COLOUR]
    assert list(records) == ["0", "3", "all"] and records["all"]["counts"] == [4, 4, 4]
    assert records["0"]["total_variation"] == pytest.approx(0.5 - 1 / 3)
    assert records["0"]["of_truths"]["count"] == 2 and records["all"]["of_odds"]["num_samples"] == 12
    text = calibration.table({"num_samples": 6, "num_scenes": 2, "attributes": {COLOUR: records}})
    first = [line.split()[0] for line in text.splitlines() if line]
    assert first == ["6", "hidden", "truths", "seed", "honest", "seed", "honest", "all", "honest"]


def test_a_view_that_does_not_tell_has_no_attribute():
    data, _, _, intrinsics = box_views()
    front = data.scene(0).camera_to_world[1]
    image = toy_scenes.render_view(BOX, front, intrinsics, 24)[0]
    assert np.isnan(TOY.read(BOX, front[None, :3], intrinsics[None], image[None, None]).scalars[COLOUR]).all()


def test_evaluation_sets_scalars_against_their_odds():
    rng = np.random.default_rng(0)
    scalars = lambda: {COLOUR: [None, *rng.choice(LIKELY, 5).tolist()]}
    scenes = [made_scores([[1.0]] * 6, places={COLOUR: 0.5}, scalars=scalars()) for _ in range(20)]
    assert "of_odds" not in summary.calibration_of_scalars(scenes)[COLOUR]
    found = summary.calibration_of_scalars(scenes, TOY.likely)[COLOUR]
    assert found["count"] == 20 and found["of_odds"]["num_samples"] == 100


@pytest.mark.parametrize("text", ["", "1,1", "-1", "a", "0,,1"])
def test_seeds_that_are_none_are_one_clear_error(text):
    with pytest.raises(UserError, match="different whole numbers from 0"):
        calibration.parse_seeds(text)
