"""Quadrature along a ray against a plain loop, and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfm_jax.rendering.compositing import add_background, composite, sample_lengths, volume_weights
from tests.tiny import jit

weights = jit(volume_weights)
weight_gradient = jit(jax.grad(lambda sigma, d, c: jnp.sum(volume_weights(sigma, d) * c)))


def loop_weights(sigma: np.ndarray, d: np.ndarray) -> np.ndarray:
    """Weights of one ray in float64: light that is left, times what this sample takes of it."""
    left, found = 1.0, []
    for i, density in enumerate(sigma):
        length = d[i + 1] - d[i] if i + 1 < len(d) else d[i] - d[i - 1]
        alpha = 1 - np.exp(-density * length)
        found.append(left * alpha)
        left *= 1 - alpha
    return np.array(found)


def random_rays(seed: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return scale * rng.exponential(size=(4, 8)), np.sort(rng.uniform(0.5, 10, (4, 8)), axis=-1)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.1, 1.0, 100.0, 1e9]))
def test_weights_equal_a_loop_and_are_a_part_of_one(seed, scale):
    sigma, d = random_rays(seed, scale)
    w = weights(jnp.asarray(sigma, jnp.float32), jnp.asarray(d, jnp.float32))
    np.testing.assert_allclose(w, np.stack([loop_weights(*ray) for ray in zip(sigma, d, strict=True)]), atol=1e-5)
    assert bool(np.all(w >= 0))
    assert bool(np.all(np.sum(w, axis=-1) <= 1 + 1e-6))


def test_what_is_taken_and_what_is_left_make_one():
    sigma, d = random_rays(0, 0.1)
    w = weights(jnp.asarray(sigma, jnp.float32), jnp.asarray(d, jnp.float32))
    lengths = np.concatenate([np.diff(d), np.diff(d)[:, -1:]], axis=-1)
    # What is left may be a thousandth: 1 minus a float32 sum has three digits fewer.
    np.testing.assert_allclose(1 - np.sum(w, axis=-1), np.exp(-np.sum(sigma * lengths, axis=-1)), rtol=1e-4)


def test_a_wall_does_not_bring_back_light_that_was_taken_before_it():
    d = jnp.arange(4.0)[None]
    w = weights(jnp.array([[0.0, 1.0, 1e12, 5.0]]), d)
    np.testing.assert_allclose(w[0], [0, 1 - np.exp(-1), np.exp(-1), 0], atol=1e-6)


@pytest.mark.parametrize("density", [0.0, 1e-30, 1e10, 1e30])
def test_gradients_are_finite_at_absurd_densities(density):
    sigma = jnp.array([[0.5, density, 0.0, density, 2.0, density, density, 1.0]])
    d = jnp.linspace(0.5, 10.0, 8)[None]
    assert bool(np.all(np.isfinite(weights(sigma, d))))
    assert bool(np.all(np.isfinite(weight_gradient(sigma, d, jnp.arange(8.0)[None]))))


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_weights_know_no_unit_of_length(scale):
    sigma, d = (jnp.asarray(x, jnp.float32) for x in random_rays(1, 0.5))
    np.testing.assert_allclose(weights(sigma / scale, d * scale), weights(sigma, d), atol=1e-5)


def test_the_last_length_repeats_the_one_before():
    np.testing.assert_allclose(sample_lengths(jnp.array([1.0, 2.0, 4.0, 7.0])), [1, 2, 3, 3])


def test_composite_is_the_weighted_sum():
    rng = np.random.default_rng(0)
    w, values = rng.uniform(size=(3, 5)), rng.normal(size=(3, 5, 2))
    ours = composite(jnp.asarray(w, jnp.float32), jnp.asarray(values, jnp.float32))
    np.testing.assert_allclose(ours, np.einsum("rs,rsc->rc", w, values), rtol=1e-5, atol=1e-6)


def test_background_only_fills_what_is_transparent():
    rgb = jnp.array([[0.2, 0.4, 0.6]] * 3) * jnp.array([[1.0], [0.25], [0.0]])
    w = jnp.array([[0.5, 0.5], [0.25, 0.0], [0.0, 0.0]])
    filled = add_background(rgb, w, 0.8)
    np.testing.assert_allclose(filled[0], rgb[0], atol=1e-6)
    np.testing.assert_allclose(filled[1], rgb[1] + 0.75 * 0.8, rtol=1e-6)
    np.testing.assert_allclose(filled[2], [0.8] * 3, rtol=1e-6)
    np.testing.assert_array_equal(add_background(rgb, w, 0.0), rgb)
