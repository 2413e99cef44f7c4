"""How good samples of any forward model are, in numbers. Pure numpy.

Letters: `s` example, `n` sample of it, `d` numbers of a signal; `...` the shape of an observation.
"""

import numpy as np
from jaxtyping import Float


def observation_scores(x0: Float[np.ndarray, "s n ..."], truth: Float[np.ndarray, "s ..."]) -> dict[str, float]:
    """Of the sampled targets against the true ones, in diffusion's range.

    `target_error`: root mean square error of the samples' mean. `spread`: standard deviation of the samples, averaged
    in square. `calibration_error`: among samples of the true posterior the truth has every rank with the same
    probability; this is the largest difference of the distribution of its ranks, over all numbers of all targets, to
    that (Kolmogorov-Smirnov).
    With `k` truths, samples of the posterior come to about 0.87 / sqrt(k).
    """
    error = x0.mean(1) - truth
    below = np.mean(x0 < truth[:, None], axis=1).ravel()
    below.sort()
    steps = np.arange(1, below.size + 1) / below.size
    # The empirical distribution jumps at every rank: its distance to the diagonal is largest before or after a jump.
    largest = np.maximum(np.abs(steps - below), np.abs(steps - 1 / below.size - below)).max()
    return {
        "target_error": float(np.sqrt(np.mean(np.square(error)))),
        "spread": float(np.sqrt(np.mean(x0.var(1)))),
        "calibration_error": float(largest),
    }


def posterior_scores(
    signal: Float[np.ndarray, "s n d"], mean: Float[np.ndarray, "s d"], covariance: Float[np.ndarray, "s d d"]
) -> dict[str, float]:
    """Of sampled signals against the moments of the posterior; root mean squares over the examples.

    `mean_error`: distance of the samples' mean to the posterior's, relative to the posterior's standard deviation (root
    of its variance in all directions together). `covariance_error`: Frobenius norm of the difference of the
    covariances, relative to that of the posterior's. Of `n` exact samples the first is `1 / sqrt(n)` on average.
    """
    signal = np.asarray(signal, np.float64)
    centred = signal - signal.mean(1, keepdims=True)
    found = np.einsum("snd,sne->sde", centred, centred) / (signal.shape[1] - 1)
    variance = np.trace(covariance, axis1=1, axis2=2)
    mean_error = np.square(signal.mean(1) - mean).sum(-1) / variance
    norm = lambda x: np.square(x).sum((1, 2))
    covariance_error = norm(found - covariance) / norm(covariance)
    root = lambda x: float(np.sqrt(np.mean(x)))
    return {"mean_error": root(mean_error), "covariance_error": root(covariance_error)}
