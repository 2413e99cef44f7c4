"""What is known of a model's signals is measured, and what can be looked at is shown: here the linear model, told more.

`tests/test_linear_forward_model.py` has the scores of posteriors in closed form.
"""

import math
from typing import Any, ClassVar

import numpy as np

from dfm_jax.commands.signals import picture_signals, signal_scores
from dfm_jax.evaluation.signal_scores import observation_scores, odds_scores
from dfm_jax.forward_models.linear import LinearModel
from dfm_jax.forward_models.protocol import DiscretePosterior, MeasuredSignals, Params, PicturedSignals
from dfm_jax.pages.signals_page import write_page
from dfm_jax.visualization.observations import observation_sheet


class SignedModel(LinearModel):
    """Which sign the first number of the signal has is open, with odds that differ between contexts."""

    attribute: ClassVar[str] = "sign"
    values: ClassVar[tuple[str, ...]] = ("negative", "positive")

    def value_odds(self, example: Any) -> np.ndarray:
        mean, covariance = self.posterior(example)
        deviations = mean[:, 0] / np.sqrt(covariance[:, 0, 0])
        positive = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in deviations])
        return np.stack([1 - positive, positive], axis=1)

    def read_values(self, params: Params, example: Any, signal: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(signal[..., 0]), signal[..., 0] > 0, -1)

    def signal_errors(self, params: Params, example: Any, signal: np.ndarray) -> dict[str, np.ndarray]:
        return {"size": np.abs(signal).sum(-1)}

    def estimated_signal(self, params: Params, example: Any) -> np.ndarray:
        return np.full((len(example.index), 3), np.nan)  # which is recognised as neither

    def pictures(self, params: Params, example: Any, signal: np.ndarray) -> dict[str, np.ndarray]:
        still = np.broadcast_to(np.clip(signal, 0, 1)[:, :, None, None], (*signal.shape[:2], 8, 8, 3))
        return {"the <truth>": still[:, :1], "moving": np.stack([still, 1 - still], axis=2)}


MODEL = SignedModel(1000)
EXAMPLE = MODEL.generate(0, np.arange(12), held_out=True)
ESTIMATE = MODEL.estimated_signal({}, EXAMPLE)[:, None]


def exact_samples(count: int) -> np.ndarray:
    mean, covariance = MODEL.posterior(EXAMPLE)
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(3))
    return mean[:, None] + np.random.default_rng(1).normal(size=(len(mean), count, 3)) @ np.moveaxis(root, 1, 2)


def test_exact_samples_have_the_odds_and_others_have_not():
    assert isinstance(MODEL, DiscretePosterior) and isinstance(MODEL, MeasuredSignals)
    signal = exact_samples(100)
    scores = signal_scores(MODEL, {}, EXAMPLE, signal, ESTIMATE)
    assert scores["mode_purity"] == 1 and scores["num_values_read"] == 1200 and scores["odds_p"] > 0.01
    assert scores["total_variation"] < scores["total_variation_limit"] < 0.05
    of_each = scores["total_variation_of_each"] / scores["total_variation_of_each_of_honest_draws"]
    assert 0.3 < of_each < 1.8  # each is a mean of twelve half-normal numbers
    mean_odds = MODEL.value_odds(EXAMPLE).mean(0)
    np.testing.assert_allclose(list(scores["sign"]["odds"].values()), mean_odds)
    shifted = signal_scores(MODEL, {}, EXAMPLE, signal + 0.3, ESTIMATE)
    assert shifted["total_variation"] > 3 * shifted["total_variation_limit"] and shifted["odds_p"] < 0.01
    # The same shares of all samples together, in the wrong scenes: only each by itself tells.
    others = np.argsort(np.argsort(-MODEL.value_odds(EXAMPLE)[:, 1]))
    swapped = signal_scores(MODEL, {}, EXAMPLE, signal[others], ESTIMATE)
    assert swapped["total_variation_of_each"] > 2 * swapped["total_variation_of_each_of_honest_draws"]
    assert scores["size_best"] < scores["size"]
    assert scores["mode_purity_of_estimate"] == 0 and np.isnan(scores["size_of_estimate"])


def test_samples_without_a_value_count_as_impure_alone():
    odds = np.tile([[0.25, 0.75]], (2, 1))
    found = np.array([[0, 1, 1, 1, -1], [0, 1, 1, 1, 1]])
    scores = odds_scores(found, odds, "side", ("left", "right"))
    assert scores["mode_purity"] == 0.9 and scores["num_values_read"] == 9
    np.testing.assert_allclose(scores["total_variation"], abs(2 / 9 - 0.25))
    assert "total_variation_of_each" not in scores  # all contexts have the same odds
    nothing = odds_scores(np.full((2, 5), -1), odds, "side", ("left", "right"))
    assert nothing["mode_purity"] == 0 and nothing["total_variation"] is None


def test_pages_show_pictures_and_loop_videos(tmp_path):
    assert isinstance(MODEL, PicturedSignals) and picture_signals(LinearModel(1000), {}, EXAMPLE, None, None) == {}
    signal = exact_samples(10)
    pictured = picture_signals(MODEL, {}, EXAMPLE, signal, ESTIMATE)
    assert {name: x.shape for name, x in pictured.items()} == {
        "the <truth>": (8, 1, 8, 8, 3),
        "moving": (8, 6, 2, 8, 8, 3),
        "moving: one estimate": (8, 1, 2, 8, 8, 3),
    }
    alone = picture_signals(MODEL, {}, EXAMPLE, signal[:, :1], ESTIMATE)  # one sample is no picture of the example
    assert {name: x.shape[1] for name, x in alone.items()} == dict.fromkeys(pictured, 1)
    shown = {name: x[:1, :2] for name, x in list(pictured.items())[:2]}
    write_page(tmp_path, "Samples", {"sign": {"shares": {"a": 0.2}, "odds": {"a": 0.25}}}, "samples.png", shown)
    page = (tmp_path / "index.html").read_text()
    assert "20.0 %" in page and "25.0 %" in page and "the &lt;truth&gt;" in page
    assert page.count("<video autoplay loop muted") == 2
    written = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert written == ["00_0_0.png", "00_1_0.mp4", "00_1_1.mp4"] and all(f"pictures/{name}" in page for name in written)


def test_images_have_a_peak_signal_to_noise_ratio():
    truth = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 4, 4, 3))
    samples = truth[:, None] + np.array([0.2, 0.02]).reshape(1, 2, 1, 1, 1)
    scores = observation_scores(samples, truth)  # off by 0.1 and 0.01 in [0, 1]: 20 dB and 40 dB
    np.testing.assert_allclose([scores["psnr"], scores["psnr_best"]], [30, 40])


def test_grey_observations_are_shown_as_images():
    rng = np.random.default_rng(0)
    x0, truth = rng.uniform(-1, 1, (2, 3, 8, 8, 1)), rng.uniform(-1, 1, (2, 8, 8, 1))
    in_colour = [x.repeat(3, axis=-1) for x in (x0, truth)]
    np.testing.assert_array_equal(observation_sheet(x0, truth), observation_sheet(*in_colour))
