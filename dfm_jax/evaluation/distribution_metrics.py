"""How far apart two sets of images are as distributions, from features of a network. Pure numpy.

Notation: `x` [n, d] and `y` [m, d] the features of `n` images (drawn) and `m` others (real); `d` channels. They may
be mapped from files of any size (`feature_files`): some rows are read at a time.
"""

from collections.abc import Iterator

import numpy as np

# Of the published KID: 100 subsets of 1000.
SUBSETS = 100
SUBSET_SIZE = 1000
ROWS_AT_ONCE = 4096


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Distance of the normal distributions with the features' means and covariances, `|mu_x - mu_y|^2 + tr(C_x + C_y -
    2 (C_x C_y)^(1/2))` (Heusel et al. 2017, arXiv 1706.08500); FID, if the features are Inception's.

    With `C = A^T A`, for `A` the centred features over `sqrt(n - 1)`, the trace of the root is the sum of the singular
    values of `A_x A_y^T`: no root of a matrix that may be singular is taken, so that few images are no trouble (the
    distance is then large for equal distributions, too).

    Raises:
      ValueError: there are fewer than two images on a side, or the numbers of channels differ.
    """
    _check(x, y)
    (mean_x, root_x), (mean_y, root_y) = (_moments(z) for z in (x, y))
    cross = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    means = np.square(mean_x - mean_y).sum()
    return float(means + np.square(root_x).sum() + np.square(root_y).sum() - 2 * cross)


def kernel_distance(
    x: np.ndarray, y: np.ndarray, *, subsets: int = SUBSETS, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> tuple[float, float]:
    """Squared maximum mean discrepancy with the kernel `(u . v / d + 1)^3`, its unbiased estimate (Binkowski et al.
    2018, arXiv 1801.01401): mean and standard deviation over random subsets; KID, if the features are Inception's.

    Unlike FID it is unbiased for few images, and may be below 0. Where there are no more than `subset_size` images on
    both sides, all are used at once, and the standard deviation is 0.

    Raises:
      ValueError: as `frechet_distance`.
    """
    _check(x, y)
    if max(len(x), len(y)) <= subset_size:
        return _discrepancy(_precise(x), _precise(y)), 0.0
    rng = np.random.default_rng(seed)
    draw = lambda z: _precise(z[rng.choice(len(z), min(len(z), subset_size), replace=False)])
    values = [_discrepancy(draw(x), draw(y)) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _check(x: np.ndarray, y: np.ndarray) -> None:
    if len(x.shape) != 2 or len(y.shape) != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be two or more vectors of one length on each side, not {x.shape}, {y.shape}")


def _precise(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float64)


def _chunks(x: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(x), ROWS_AT_ONCE):
        yield _precise(x[start : start + ROWS_AT_ONCE])


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean, and a matrix [min(n, d), d] whose product with itself, `R^T R`, is the covariance: the triangular one
    of a QR factorisation, whose rows are as good as all that went into it when more come."""
    mean, root = sum(chunk.sum(0) for chunk in _chunks(x)) / len(x), np.empty((0, x.shape[1]))
    for chunk in _chunks(x):
        root = np.linalg.qr(np.concatenate([root, (chunk - mean) / np.sqrt(len(x) - 1)]), mode="r")
    return mean, root


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    kernel = lambda u, v: (u @ v.T / u.shape[1] + 1) ** 3
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y)))
    return float(within - 2 * kernel(x, y).mean())
