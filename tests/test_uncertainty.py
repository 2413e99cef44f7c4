"""Best of N, sparsification, ranks and intervals, Chamfer distance: against closed forms and brute force."""

import itertools
import re

import numpy as np
import pytest

from dfm_jax.evaluation import summary, surfaces, uncertainty
from dfm_jax.evaluation.best_of import expected_best
from dfm_jax.evaluation.spread import spread_scores
from dfm_jax.pages import uncertainty_section
from tests.test_scores import made_scores


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
@pytest.mark.parametrize("more_is_better", [True, False])
def test_the_best_of_n_is_the_mean_over_all_choices_of_n(count, more_is_better):
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0]
    best = max if more_is_better else min
    brute = np.mean([best(chosen) for chosen in itertools.combinations(values, count)])
    assert expected_best(values, count, more_is_better=more_is_better) == pytest.approx(brute, rel=1e-12)


def test_more_samples_than_there_are_have_no_best():
    with pytest.raises(ValueError, match="the best of 3 among 2"):
        expected_best([1.0, 2.0], 3, more_is_better=True)


def test_sparsification_has_its_closed_forms():
    """Of errors that are even in [0, 1] the most certain share s has the mean s / 2 if the errors sort them, 1 / 2 if
    nothing does, and 1 - s / 2 if they are sorted the wrong way round."""
    error = (np.arange(2000) + 0.5) / 2000
    ause, aurc = uncertainty.sparsification(error, error)
    assert ause == 0 and aurc == pytest.approx(1 / 4, abs=1e-3)  # of sums over 2000 shares in the place of integrals
    ause, aurc = uncertainty.sparsification(np.zeros_like(error), error)
    # Of sums over 2000 shares instead of integrals, as above.
    assert ause == pytest.approx(1 / 2, abs=2e-3) and aurc == pytest.approx(1 / 2, rel=1e-9)
    ause, aurc = uncertainty.sparsification(-error, error)
    # Likewise.
    assert ause == pytest.approx(1, abs=4e-3) and aurc == pytest.approx(3 / 4, abs=1e-3)
    assert uncertainty.sparsification(error, np.zeros_like(error)) == (None, 0.0)


def test_equal_uncertainties_count_as_the_mean_over_their_orders():
    spread, error = np.array([1.0, 1.0, 0.0, 1.0]), np.array([1.0, 2.0, 3.0, 6.0])
    curves = []
    for order in itertools.permutations([0, 1, 3]):
        curves.append(np.cumsum(error[[2, *order]]) / np.arange(1, 5))
    assert uncertainty.sparsification(spread, error)[1] == pytest.approx(np.mean(curves), rel=1e-12)


def test_places_of_honest_samples_are_uniform_with_and_without_ties():
    """Chi-squares of 20 000 truths in 10 bins: p below 1e-4 once in 10 000 tries; the seed is fixed."""
    rng = np.random.default_rng(0)
    for draw in (rng.normal, lambda size: rng.integers(0, 3, size=size)):
        values = draw(size=(8, 20_000)).astype(float)
        place = uncertainty.places(values[1:], values[0], rng)
        counts, p = uncertainty.rank_histogram(place)
        assert sum(counts) == 20_000 and len(counts) == uncertainty.BINS and p > 1e-4
        # Four standard deviations of a share of 20 000.
        np.testing.assert_allclose(uncertainty.coverage(place), uncertainty.LEVELS, atol=4 * 0.5 / np.sqrt(20_000))


def test_samples_that_are_too_sure_are_found_out():
    """With samples of standard deviation 1 / 2, the central half of them holds the truth with probability 0.264."""
    rng = np.random.default_rng(0)
    place = uncertainty.places(0.5 * rng.normal(size=(400, 4000)), rng.normal(size=4000), rng)
    assert uncertainty.rank_histogram(place)[1] < 1e-12
    # Four standard deviations of a share of 4000, and the quartiles of 400 samples.
    assert uncertainty.coverage(place)[0] == pytest.approx(0.264, abs=0.03)


def test_too_few_scenes_have_no_chi_square():
    assert uncertainty.rank_histogram(np.linspace(0, 1, 9)) == ([9], None)


def test_the_spread_of_gaussian_samples_says_what_it_should():
    """Pixels whose noise is known to the samples: coverage is nominal, and sorting by spread helps."""
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.02, 0.3, (1, 40, 40, 1))
    truth = 0.5 + scale * rng.normal(size=(1, 40, 40, 3))
    samples = 0.5 + scale * rng.normal(size=(50, 1, 40, 40, 3))
    found = spread_scores(samples, truth, seed=0)
    # 4800 draws of each level: a standard deviation of 0.007.
    np.testing.assert_allclose(found["coverage"], uncertainty.LEVELS, atol=0.03)
    assert 0 < found["ause"] < 0.35 and found["places"].keys() == {"red", "green", "blue"}
    error = np.mean((samples.mean(0) - truth) ** 2)
    assert found["mean_sample_psnr"] == [pytest.approx(-10 * np.log10(error))]
    known = spread_scores(samples, truth, seed=0, scalars={"height": (np.arange(50.0), -1.0)})
    assert known["places"].keys() == {"height"} and known["places"]["height"] < 1 / 51
    assert set(spread_scores(samples[:1], truth, seed=0).values()) == {None}


def test_chamfer_is_that_of_all_pairs():
    x, y = normal(40, 3), normal(50, 3, seed=1)
    pairs = np.linalg.norm(x[:, None] - y, axis=-1)
    assert surfaces.chamfer_distance(x, y) == pytest.approx((pairs.min(0).mean() + pairs.min(1).mean()) / 2)
    assert surfaces.chamfer_distance(x, x) == 0 and surfaces.chamfer_distance(x, y[:0]) is None


def test_scalars_are_pooled_over_scenes_and_shown():
    rng = np.random.default_rng(0)
    scenes = [made_scores([[1.0]] * 6, places={"height": float(rng.uniform())}) for _ in range(60)]
    scenes += [made_scores([[1.0]] * 6, places={})]
    ((name, found),) = summary.calibration_of_scalars(scenes).items()
    assert name == "height" and found["count"] == sum(found["histogram"]) == 60 and found["p"] > 1e-3
    result = {"settings": {"num_samples": 6}, "deterministic": False, "scalars": {name: found}}
    page = uncertainty_section.section(result | summary.summarise(scenes))
    assert page.count("<rect") == len(found["histogram"]) and f"<title>{' '.join(map(str, found['histogram']))}" in page
    assert ("no deviation found" in page or "within 3%" in page) and "<th>5</th>" in page and "<th>10</th>" not in page
    assert uncertainty_section.section(result | {"deterministic": True}) == ""


def test_bins_of_a_histogram_are_as_high_as_their_shares():
    drawn = re.findall(r'height="([\d.]+)"/>', uncertainty_section._bars([3, 1, 0, 0]))
    assert [float(height) / uncertainty_section.EVEN for height in drawn] == [2, 1, 0, 0]  # 3 is cut off at twice even
    assert uncertainty_section._bars([7]) == "7"


@pytest.mark.parametrize(
    ("p", "coverage", "said"),
    [(0.5, 0.52, "within 3%"), (0.5, 0.54, "no deviation found"), (1e-4, 0.5, "not calibrated")],
)
def test_the_page_says_whether_an_attribute_is_calibrated(p, coverage, said):
    verdict = uncertainty_section._verdict({"p": p, "coverage": [coverage], "levels": [0.5]})
    assert said in verdict and ("within" in verdict) == ("within" in said)


def test_a_mean_over_scenes_of_the_best_of_n():
    scenes = [made_scores([[float(i + j)] for i in range(5)]) for j in (0, 10)]
    numbers = summary.summarise(scenes)
    assert numbers["psnr_best_of_5"] == numbers["psnr_best"]
    assert numbers["psnr_best_of_1"] == pytest.approx(numbers["psnr"])
    assert "psnr_best_of_10" not in numbers
