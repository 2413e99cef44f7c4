"""Denoising by rendering, and its guidance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.denoiser import denoise, guided_denoise, predict, prepare
from dfm_jax.diffusion.guidance import Guidance
from dfm_jax.diffusion.schedule import cosine_schedule
from tests.tiny import SIZE, UNCHUNKED, assert_trees_close, jit, random_params, tiny_example, tiny_model

MODEL = tiny_model(chunk_size=UNCHUNKED)
PARAMS = random_params(MODEL)
SCALE = 2.5
KEYS = jax.random.split(jax.random.key(4), 2)


@pytest.fixture(scope="module")
def results():
    """The prediction without guidance, at guidance 1, without context, and guided; with the same random numbers."""
    example = tiny_example()
    x_t = jnp.asarray(np.random.default_rng(2).normal(size=(2, SIZE, SIZE, 3)), jnp.float32)
    timestep = jnp.array([200, 900])

    @jit
    def run(params, example, keys):
        alone = prepare(params, MODEL, example)
        without = prepare(params, MODEL, MODEL.drop_context(example, jnp.array([True, True])))
        both = prepare(params, MODEL, example, guided=True)

        def guided(scale, **settings):
            remembered = jnp.zeros_like(x_t)
            denoised, after = guided_denoise(
                params, MODEL, x_t, timestep, both, Guidance(scale), remembered, keys, **settings
            )
            np.testing.assert_array_equal(after.shape, x_t.shape)
            return denoised

        return {
            "plain": denoise(params, MODEL, x_t, timestep, alone, keys),
            "one": guided(1.0),
            "without": denoise(params, MODEL, x_t, timestep, without, keys),
            "guided": guided(SCALE),
            "first of two": guided(SCALE, interval=(0, 200)),
            "neither": guided(SCALE, interval=(300, 700)),
        }

    return run(PARAMS, example, KEYS)


def test_the_prediction_is_the_rendering_of_the_scene_in_diffusion_range(results):
    plain = results["plain"]
    np.testing.assert_allclose(plain.x0, 2 * plain.rendering.rgb.reshape(2, SIZE, SIZE, 3) - 1, atol=1e-6)
    assert bool(jnp.all(jnp.abs(plain.x0) <= 1))
    assert plain.scene.features.shape[1] == 3


def test_guidance_of_one_is_none(results):
    assert_trees_close(results["one"], results["plain"])


def test_guidance_moves_away_from_the_unconditional_prediction(results):
    conditional, unconditional = results["plain"].x0, results["without"].x0
    assert float(jnp.max(jnp.abs(conditional - unconditional))) > 1e-2
    expected = unconditional + SCALE * (conditional - unconditional)
    # Guidance multiplies the branches' rounding by 2.5.
    np.testing.assert_allclose(results["guided"].x0, expected, atol=1e-4)


def test_outside_of_its_interval_there_is_no_guidance(results):
    assert_trees_close(results["neither"], results["plain"])
    np.testing.assert_allclose(results["first of two"].x0[0], results["guided"].x0[0], atol=1e-5)
    np.testing.assert_allclose(results["first of two"].x0[1], results["plain"].x0[1], atol=1e-5)


def test_only_x0_is_guided(results):
    assert_trees_close(results["guided"].replace(x0=None), results["plain"].replace(x0=None))


def test_a_training_prediction_pairs_observations_with_their_truth():
    schedule, example = cosine_schedule(1000), tiny_example()
    zeros = jnp.zeros((2, SIZE, SIZE, 3))
    run = jit(lambda noise, keys: predict(PARAMS, MODEL, schedule, example, jnp.array([0, 999]), noise, keys))
    prediction = run(zeros, KEYS)
    assert prediction.observation.rgb.shape == prediction.truth.shape == (2, 2 * 36, 3)
    assert MODEL.to_x0(prediction.estimate).shape == prediction.estimate_truth.shape
    assert_trees_close(prediction, run(zeros, KEYS), rtol=0, atol=0)
    # Noise reaches what is seen of the signal, hardly so at timestep 0; other keys choose other pixels.
    noisy = run(zeros + 1, KEYS)
    change = jnp.max(jnp.abs(noisy.observation.rgb - prediction.observation.rgb), axis=(1, 2))
    assert float(change[1]) > 10 * float(change[0])
    np.testing.assert_array_equal(noisy.truth, prediction.truth)
    assert float(jnp.max(jnp.abs(run(zeros, KEYS[::-1]).truth - prediction.truth))) > 0.1
