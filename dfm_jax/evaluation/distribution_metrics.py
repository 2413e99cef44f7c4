"""How far apart two sets of images are as distributions, from features of a network. Pure numpy.

Notation: `x` [n, d] and `y` [m, d] the features of `n` images (drawn) and `m` others (real); `d` channels.
"""

import numpy as np

# Of the published KID: 100 subsets of 1000.
SUBSETS = 100
SUBSET_SIZE = 1000


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
    """Distance of the normal distributions with the features' means and covariances, `|mu_x - mu_y|^2 + tr(C_x + C_y -
    2 (C_x C_y)^(1/2))` (Heusel et al. 2017, arXiv 1706.08500); FID, if the features are Inception's.

    With `C = A^T A`, for `A` the centred features over `sqrt(n - 1)`, the trace of the root is the sum of the singular
    values of `A_x A_y^T`: no root of a matrix that may be singular is taken, so that few images are no trouble (the
    distance is then large for equal distributions, too).

    Raises:
      ValueError: there are fewer than two images on a side, or the numbers of channels differ.
    """
    x, y = _features(x, y)
    root_x, root_y = (_root_of_covariance(z) for z in (x, y))
    cross = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    means = np.square(x.mean(0) - y.mean(0)).sum()
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
    x, y = _features(x, y)
    if max(len(x), len(y)) <= subset_size:
        return _discrepancy(x, y), 0.0
    rng = np.random.default_rng(seed)
    draw = lambda z: z[rng.choice(len(z), min(len(z), subset_size), replace=False)]
    values = [_discrepancy(draw(x), draw(y)) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _features(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features must be two or more vectors of one length on each side, not {x.shape}, {y.shape}")
    return x, y


def _root_of_covariance(x: np.ndarray) -> np.ndarray:
    """A matrix [min(n, d), d] whose product with itself, `R^T R`, is the covariance."""
    return np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1), mode="r")


def _discrepancy(x: np.ndarray, y: np.ndarray) -> float:
    kernel = lambda u, v: (u @ v.T / u.shape[1] + 1) ** 3
    within = sum((k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (kernel(x, x), kernel(y, y)))
    return float(within - 2 * kernel(x, y).mean())
