"""The linear forward model, whose posterior is known: the method must sample it.

Training sees projections of signals only, never a signal; the sampled signals must follow p(s | context), which has a
closed form, in every projection, also in unseen ones. See `forward_models/linear.py`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from jaxtyping import Key

from dfm_jax.config import Config, DistillationConfig
from dfm_jax.config.command_line import read_config
from dfm_jax.denoiser import cache_context, denoise
from dfm_jax.diffusion.schedule import Schedule, cosine_schedule
from dfm_jax.evaluation.signal_scores import observation_scores, posterior_scores
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.linear import CONTEXT, COVARIANCE, MEAN, TARGET, LinearModel, Projections
from dfm_jax.runs.train_state import create
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.setup import make_train_setup
from tests.tiny import optimised_jit

UNSEEN = np.array([[0.5, 0.5, 0.7], [0.3, -0.9, 0.1]])  # no training query has these directions

SAMPLES = 8192
SAMPLING_STEPS = 1000  # DDIM narrows what it samples: with 100 steps, the covariance of `UNSEEN` is off by 0.1
PLAIN = {"sampler": "ddim", "spacing": "uniform", "num_steps": SAMPLING_STEPS}


@dataclasses.dataclass(frozen=True)
class Trained:
    config: Config
    params: dict
    model: LinearModel
    schedule: Schedule


@pytest.fixture(scope="module")
def trained() -> Trained:
    """The linear model, trained as its config says."""
    config = read_config("configs/linear.py")
    model, setup = make_model(config), make_train_setup(config)
    init_key, noise_key = jax.random.split(jax.random.key(0))
    state, step, size = setup.init(init_key), optimised_jit(setup.step, donate_argnums=0), config.train.batch_size
    for n in range(config.train.num_steps):
        state, _ = step(state, model.generate(config.seed, np.arange(n * size, (n + 1) * size)), noise_key)
    return Trained(config, state.ema, model, cosine_schedule(config.diffusion.num_timesteps))


def context_of(value: float, count: int) -> Projections:
    """An example that knows the context only: all else is NaN."""
    unknown = LinearModel(1000).generate(0, np.arange(count))
    unknown = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan) if x.dtype == np.float32 else jnp.asarray(x), unknown)
    return unknown.replace(context=jnp.full((count, 1), value))


def sampler_of(trained: Trained, **changes: Any) -> DiffusionSampler:
    """That of scenes, with as many steps as there are and nothing switched on, but for the changes."""
    settings = dataclasses.replace(trained.config.sample, **(PLAIN | changes))
    return DiffusionSampler(trained.model, trained.params, trained.schedule, settings)


@optimised_jit
def sample_signals(sampler: DiffusionSampler, example: Projections, keys: Key[Array, " b"]) -> tuple[Samples, Array]:
    samples = sampler.sample(example, keys)
    return samples, sampler.scene(samples, noise_level=0)[0]


def sampled_signals(trained: Trained, example: Projections, **changes: Any) -> np.ndarray:
    """`SAMPLES` signals [n, 3]."""
    keys = jax.random.split(jax.random.key(1), SAMPLES)
    samples, signals = sample_signals(sampler_of(trained, **changes), example, keys)
    # To the model, the sample has the noise of the least noisy level: a few times that may the signal be from it.
    tolerance = 4 * float(trained.schedule.noise_rate[0])
    np.testing.assert_allclose(samples.x0, signals @ jnp.asarray(TARGET.T, jnp.float32), atol=tolerance)
    return np.asarray(signals, np.float64)


def posterior(context: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean [3] and covariance [3, 3] of the signal, given its context projection."""
    mean, covariance = LinearModel(1000).posterior(context_of(context, 1))
    return mean[0], covariance[0]


def moment_errors(observed: np.ndarray, query: np.ndarray, truth: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Largest error of the mean and of the covariance of observations [n, q] of signals with the `truth` moments, in
    units of the prior's standard deviations."""
    mean, covariance = truth
    unit = np.sqrt(np.diag(query @ COVARIANCE @ query.T))
    mean_error = (observed.mean(0) - query @ mean) / unit
    covariance_error = (np.cov(observed.T) - query @ covariance @ query.T) / np.outer(unit, unit)
    return np.array([np.abs(mean_error).max(), np.abs(covariance_error).max()])


# Sampling noise alone gives up to about 0.03 for 8192 samples.
TOLERANCE = 0.06
QUERIES = (CONTEXT, TARGET, UNSEEN)
CONTEXTS = (CONTEXT @ MEAN + np.array([-1.5, 0.0, 1.0]) * np.sqrt(CONTEXT @ COVARIANCE @ CONTEXT.T).item()).tolist()


@pytest.mark.parametrize("context", CONTEXTS)
def test_samples_follow_the_posterior_in_every_projection(trained, context):
    signals = sampled_signals(trained, context_of(context, SAMPLES))
    for query in QUERIES:
        assert np.all(moment_errors(signals @ query.T, query, posterior(context)) < TOLERANCE)
    # What is known is not merely right on average: every sample agrees with its context.
    assert np.abs(signals @ CONTEXT.T - context).max() < 0.05


OTHERS = (
    {"sampler": "ddpm", "num_steps": 500},
    {"sampler": "dpm-solver++3m", "num_steps": 100},
)


@pytest.mark.parametrize("settings", OTHERS, ids=lambda settings: settings["sampler"])
def test_other_samplers_follow_the_same_posterior(trained, settings):
    example, truth = context_of(CONTEXTS[0], SAMPLES), posterior(CONTEXTS[0])
    signals = sampled_signals(trained, example, **settings)
    for query in QUERIES:
        assert np.all(moment_errors(signals @ query.T, query, truth) < TOLERANCE)


def test_ancestral_sampling_owes_its_covariance_to_the_noise_of_its_steps(trained):
    # With less noise than the algorithm's the mean stays, and the law above does not hold.
    example, truth = context_of(CONTEXTS[0], SAMPLES), posterior(CONTEXTS[0])
    signals = sampled_signals(trained, example, sampler="ddpm", num_steps=100, temperature=0.7)
    mean_error, covariance_error = moment_errors(signals @ TARGET.T, TARGET, truth)
    assert mean_error < TOLERANCE < 2 * TOLERANCE < covariance_error


@pytest.fixture(scope="module")
def distilled(trained) -> Trained:
    """A student of `trained`, whose 20 steps it is to take in one."""
    teacher = sampler_of(trained, sampler="dpm-solver++", spacing="log-snr", num_steps=20)
    optimizer = dataclasses.replace(trained.config.train.optimizer, learning_rate=0.01, decay_steps=350)
    config = dataclasses.replace(
        trained.config,
        distillation=DistillationConfig(teacher="the trained one"),
        train=dataclasses.replace(trained.config.train, optimizer=optimizer),
    )
    frozen = (None, teacher)
    setup, size = make_train_setup(config, frozen), 256
    state = create(trained.params, make_optimizer(optimizer))
    step = optimised_jit(setup.step)
    for n in range(400):
        example = trained.model.generate(config.seed, np.arange(n * size, (n + 1) * size))
        state, _ = step(state, example, jax.random.key(5), *frozen)
    return dataclasses.replace(trained, params=state.ema)


@pytest.mark.parametrize("num_steps", [1, 2])
def test_a_distilled_model_follows_the_posterior_in_one_step_and_in_two(distilled, trained, num_steps):
    example, truth = context_of(CONTEXTS[0], SAMPLES), posterior(CONTEXTS[0])
    few = {"sampler": "consistency", "spacing": "high-noise", "num_steps": num_steps}
    errors = []
    for model in (distilled, trained):
        keys = jax.random.split(jax.random.key(1), SAMPLES)
        _, signals = sample_signals(sampler_of(model, **few), example, keys)
        errors.append([moment_errors(np.asarray(signals, np.float64) @ query.T, query, truth) for query in QUERIES])
    assert np.max(errors[0]) < TOLERANCE
    assert np.max(errors[1]) > 2 * TOLERANCE  # the teacher in as few steps


def test_samples_without_context_follow_the_prior(trained):
    example = context_of(CONTEXTS[0], SAMPLES)
    dropped = trained.model.drop_context(example, jnp.ones(SAMPLES, bool))
    target = sampled_signals(trained, dropped) @ TARGET.T
    assert np.all(moment_errors(target, TARGET, (MEAN, COVARIANCE)) < TOLERANCE)
    # A model that ignores its context is told from one that does not.
    assert np.all(moment_errors(target, TARGET, posterior(CONTEXTS[0])) > 2 * TOLERANCE)


def test_deterministic_regression_has_the_mean_but_not_the_covariance(trained):
    example = context_of(CONTEXTS[0], SAMPLES)
    x_t = jax.random.normal(jax.random.key(2), (SAMPLES, 2))
    cache = cache_context(trained.params, trained.model, example)
    estimate = denoise(trained.params, trained.model, x_t, jnp.full(SAMPLES, 999), cache).estimate
    mean_error, covariance_error = moment_errors(np.asarray(estimate), TARGET, posterior(CONTEXTS[0]))
    assert mean_error < TOLERANCE
    assert covariance_error > 2 * TOLERANCE


# --- the model's own truth, and the scores that are made of it


def test_the_posterior_is_that_of_the_signals_that_examples_are_made_of():
    """By regression: signals are seen in three directions, which tell them."""
    example = LinearModel(1000).generate(0, np.arange(100_000))
    operators = np.concatenate([CONTEXT, TARGET])
    signals = np.concatenate([example.context, example.target], axis=1) @ np.linalg.inv(operators).T
    # What examples hold is rounded to float32, and their operators are inverted.
    np.testing.assert_allclose(np.einsum("bqs,bs->bq", example.extra_query, signals), example.extra, atol=1e-4)
    mean, covariance = LinearModel(1000).posterior(example)
    rest = signals - mean
    # Five standard errors of the moments of 100 000 signals whose variances are at most 0.3.
    np.testing.assert_allclose(rest.mean(0), 0, atol=0.009)
    np.testing.assert_allclose(rest.T @ example.context / len(rest), 0, atol=0.009)  # five standard errors
    np.testing.assert_allclose(np.cov(rest.T), covariance[0], atol=0.007)  # five standard errors
    dropped = example.replace(has_context=np.zeros(len(rest), bool))
    np.testing.assert_allclose(LinearModel(1000).posterior(dropped)[0], np.broadcast_to(MEAN, mean.shape))
    np.testing.assert_allclose(LinearModel(1000).posterior(dropped)[1][0], COVARIANCE)


def test_examples_are_functions_of_the_seed_and_their_number():
    generate = LinearModel(1000).generate
    some, again = generate(3, np.arange(1000, 1100)), generate(3, np.array([1023, 1024, 1099]))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[[23, 24, 99]], y), some, again)
    for other in (generate(4, np.arange(1000, 1100)), generate(3, np.arange(1000, 1100), held_out=True)):
        assert np.abs(other.target - some.target).min() > 0


def test_scores_know_exact_samples_from_others():
    rng, count = np.random.default_rng(0), 2000
    example = LinearModel(1000).generate(0, np.arange(40), held_out=True)
    mean, covariance = LinearModel(1000).posterior(example)
    root = np.linalg.cholesky(covariance + 1e-12 * np.eye(3))
    exact = mean[:, None] + rng.normal(size=(40, count, 3)) @ np.moveaxis(root, 1, 2)
    scores = posterior_scores(exact, mean, covariance)
    assert scores["mean_error"] < 1.5 / np.sqrt(count) and scores["covariance_error"] < 0.06
    shifted = posterior_scores(exact + 0.3, mean, covariance)
    assert shifted["mean_error"] > 0.5 and shifted["covariance_error"] == pytest.approx(scores["covariance_error"])
    narrow = posterior_scores(mean[:, None] + 0.7 * (exact - mean[:, None]), mean, covariance)
    # 1 - 0.7^2, and what 2000 samples leave open.
    assert narrow["covariance_error"] == pytest.approx(0.51, abs=0.03) and narrow["mean_error"] < scores["mean_error"]
    one = posterior_scores(exact[:, :1], mean, covariance) | observation_scores(exact[:, :1] @ TARGET.T, example.target)
    assert {name for name, value in one.items() if value is None} == {"spread", "calibration_error", "covariance_error"}
    assert np.isfinite([value for value in one.values() if value is not None]).all()
    honest = observation_scores(exact @ TARGET.T, example.target)
    # 80 truths: 1.6 / sqrt(80) is exceeded by one honest set in a hundred, and this one is always the same.
    assert honest["calibration_error"] < 0.18
    average = mean[:, None] + 0.2 * (exact - mean[:, None])
    assert observation_scores(average @ TARGET.T, example.target)["calibration_error"] > 0.3
