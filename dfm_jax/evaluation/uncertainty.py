"""Whether samples know how far off they are: sparsification, ranks of the truth, coverage of intervals. Pure numpy.

Letters: `n` samples, `p` numbers that are compared (pixels and colours, or one of each scene).

Among honest samples the truth is one of `n + 1` equals: its rank, with ties broken at random, is uniform (simulation-
based calibration, Talts et al. 2018, arXiv 1804.06788). `places` spreads each rank evenly over its share of [0, 1], so
that honest places are uniform there, for any number of samples.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVELS = (0.5, 0.8, 0.95)  # of central intervals
BINS, FEWEST = 10, 5  # of a rank histogram: at most so many bins, and so many scenes expected in each


def sparsification(
    uncertainty: Float[np.ndarray, "p"], error: Float[np.ndarray, "p"]
) -> tuple[float | None, float | None]:
    """AUSE and AURC of an uncertainty that says which errors are large.

    The curve is the mean error of the most certain share of the numbers, over all shares in (0, 1]. AURC, the area
    under it, is in units of the error (Geifman et al. 2018, risk over coverage). AUSE is the area between it and the
    curve of an oracle that sorts by the error itself, relative to the mean error (Ilg et al. 2018): 0 where the two
    order alike. Of numbers that are equally uncertain, any may come first: the curve is the mean over all orders.

    Returns:
      AUSE, None where there is no error at all; and AURC.
    """
    curve, oracle = _curve(uncertainty, error), _curve(error, error)
    mean = float(np.mean(error, dtype=np.float64))
    return (float(np.mean(curve - oracle)) / mean if mean > 0 else None), float(np.mean(curve))


def _curve(uncertainty: np.ndarray, error: np.ndarray) -> np.ndarray:
    """[p] mean error of the k most certain, for all k."""
    _, group, sizes = np.unique(uncertainty, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=error.astype(np.float64)) / sizes
    return np.cumsum(np.repeat(means, sizes)) / np.arange(1, len(error) + 1)


def places(
    samples: Float[np.ndarray, "n *p"], truth: Float[np.ndarray, "*p"], rng: np.random.Generator
) -> Float[np.ndarray, "*p"]:
    """Where the truth lies among its samples, in [0, 1]."""
    below, ties = (samples < truth).sum(0), (samples == truth).sum(0)
    return (below + rng.uniform(size=below.shape) * (ties + 1)) / (len(samples) + 1)


def coverage(place: Float[np.ndarray, "p"]) -> list[float]:
    """Shares of the truths that lie in the central interval of each of `LEVELS`; honest samples have these."""
    return [float(np.mean(np.abs(place - 0.5) <= level / 2)) for level in LEVELS]


def rank_histogram(place: Float[np.ndarray, "p"]) -> tuple[list[int], float | None]:
    """How many of independent places lie in each of some bins of equal size, and the probability of a chi-square at
    least as large among uniform ones; None where there are too few for two bins."""
    bins = min(BINS, len(place) // FEWEST)
    if bins < 2:
        return [len(place)], None
    counts = np.histogram(place, bins=bins, range=(0.0, 1.0))[0]
    return counts.tolist(), float(stats.chisquare(counts).pvalue)
