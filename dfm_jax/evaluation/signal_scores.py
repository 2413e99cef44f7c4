"""How good samples of any forward model are, in numbers. Pure numpy.

Letters: `s` example, `n` sample of it, `d` numbers of a signal, `k` values of a discrete attribute; `...` the shape of
an observation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from dfm_jax.evaluation.calibration import honest_draws
from dfm_jax.evaluation.calibration.reading import UNSEEN
from dfm_jax.evaluation.image_metrics import psnr


def observation_scores(x0: Float[np.ndarray, "s n ..."], truth: Float[np.ndarray, "s ..."]) -> dict[str, float | None]:
    """Of the sampled targets against the true ones, in diffusion's range.

    `target_error`: root mean square error of the samples' mean. `spread`: standard deviation of the samples, averaged
    in square. `calibration_error`: among samples of the true posterior the truth has every rank with the same
    probability; this is the largest difference of the distribution of its ranks, over all numbers of all targets, to
    that (Kolmogorov-Smirnov).
    With `k` truths, samples of the posterior come to about 0.87 / sqrt(k). Of images also `psnr`, in dB, the mean over
    samples, and `psnr_best`, that of the best of each example's. One sample of each has no spread and no ranks: None.
    """
    error, several = x0.mean(1) - truth, x0.shape[1] > 1
    below = np.mean(x0 < truth[:, None], axis=1).ravel()
    below.sort()
    steps = np.arange(1, below.size + 1) / below.size
    # The empirical distribution jumps at every rank: its distance to the diagonal is largest before or after a jump.
    largest = np.maximum(np.abs(steps - below), np.abs(steps - 1 / below.size - below)).max()
    return {
        "target_error": float(np.sqrt(np.mean(np.square(error)))),
        "spread": float(np.sqrt(np.mean(x0.var(1)))) if several else None,
        "calibration_error": float(largest) if several else None,
        **(_image_scores(x0, truth) if truth.ndim == 4 and truth.shape[-1] == 3 else {}),
    }


def _image_scores(x0: Float[np.ndarray, "s n h w 3"], truth: Float[np.ndarray, "s h w 3"]) -> dict[str, float]:
    """In [-1, 1]; what samples have beyond is cut off, as in pictures."""
    image = lambda x: np.clip(0.5 * x + 0.5, 0, 1)
    each = psnr(image(x0), image(truth)[:, None])
    return {"psnr": float(each.mean()), "psnr_best": float(each.max(1).mean())}


def posterior_scores(
    signal: Float[np.ndarray, "s n d"], mean: Float[np.ndarray, "s d"], covariance: Float[np.ndarray, "s d d"]
) -> dict[str, float | None]:
    """Of sampled signals against the moments of the posterior; root mean squares over the examples.

    `mean_error`: distance of the samples' mean to the posterior's, relative to the posterior's standard deviation (root
    of its variance in all directions together). `covariance_error`: Frobenius norm of the difference of the
    covariances, relative to that of the posterior's. Of `n` exact samples the first is `1 / sqrt(n)` on average.
    One sample has no covariance: None.
    """
    signal = np.asarray(signal, np.float64)
    root = lambda x: float(np.sqrt(np.mean(x)))
    variance = np.trace(covariance, axis1=1, axis2=2)
    scores = {"mean_error": root(np.square(signal.mean(1) - mean).sum(-1) / variance), "covariance_error": None}
    if signal.shape[1] > 1:
        centred = signal - signal.mean(1, keepdims=True)
        found = np.einsum("snd,sne->sde", centred, centred) / (signal.shape[1] - 1)
        norm = lambda x: np.square(x).sum((1, 2))
        scores["covariance_error"] = root(norm(found - covariance) / norm(covariance))
    return scores


def odds_scores(
    found: Int[np.ndarray, "s n"], odds: Float[np.ndarray, "s k"], attribute: str, values: Sequence[str]
) -> dict[str, Any]:
    """Of the values of a discrete attribute that sampled signals have, against the odds that their contexts leave.

    `mode_purity`: share of samples in which a value is recognised; the others are left out of what follows, for which
    see `honest_draws.of_groups`. The `..._of_each` are there where odds differ between contexts.

    Args:
      found: numbers of the values, -1 where none is recognised.
    """
    recognised = found != UNSEEN
    scores = {"mode_purity": float(recognised.mean()), "num_values_read": int(recognised.sum())}
    if not recognised.any():
        return scores | {"total_variation": None}
    counts = np.stack([(found == i).sum(1) for i in range(len(values))], axis=1)
    measured = honest_draws.of_groups(counts, odds)
    expected = np.average(odds, axis=0, weights=counts.sum(1))
    named = lambda shares: dict(zip(values, np.asarray(shares, float).tolist(), strict=True))
    scores |= {
        "total_variation": measured["total_variation"],
        "total_variation_of_honest_draws": measured["of_honest_draws"],
        "total_variation_limit": measured["limit"],
        "odds_p": measured["p"],
        attribute: {"shares": named(counts.sum(0) / counts.sum()), "odds": named(expected)},
    }
    if np.ptp(odds, axis=0).max() > 1e-6:
        scores["total_variation_of_each"] = measured["each"]
        scores["total_variation_of_each_of_honest_draws"] = measured["each_of_honest_draws"]
    return scores


def error_scores(errors: Mapping[str, Float[np.ndarray, "s n"]]) -> dict[str, float]:
    """Of errors by name: the mean, and as `<name>_best` that of the best of each example's samples."""
    means = {name: float(each.mean()) for name, each in errors.items()}
    return means | {f"{name}_best": float(each.min(1).mean()) for name, each in errors.items()}
