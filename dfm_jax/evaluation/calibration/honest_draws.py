"""What exact draws from the posterior would score: every number of calibration is noisy, and says little without it.

Where the odds of a hidden attribute are known, the truth of a scene is only one of the values that it might have had.
`of_odds` sets the samples against all of them, so that what is left of the noise is that of the samples; how much that
is, the same number of draws of the odds themselves tells, simulated. `ranks` are the same for the one truth.

Letters: `m` scenes, `n` samples of each, `r` equally likely values of the posterior, `k` kinds of a discrete attribute.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dfm_jax.evaluation.uncertainty import BINS, LEVELS, coverage, rank_histogram

REPEATS = 400  # simulated experiments
SHARE = 0.95  # of them that stay below a limit


def ranks(place: Float[np.ndarray, "m"]) -> dict[str, Any]:
    """How the truths rank among their samples (`uncertainty.places`): `count` scenes, the rank `histogram` and the
    probability `p` of its chi-square, the shares `coverage` of truths in central intervals of `levels`, and what these
    `spread` by (a standard deviation) among as many honest ones."""
    histogram, p = rank_histogram(place)
    return {
        "count": len(place),
        "histogram": histogram,
        "p": p,
        "levels": list(LEVELS),
        "coverage": coverage(place),
        "spread": [math.sqrt(level * (1 - level) / len(place)) for level in LEVELS],
    }


def of_odds(samples: Float[np.ndarray, "m n"], likely: Float[np.ndarray, "r"], seed: int = 0) -> dict[str, Any]:
    """The same of all truths that the odds allow, with the spread of honest draws beside it, simulated.

    Args:
      samples: one number of each; NaN where a sample does not tell.
      likely: values that are equally likely in the posterior: each as often as the odds say, or the quantiles.

    Returns:
      `num_samples` that tell; `coverage` of `levels`; of honest draws, whose mean is the level, the standard deviation
      `spread`, and the `limit` that 95 % of them deviate less than; the `ranks` of the truths, shares in bins of equal
      size, and `p`, the share of honest experiments whose ranks are at least as uneven.
    """
    covered, histogram, unevenness = _statistics(samples, likely)
    rng, known = np.random.default_rng(seed), np.isfinite(samples)
    draws = [_statistics(np.where(known, rng.choice(likely, samples.shape), np.nan), likely) for _ in range(REPEATS)]
    honest = np.array([each[0] for each in draws])
    as_uneven = sum(each[2] >= unevenness for each in draws)
    return {
        "num_samples": int(known.sum()),
        "levels": list(LEVELS),
        "coverage": covered.tolist(),
        "spread": honest.std(0).tolist(),
        "limit": np.quantile(np.abs(honest - LEVELS), SHARE, axis=0).tolist(),
        "ranks": histogram.tolist(),
        "p": (1 + as_uneven) / (1 + REPEATS),
    }


def _statistics(samples: np.ndarray, likely: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Coverage of LEVELS, shares of BINS, and how uneven these are."""
    levels = np.array(LEVELS)
    inside = place_cdf(samples, likely, 0.5 + levels / 2) - place_cdf(samples, likely, 0.5 - levels / 2)
    histogram = np.diff(place_cdf(samples, likely, np.linspace(0, 1, BINS + 1)))
    return inside, histogram, float(BINS * np.sum((histogram - 1 / BINS) ** 2))


def place_cdf(
    samples: Float[np.ndarray, "m n"], truths: Float[np.ndarray, "r"], at: Float[np.ndarray, "e"]
) -> Float[np.ndarray, "e"]:
    """Probability that the place of a truth among the samples of a scene, ties broken at random, is at most `at`:
    averaged over scenes that have a sample, and over truths."""
    samples = samples[np.isfinite(samples).any(1)]
    values, times = np.unique(truths, return_counts=True)
    below = (samples[:, :, None] < values).sum(1)  # NaN is neither below nor tied
    ties = (samples[:, :, None] == values).sum(1)
    count = np.isfinite(samples).sum(1)[:, None] + 1
    inside = (at * count[..., None] - below[..., None]) / (ties + 1)[..., None]
    return np.average(np.clip(inside, 0, 1).mean(0), axis=0, weights=times)


def expected_total_variation(count: int, probabilities: Sequence[float]) -> float:
    """What `count` samples of the true odds differ from them by on average, each count approximately normal."""
    return 0.5 * sum(math.sqrt(2 * p * (1 - p) / (math.pi * count)) for p in probabilities)


def total_variation_limit(count: int, probabilities: Sequence[float], share: float = SHARE) -> float:
    """The total variation to the true odds that this share of experiments stays below, each of `count` samples of
    these odds."""
    draws = np.random.default_rng(0).multinomial(count, probabilities, size=20_000) / count
    return float(np.quantile(0.5 * np.abs(draws - np.asarray(probabilities)).sum(1), share))


def of_groups(counts: Int[np.ndarray, "m k"], odds: Float[np.ndarray, "m k"], seed: int = 0) -> dict[str, float]:
    """How far samples of scenes that have odds of their own each are from these, with that of as many honest draws.

    Args:
      counts: samples of each scene that have each value.

    Returns:
      `total_variation` of all samples together to the odds they should have together, what it is on average
      `of_honest_draws`, the `limit` that 95 % of these stay below, and `p`, the share of honest experiments at least as
      far off by chi-square; `each`, the mean of the scenes' total variations, and `each_of_honest_draws`.
    """
    told = counts.sum(1) > 0
    counts, odds = counts[told], np.asarray(odds, np.float64)[told]
    odds, numbers = odds / odds.sum(1, keepdims=True), counts.sum(1)
    draws = np.random.default_rng(seed).multinomial(numbers, odds, (REPEATS, len(odds)))
    expected = (numbers[:, None] * odds).sum(0)

    def distances(drawn: np.ndarray) -> tuple:
        """Of experiments [..., m, k]: of all together, chi-square, and of each scene on average."""
        off = drawn.sum(-2) - expected
        chi_square = np.sum(off**2 / np.maximum(expected, 1e-9), axis=-1)
        each = 0.5 * np.abs(drawn / numbers[:, None] - odds).sum(-1).mean(-1)
        return 0.5 * np.abs(off).sum(-1) / numbers.sum(), chi_square, each

    (together, unevenness, each), honest = distances(counts), distances(draws)
    return {
        "total_variation": float(together),
        "of_honest_draws": float(honest[0].mean()),
        "limit": float(np.quantile(honest[0], SHARE)),
        "p": float((1 + (honest[1] >= unevenness - 1e-9).sum()) / (1 + REPEATS)),
        "each": float(each),
        "each_of_honest_draws": float(honest[2].mean()),
    }
