"""Denoising by rendering, and its guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.denoiser import cache_context, denoise, guided_denoise, predict
from dfm_jax.diffusion.guidance import Guidance
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.forward_models.linear import LinearModel
from tests.tiny import SIZE, UNCHUNKED, assert_trees_close, jit, random_params, tiny_example, tiny_model

MODEL = tiny_model(chunk_size=UNCHUNKED)
SCALE, MOMENTUM, REMEMBERED = 2.5, -0.5, 0.1
KEYS = jax.random.split(jax.random.key(4), 2)
TIMESTEP = jnp.array([200, 900])


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def results(params):
    """The prediction without guidance, without context, and guided; with the same random numbers."""
    example = tiny_example()
    x_t = jnp.asarray(np.random.default_rng(2).normal(size=(2, SIZE, SIZE, 3)), jnp.float32)

    @jit
    def plain(params, example, keys):
        return denoise(params, MODEL, x_t, TIMESTEP, cache_context(params, MODEL, example), keys)

    @jit
    def guided(params, example, keys, scale):
        both = cache_context(params, MODEL, example, guided=True)
        return guided_denoise(params, MODEL, x_t, TIMESTEP, both, Guidance(scale), jnp.zeros_like(x_t), keys)[0]

    return {
        "plain": plain(params, example, KEYS),
        "without": plain(params, MODEL.drop_context(example, jnp.array([True, True])), KEYS),
        "guided": guided(params, example, KEYS, SCALE),
    }


class Noisy(LinearModel):
    """Observes with noise, of its keys."""

    def observe(self, params, signal, query, keys=None):
        exact = super().observe(params, signal, query)
        return exact if keys is None else exact + jax.vmap(lambda key: jax.random.normal(key, exact.shape[1:]))(keys)


@pytest.fixture(scope="module")
def within():
    """The prediction without guidance, without context, and with guidance within an interval of noise levels; what
    this remembers. For guidance all models are alike, and this one compiles quickly."""
    model, rng = Noisy(1000), np.random.default_rng(3)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), model.init(KEYS[0]))
    example = model.generate(0, np.arange(2))
    x_t = jnp.asarray(rng.normal(size=(2, 2)), jnp.float32)
    remembered = jnp.full_like(x_t, REMEMBERED)

    @jit
    def plain(example):
        return denoise(params, model, x_t, TIMESTEP, cache_context(params, model, example), KEYS)

    @jit
    def guided(interval):
        both, guidance = cache_context(params, model, example, guided=True), Guidance(SCALE, momentum=MOMENTUM)
        return guided_denoise(params, model, x_t, TIMESTEP, both, guidance, remembered, KEYS, interval=interval)

    made = {"plain": plain(example), "without": plain(model.drop_context(example, jnp.array([True, True])))}
    averages = {}
    for name, interval in {"first of two": (0, 200), "neither": (300, 700)}.items():
        made[name], averages[name] = guided(interval)
    return made | {"averages": averages}


def test_the_prediction_is_the_rendering_of_the_scene_in_diffusion_range(results):
    plain = results["plain"]
    np.testing.assert_allclose(plain.x0, 2 * plain.observation.rgb.reshape(2, SIZE, SIZE, 3) - 1, atol=1e-6)
    assert bool(np.all(np.abs(plain.x0) <= 1))
    assert plain.signal.views.features.shape[1] == 3


def test_guidance_moves_away_from_the_unconditional_prediction(results):
    conditional, unconditional = results["plain"].x0, results["without"].x0
    assert float(np.max(np.abs(conditional - unconditional))) > 1e-2
    expected = unconditional + SCALE * (conditional - unconditional)
    # Guidance multiplies the branches' rounding by 2.5.
    np.testing.assert_allclose(results["guided"].x0, expected, atol=1e-4)


def test_outside_of_its_interval_there_is_no_guidance(within):
    plain, first = within["plain"], within["first of two"]
    assert_trees_close(within["neither"], plain)
    np.testing.assert_allclose(first.x0[1], plain.x0[1], atol=1e-5)
    step = plain.x0[0] - within["without"].x0[0] + MOMENTUM * REMEMBERED
    # Guidance multiplies the branches' rounding.
    np.testing.assert_allclose(first.x0[0], plain.x0[0] + (SCALE - 1) * step, atol=1e-4)


def test_outside_of_its_interval_guidance_keeps_what_it_remembers(within):
    average = within["averages"]["first of two"]
    difference = within["plain"].x0[0] - within["without"].x0[0]
    np.testing.assert_allclose(average[0], difference + MOMENTUM * REMEMBERED, atol=1e-5)
    np.testing.assert_array_equal(average[1], jnp.full_like(average[1], REMEMBERED))
    np.testing.assert_array_equal(within["averages"]["neither"], jnp.full_like(average, REMEMBERED))


def test_only_x0_is_guided(results):
    assert_trees_close(results["guided"].replace(x0=None), results["plain"].replace(x0=None))


def test_a_training_prediction_pairs_observations_with_their_truth(params):
    schedule, example = cosine_schedule(1000), tiny_example()
    zeros = jnp.zeros((2, SIZE, SIZE, 3))
    run = jit(lambda noise, keys: predict(params, MODEL, schedule, example, jnp.array([0, 999]), noise, keys))
    prediction = run(zeros, KEYS)
    assert prediction.observation.rgb.shape == prediction.truth.shape == (2, 2 * 36, 3)
    assert MODEL.to_x0(prediction.estimate).shape == MODEL.estimate_truth(example).shape
    assert_trees_close(prediction, run(zeros, KEYS), rtol=0, atol=0)
    # Noise reaches what is seen of the signal, hardly so at timestep 0; other keys choose other pixels.
    noisy = run(zeros + 1, KEYS)
    change = np.max(np.abs(noisy.observation.rgb - prediction.observation.rgb), axis=(1, 2))
    assert float(change[1]) > 10 * float(change[0])
    np.testing.assert_array_equal(noisy.truth, prediction.truth)
    assert float(np.max(np.abs(run(zeros, KEYS[::-1]).truth - prediction.truth))) > 0.1
