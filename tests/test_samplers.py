"""Samplers: algorithms of their papers, orders of convergence, and randomness that depends on the key alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.diffusion.process import add_noise, noise_from_x0
from dfm_jax.diffusion.samplers import STOCHASTIC, consistency, ddim, ddpm, dpm_solver, dpm_solver_3m, unipc
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.diffusion.timesteps import high_noise_timesteps, log_snr_timesteps, uniform_timesteps
from tests.test_diffusion import normal
from tests.tiny import jit

SAMPLERS = (ddim, ddpm, dpm_solver, dpm_solver_3m, unipc, consistency)


def run(sampler, denoise, x_T, num_steps, *, schedule=None, spacing=uniform_timesteps, **settings):
    """Samples with a denoiser `(x_t, timestep) -> x0`, which carries nothing from step to step."""
    schedule = cosine_schedule() if schedule is None else schedule
    keys = (
        {"keys": settings.pop("keys", jax.random.split(jax.random.key(9), len(x_T)))} if sampler in STOCHASTIC else {}
    )
    denoise_fn = lambda x_t, timestep, carry: (denoise(x_t, timestep), carry)

    @jit  # one program in the place of dozens of small ones
    def sample(x_T, schedule, keys):
        return sampler(denoise_fn, x_T, schedule, spacing(schedule, num_steps), **keys, **settings)

    return sample(x_T, schedule, keys)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 50])
def test_with_an_oracle_a_sampler_returns_its_x0(num_steps, sampler):
    x0 = normal(0, 2, 4, 4, 3)
    np.testing.assert_array_equal(run(sampler, lambda x_t, timestep: x0, normal(1, *x0.shape), num_steps), x0)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_denoiser_may_carry_arrays_from_step_to_step(sampler):
    schedule, x_T = cosine_schedule(), normal(0, 2, 3)
    keys = {"keys": jax.random.split(jax.random.key(0), 2)} if sampler in STOCHASTIC else {}
    count = lambda x_t, timestep, seen: (jnp.full_like(x_t, 0.1) * (seen + 1), seen + 1)
    x0 = sampler(count, x_T, schedule, uniform_timesteps(schedule, 5), carry=jnp.zeros(()), **keys)
    np.testing.assert_allclose(x0, 0.5, rtol=1e-6)  # the last prediction is the fifth


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_callback_sees_every_step_and_changes_none(sampler):
    denoise, x_T = denoise_gaussian(cosine_schedule(), 0.4, 0.3), normal(0, 2, 3)
    watch = lambda timestep, x_t, x0: {"timestep": timestep, "x_t": x_t, "x0": x0}
    final, seen = run(sampler, denoise, x_T, 4, callback=watch)
    np.testing.assert_array_equal(final, run(sampler, denoise, x_T, 4))
    np.testing.assert_array_equal(seen["timestep"], [999, 749, 499, 249])
    np.testing.assert_array_equal(seen["x_t"][0], x_T)
    np.testing.assert_array_equal(seen["x0"][-1], final)
    for x_t, t, x0 in zip(seen["x_t"], (999, 749, 499, 249), seen["x0"], strict=True):
        np.testing.assert_allclose(x0, denoise(x_t, jnp.full(2, t)), rtol=1e-5)


def test_ddim_keeps_the_initial_noise_of_an_oracle():
    # With the true x0 known, every state lies on the line between data and the first state's noise.
    schedule, x0, x_T = cosine_schedule(), normal(0, 2, 3), normal(1, 2, 3)
    _, states = run(ddim, lambda x_t, timestep: x0, x_T, 4, callback=lambda timestep, x_t, x0: x_t)
    noise = noise_from_x0(schedule, x_T, jnp.full(2, 999), x0)
    for state, t in zip(states[1:], (749, 499, 249), strict=True):
        np.testing.assert_allclose(state, add_noise(schedule, x0, jnp.full(2, t), noise), atol=1e-5)


def test_ddim_equals_a_numpy_loop():
    schedule, x_T = cosine_schedule(), normal(0, 2, 6) * 2

    def denoise(x, t, step, sin):
        return 1.5 * sin(x * (1.0 + 0.1 * step)) + t / 2000

    def denoise_fn(x_t, timestep, step):
        assert timestep.dtype == jnp.int32
        return denoise(x_t, timestep[:, None].astype(jnp.float32), step, jnp.sin), step + 1

    got = ddim(denoise_fn, x_T, schedule, uniform_timesteps(schedule, 5), carry=jnp.float32(0))

    alpha_bar = np.asarray(schedule.alpha_bar, np.float64)
    times = np.linspace(-1, 999, 6).astype(int)[::-1]
    x = np.asarray(x_T, np.float64)
    for step, (t, t_next) in enumerate(itertools.pairwise(times)):
        x0 = denoise(x, t, step, np.sin)
        noise = (x - np.sqrt(alpha_bar[t]) * x0) / np.sqrt(1 - alpha_bar[t])
        x = x0 if t_next < 0 else np.sqrt(alpha_bar[t_next]) * x0 + np.sqrt(1 - alpha_bar[t_next]) * noise
    np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-5)  # five steps in float32, against float64


def test_ddpm_equals_a_numpy_loop_of_its_algorithm():
    # Ho et al. 2020, eq. 6 and 7, with the schedule's own beta and posterior variance; the noise of each step from the
    # example's key and the number of the step.
    schedule, x_T, keys = cosine_schedule(20), normal(0, 2, 6), jax.random.split(jax.random.key(4), 2)
    denoise = lambda x, sin: 1.2 * sin(x)
    got = run(ddpm, lambda x_t, timestep: denoise(x_t, jnp.sin), x_T, 20, schedule=schedule, keys=keys)

    beta, alpha_bar, variance = (
        np.asarray(rate, np.float64) for rate in (schedule.beta, schedule.alpha_bar, schedule.posterior_variance)
    )
    x = np.asarray(x_T, np.float64)
    for step, t in enumerate(range(19, -1, -1)):
        before = alpha_bar[t - 1] if t else 1.0
        x0_share = np.sqrt(before) * beta[t] / (1 - alpha_bar[t])
        x_share = np.sqrt(1 - beta[t]) * (1 - before) / (1 - alpha_bar[t])
        noise = [jax.random.normal(jax.random.fold_in(key, step), (6,)) for key in keys]
        x = x0_share * denoise(x, np.sin) + x_share * x + np.sqrt(variance[t]) * np.stack(noise)
    np.testing.assert_allclose(got, x, rtol=1e-3, atol=1e-4)  # twenty steps in float32, against float64


def test_unipc_equals_a_numpy_loop_of_its_algorithm():
    # Zhao et al. 2023, eq. 9 in predictions of x0 with B(h) = exp(-h) - 1 (h negated there), its coefficients from
    # R c = b as published; in the last step h is infinite, and all but x0 itself is gone.
    schedule, x_T = cosine_schedule(), normal(0, 2, 6)
    denoise = lambda x, sin: 1.2 * sin(x)
    times = np.asarray(log_snr_timesteps(schedule, 6))
    got = run(unipc, lambda x_t, timestep: denoise(x_t, jnp.sin), x_T, 6, spacing=log_snr_timesteps)

    alpha_bar = np.asarray(schedule.alpha_bar, np.float64)[times[:-1]]
    alpha, sigma = np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar)
    log_snr = np.log(alpha / sigma)

    def step(x, i, predictions, coefficients, r):
        """From level i to i + 1, with D_m = predictions[m] - predictions[0]."""
        h = log_snr[i + 1] - log_snr[i]
        correction = sum(
            c * (x0 - predictions[0]) / at for c, x0, at in zip(coefficients, predictions[1:], r, strict=True)
        )
        return sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h) * (predictions[0] + correction)

    x = np.asarray(x_T, np.float64)
    predicted, seen = x, []
    for i in range(6):
        x0 = denoise(predicted, np.sin)
        if i > 0:
            h = log_snr[i] - log_snr[i - 1]
            r = np.array([(log_snr[i - 2] - log_snr[i - 1]) / h, 1.0] if i > 1 else [1.0])
            phi_2 = (np.expm1(-h) / -h - 1) / np.expm1(-h)
            b = [phi_2, ((np.expm1(-h) / -h - 1) / -h - 0.5) * 2 / np.expm1(-h)][: len(r)]
            c = np.linalg.solve([r**0, r][: len(r)], b)
            x = step(x, i - 1, [seen[-1], *seen[-2:-1], x0], c, r)
        seen.append(x0)
        if i < 5:
            r = [(log_snr[i - 1] - log_snr[i]) / (log_snr[i + 1] - log_snr[i])] if i else []
            predicted = step(x, i, [x0, *seen[-2:-1]], [0.5][: len(r)], r)
    np.testing.assert_allclose(got, x0, rtol=1e-3, atol=1e-4)  # six steps in float32, against float64


def denoise_gaussian(schedule, mean, deviation):
    """The optimal denoiser of data N(mean, deviation^2): E[x0 | x_t] is linear in x_t."""

    def denoise(x_t, timestep):
        signal_rate, noise_rate = schedule.signal_rate[timestep][:, None], schedule.noise_rate[timestep][:, None]
        gain = signal_rate * deviation**2 / (signal_rate**2 * deviation**2 + noise_rate**2)
        return mean + gain * (x_t - signal_rate * mean)

    return denoise


@pytest.mark.parametrize(
    ("sampler", "num_steps", "spacing"),
    [
        (ddim, 100, uniform_timesteps),
        (ddpm, 200, uniform_timesteps),
        (dpm_solver, 15, uniform_timesteps),
        (dpm_solver, 10, log_snr_timesteps),
        (dpm_solver_3m, 15, log_snr_timesteps),
        (unipc, 8, log_snr_timesteps),
    ],
)
def test_with_the_optimal_denoiser_a_sampler_draws_the_gaussian_that_it_denoises(sampler, num_steps, spacing):
    mean, deviation = 0.4, 0.3
    denoise = denoise_gaussian(cosine_schedule(), mean, deviation)
    samples = run(sampler, denoise, normal(0, 4000, 1), num_steps, spacing=spacing)
    assert abs(float(samples.mean()) - mean) < 0.02
    assert abs(float(samples.std()) - deviation) < 0.02


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_a_consistency_function_draws_the_gaussian_in_any_number_of_steps(num_steps):
    """Where the trajectories of N(mean, deviation^2) end is known: x_t in units of its standard deviation stays."""
    mean, deviation, schedule = 0.4, 0.3, cosine_schedule()

    def end(x_t, timestep):
        alpha, sigma = schedule.signal_rate[timestep][:, None], schedule.noise_rate[timestep][:, None]
        return mean + deviation * (x_t - alpha * mean) / jnp.sqrt((alpha * deviation) ** 2 + sigma**2)

    samples = run(consistency, end, normal(0, 4000, 1), num_steps, spacing=high_noise_timesteps)
    assert abs(float(samples.mean()) - mean) < 0.02
    assert abs(float(samples.std()) - deviation) < 0.02


def error_half_way(sampler, num_steps, spacing):
    """Against the exact solution for data N(0, s^2), where x scales as the standard deviation of x_t does."""
    schedule, deviation, half = cosine_schedule(), 0.3, num_steps // 2
    alpha_bar = np.asarray(schedule.alpha_bar, np.float64)[np.asarray(spacing(schedule, num_steps))[[0, half]]]
    start, now = np.sqrt(alpha_bar * deviation**2 + 1 - alpha_bar)
    denoise, watch = denoise_gaussian(schedule, 0.0, deviation), lambda timestep, x_t, x0: x_t
    _, states = run(sampler, denoise, jnp.ones((1, 1)), num_steps, spacing=spacing, callback=watch)
    return abs(float(states[half, 0, 0]) / (now / start) - 1)


@pytest.mark.parametrize(
    ("sampler", "order", "spacing"),
    [
        (ddim, 1, uniform_timesteps),
        (dpm_solver, 2, uniform_timesteps),
        (dpm_solver_3m, 3, log_snr_timesteps),
        (unipc, 3, log_snr_timesteps),
    ],
)
def test_samplers_converge_at_their_order(sampler, order, spacing):
    # The first steps of a solver have lower orders: not to show in the third, they must end where x0 hardly changes.
    errors = np.array([error_half_way(sampler, n, spacing) for n in (10, 20, 40)])
    assert np.all(np.abs(np.log2(errors[:-1] / errors[1:]) - order) < 0.4), errors


def test_higher_orders_are_nearer_in_as_many_steps():
    first, second, third = (error_half_way(f, 40, log_snr_timesteps) for f in (ddim, dpm_solver, dpm_solver_3m))
    assert third < second / 4 < first / 16


def test_the_noise_of_a_step_depends_on_the_examples_key_only():
    denoise, x_T = denoise_gaussian(cosine_schedule(), 0.4, 0.3), normal(0, 4, 3)
    keys = jax.random.split(jax.random.key(5), 4)
    sample = lambda x_T, keys: np.asarray(run(ddpm, denoise, x_T, 10, keys=keys))
    together = sample(x_T, keys)
    np.testing.assert_array_equal(sample(x_T, keys), together)
    np.testing.assert_array_equal(sample(x_T[::-1], keys[::-1])[::-1], together)
    # Another number of examples is another program.
    np.testing.assert_allclose(sample(x_T[2:3], keys[2:3]), together[2:3], rtol=1e-5)
    assert np.all(np.abs(sample(x_T, jax.random.split(jax.random.key(6), 4)) - together) > 0)


def test_without_temperature_nothing_is_drawn():
    denoise, x_T = denoise_gaussian(cosine_schedule(), 0.4, 0.3), normal(0, 2, 3)
    cold = [run(ddpm, denoise, x_T, 10, keys=jax.random.split(jax.random.key(k), 2), temperature=0.0) for k in (1, 2)]
    np.testing.assert_array_equal(*cold)
