"""FID and KID against their textbook formulas on the same features, and their laws."""

import numpy as np
import pytest
import scipy.linalg

from dfm_jax.evaluation.distribution_metrics import frechet_distance, kernel_distance


def features(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Correlated features, non-negative as those of a network behind a relu."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(d, d)) / np.sqrt(d)
    return np.maximum(rng.normal(size=(n, d)) @ mixing + shift, 0)


def frechet_by_matrix_root(x: np.ndarray, y: np.ndarray) -> float:
    covariances = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    means = ((x.mean(0) - y.mean(0)) ** 2).sum()
    return float(means + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root).real)


def kernel_by_loops(x: np.ndarray, y: np.ndarray) -> float:
    kernel = lambda u, v: (np.dot(u, v) / len(u) + 1) ** 3
    n, m = len(x), len(y)
    same_x = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    same_y = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return same_x + same_y - 2 * sum(kernel(u, v) for u in x for v in y) / (n * m)


def test_frechet_distance_equals_the_one_with_a_matrix_root():
    x, y = features(200, 16, 0), features(150, 16, 1, shift=0.3)
    assert frechet_distance(x, y) == pytest.approx(frechet_by_matrix_root(x, y), rel=1e-6)


def test_frechet_distance_with_fewer_images_than_channels():
    x, y = features(20, 64, 0), features(12, 64, 1, shift=0.3)
    # There the product of covariances is singular, and its root as computed above not exact.
    assert frechet_distance(x, y) == pytest.approx(frechet_by_matrix_root(x, y), rel=1e-3)


def test_frechet_distance_of_normal_distributions_of_one_channel_has_a_closed_form():
    x = np.linspace(-1, 1, 101)[:, None]
    spread = x.std(ddof=1)
    assert frechet_distance(x, 3 * x + 2) == pytest.approx(4 + (3 * spread - spread) ** 2)


def test_kernel_distance_equals_loops():
    x, y = features(15, 8, 0), features(12, 8, 1, shift=0.4)
    mean, spread = kernel_distance(x, y)
    assert mean == pytest.approx(kernel_by_loops(x, y), rel=1e-9) and spread == 0


def test_kernel_distance_over_subsets_estimates_that_of_all():
    x, y = features(400, 8, 0), features(300, 8, 1, shift=0.4)
    whole, _ = kernel_distance(x, y)
    mean, spread = kernel_distance(x, y, subsets=60, subset_size=100)
    assert spread > 0 and abs(mean - whole) < 3 * spread / np.sqrt(60)
    assert kernel_distance(x, y, subsets=60, subset_size=100) == (mean, spread)


def test_equal_sets_are_at_distance_0_and_equal_distributions_near_it():
    x = features(500, 8, 0)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert abs(kernel_distance(x, features(500, 8, 1))[0]) < 0.05 * kernel_distance(x, features(500, 8, 1, 0.4))[0]


@pytest.mark.parametrize("shapes", [((1, 4), (5, 4)), ((5, 4), (0, 4)), ((5, 4), (5, 3)), ((5,), (5,))])
def test_too_few_images_are_an_error(shapes):
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(ValueError, match="two or more vectors"):
            distance(*(np.ones(shape) for shape in shapes))
