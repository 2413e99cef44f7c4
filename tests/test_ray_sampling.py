"""Where samples fall: evenly, or where the weights are."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfm_jax.rendering.ray_sampling import coarse_distances, deterministic_uniforms, importance_distances
from tests.tiny import jit

importance = jit(importance_distances)


def reference(d: np.ndarray, w: np.ndarray, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse transform sampling of one ray, step by step as the published model does it; and the masses of the bins
    that the samples fall into."""
    bins = (d[1:] + d[:-1]) / 2
    mass = w[1:-1] + 1e-5
    cdf = np.concatenate([[0.0], np.cumsum(mass / mass.sum())])
    samples, masses = [], []
    for value in u:
        index = np.searchsorted(cdf, value, side="left")
        below, above = max(index - 1, 0), min(index, len(bins) - 1)
        width = cdf[above] - cdf[below]
        fraction = (value - cdf[below]) / (width if width >= 1e-5 else 1.0)
        samples.append(bins[below] + fraction * (bins[above] - bins[below]))
        masses.append(width)
    return np.array(samples), np.array(masses)


def test_coarse_distances_are_even_and_reach_both_ends_of_every_ray():
    near, far = jnp.array([0.5, 1.0]), jnp.array([4.0, 40.0])
    d = coarse_distances(near, far, 9)
    for i in range(2):
        np.testing.assert_allclose(d[i], np.linspace(near[i], far[i], 9), rtol=1e-6)


def test_deterministic_uniforms_are_the_centres_of_equal_parts():
    np.testing.assert_allclose(deterministic_uniforms(4), [1 / 8, 3 / 8, 5 / 8, 7 / 8])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 1e-3, 30.0]))
def test_importance_distances_equal_the_plain_algorithm(seed, peakedness):
    rng = np.random.default_rng(seed)
    d = np.sort(rng.uniform(0.5, 5, (3, 9)), axis=-1)
    w = rng.dirichlet(np.full(9, 1 / peakedness), 3)
    u = rng.uniform(size=(3, 8))
    ours = importance(*(jnp.asarray(x, jnp.float32) for x in (d, w, u)))
    expected, masses = map(np.stack, zip(*(reference(*ray) for ray in zip(d, w, u, strict=True)), strict=True))
    wide = masses > 1e-3
    # A float32 cdf differs from a float64 one by up to 3e-7. In a bin that has nothing but the padding's 1e-5, that
    # decides whether the sample stays at its begin; of a bin with a mass of 1e-3 it is less than a thousandth.
    np.testing.assert_allclose(np.asarray(ours)[wide], expected[wide], atol=5e-3)
    assert np.mean(wide) > 0.9 and np.median(np.abs(ours - expected)) < 1e-5


@pytest.mark.parametrize("spike", [1, 4, 7])
def test_samples_of_a_spike_land_in_the_spike(spike):
    d = jnp.linspace(1.0, 5.0, 9)[None]
    w = jnp.zeros((1, 9)).at[0, spike].set(0.9)
    fine = importance(d, w, deterministic_uniforms(64)[None])
    assert bool(np.all(np.abs(fine - d[0, spike]) <= 0.25 + 1e-5))


def test_samples_stay_within_the_bins_and_keep_the_order_of_the_uniforms():
    rng = np.random.default_rng(0)
    d = jnp.asarray(np.sort(rng.uniform(1, 5, (20, 9)), axis=-1), jnp.float32)
    w = jnp.asarray(rng.uniform(size=(20, 9)), jnp.float32)
    u = jnp.asarray(np.concatenate([[0.0], np.sort(rng.uniform(size=14)), [1.0]]), jnp.float32)
    fine = importance(d, w, jnp.tile(u, (20, 1)))
    assert bool(np.all(np.diff(fine, axis=-1) >= 0))
    np.testing.assert_allclose(fine[:, 0], (d[:, 0] + d[:, 1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(fine[:, -1], (d[:, -2] + d[:, -1]) / 2, rtol=1e-5)


def test_the_share_of_samples_in_a_bin_is_its_weight():
    d = jnp.linspace(0.0, 6.0, 7)[None]
    w = np.array([0.0, 0.1, 0.4, 0.0, 0.2, 0.3, 0.0])
    fine = importance(d, jnp.asarray(w, jnp.float32)[None], deterministic_uniforms(1000)[None])
    counts, _ = np.histogram(fine, bins=np.linspace(0.5, 5.5, 6))
    # Two samples of 1000 may fall on either side of a bin's ends.
    np.testing.assert_allclose(counts / 1000, w[1:-1], atol=2e-3)


def test_a_ray_that_hits_nothing_is_sampled_evenly():
    d = jnp.linspace(0.0, 6.0, 7)[None]
    fine = importance(d, jnp.zeros((1, 7)), deterministic_uniforms(10)[None])
    # A float32 cdf of bins that have only the padding's mass.
    np.testing.assert_allclose(fine[0], 0.5 + 5 * (np.arange(10) + 0.5) / 10, rtol=1e-4)
