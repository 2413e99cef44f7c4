"""Laws of the diffusion process, guidance and samplers; the schedule against an independent reference."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from dfm_jax.diffusion.guidance import (
    Guidance,
    adaptive_projected_guidance,
    classifier_free_guidance,
    dynamic_threshold,
    rescaled_guidance,
)
from dfm_jax.diffusion.process import add_noise, noise_from_x0, x0_from_noise
from dfm_jax.diffusion.samplers import STOCHASTIC, ddim, ddpm, dpm_solver, dpm_solver_3m
from dfm_jax.diffusion.schedule import cosine_schedule, schedule_from_betas
from dfm_jax.diffusion.timesteps import log_snr_timesteps, uniform_timesteps


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


# --- schedule


def test_cosine_schedule_equals_the_closed_form_where_beta_is_not_bounded():
    # Away from the bound, the product of the betas telescopes to f(t + 1) / f(0).
    schedule = cosine_schedule(1000)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[:-1], (f[1:] / f[0])[:-1], rtol=1e-6)
    assert schedule.beta[-1] == np.float32(0.999)


def test_cosine_schedule_has_the_published_values():
    # Recorded from the published model's schedule, T = 1000.
    schedule = cosine_schedule(1000)
    published = {
        "beta": [4.1284224e-05, 4.6141751e-05, 0.7499994, 0.999],
        "alpha_bar": [0.9999587, 0.99991256, 2.428767e-06, 2.428767e-09],
        "signal_rate": [0.9999794, 0.9999563, 1.5584502e-03, 4.9282520e-05],
        "noise_rate": [0.00642528, 0.00935008, 0.9999988, 1.0],
        "posterior_variance": [0.0, 2.1789496e-05, 0.7499939, 0.99899757],
    }
    for name, values in published.items():
        rates = np.asarray(getattr(schedule, name))[[0, 1, -2, -1]]
        np.testing.assert_allclose(rates, values, rtol=1e-6, err_msg=name)


def test_schedule_rates_are_consistent_and_fall():
    schedule = cosine_schedule(200)
    np.testing.assert_allclose(schedule.signal_rate**2 + schedule.noise_rate**2, 1, rtol=1e-6)
    # A product of 200 float32 factors.
    np.testing.assert_allclose(jnp.cumprod(1 - schedule.beta), schedule.alpha_bar, rtol=1e-4)
    assert bool(jnp.all(jnp.diff(schedule.alpha_bar) < 0))
    assert schedule.num_timesteps == 200


@pytest.mark.parametrize("betas", [[], [0.1, 0.0], [0.1, 1.0], [float("nan")], [[0.1]]])
def test_schedule_refuses_impossible_betas(betas):
    with pytest.raises(ValueError, match="betas"):
        schedule_from_betas(np.array(betas))


# --- process


def test_noise_and_x0_round_trip():
    schedule = cosine_schedule()
    timestep = jnp.array([0, 20, 500, 900])
    x0, noise = normal(0, 4, 5, 3), normal(1, 4, 5, 3)
    x_t = add_noise(schedule, x0, timestep, noise)
    # At t = 0 the noise is divided by 0.006, at t = 900 the data by 0.15, which is what the tolerances allow for.
    np.testing.assert_allclose(noise_from_x0(schedule, x_t, timestep, x0), noise, atol=1e-4)
    np.testing.assert_allclose(x0_from_noise(schedule, x_t, timestep, noise), x0, atol=1e-5)


def test_noising_steps_compose():
    # One step from 0 to t has the variance of t small steps: x_t = sqrt(1 - beta) x_{t-1} + sqrt(beta) noise.
    schedule = cosine_schedule(50)
    signal, variance = 1.0, 0.0
    for beta in np.asarray(schedule.beta, np.float64)[:30]:
        signal, variance = signal * np.sqrt(1 - beta), variance * (1 - beta) + beta
    timestep, one, zero = jnp.array([29]), jnp.ones((1, 1)), jnp.zeros((1, 1))
    np.testing.assert_allclose(add_noise(schedule, one, timestep, zero), [[signal]], rtol=1e-5)
    np.testing.assert_allclose(add_noise(schedule, zero, timestep, one), [[np.sqrt(variance)]], rtol=1e-5)


def test_every_example_has_its_own_timestep():
    schedule, timestep = cosine_schedule(), jnp.array([3, 700])
    x0, noise = normal(0, 2, 4, 4, 3), normal(1, 2, 4, 4, 3)
    batch = add_noise(schedule, x0, timestep, noise)
    for i in range(2):
        alone = add_noise(schedule, x0[i : i + 1], timestep[i : i + 1], noise[i : i + 1])
        np.testing.assert_array_equal(batch[i], alone[0])


def test_shapes_are_checked_under_pytest():
    with pytest.raises(TypeCheckError):
        add_noise(cosine_schedule(), jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32), jnp.zeros((2, 1)))


# --- guidance


def test_guidance_1_is_the_conditional_prediction_and_0_the_unconditional_one():
    cond, uncond = normal(0, 2, 3), normal(1, 2, 3)
    np.testing.assert_array_equal(classifier_free_guidance(cond, uncond, 1.0), cond)
    np.testing.assert_allclose(classifier_free_guidance(cond, uncond, 0.0), uncond, atol=1e-6)
    np.testing.assert_allclose(classifier_free_guidance(cond, uncond, 2.0), 2 * cond - uncond, rtol=1e-5, atol=1e-6)


def test_threshold_leaves_images_in_range_alone():
    x0 = jax.random.uniform(jax.random.key(0), (2, 8, 8, 3), minval=-1, maxval=1)
    np.testing.assert_array_equal(dynamic_threshold(x0, 0.95), x0)


def test_threshold_equals_numpy_per_image():
    x0 = normal(0, 3, 8, 8, 3) * jnp.array([0.2, 1.0, 4.0]).reshape(3, 1, 1, 1)
    for image, got in zip(np.asarray(x0), dynamic_threshold(x0, 0.9), strict=True):
        limit = max(1, np.quantile(np.abs(image), 0.9))
        np.testing.assert_allclose(got, np.clip(image, -limit, limit) / limit, rtol=1e-5, atol=1e-6)


def test_threshold_brings_everything_into_range_unless_it_is_off():
    x0 = 5 * normal(0, 2, 16)
    assert jnp.abs(dynamic_threshold(x0, 0.5)).max() <= 1
    np.testing.assert_array_equal(dynamic_threshold(x0, 1.0), x0)


def test_rescaling_gives_each_example_the_conditional_contrast():
    cond = normal(0, 3, 8, 8, 3) * jnp.array([0.2, 1.0, 2.0]).reshape(3, 1, 1, 1)
    guided = classifier_free_guidance(cond, normal(1, 3, 8, 8, 3), 5.0)
    spread = lambda x: jnp.std(x, axis=(1, 2, 3))
    assert bool(jnp.all(spread(guided) > 2 * spread(cond)))
    np.testing.assert_allclose(spread(rescaled_guidance(guided, cond, 1.0)), spread(cond), rtol=1e-5)
    half = 0.5 * (spread(guided) + spread(cond))
    np.testing.assert_allclose(spread(rescaled_guidance(guided, cond, 0.5)), half, rtol=1e-5)
    np.testing.assert_array_equal(rescaled_guidance(guided, cond, 0.0), guided)


def test_rescaling_of_a_constant_image_is_finite():
    assert bool(jnp.all(jnp.isfinite(rescaled_guidance(jnp.zeros((1, 4)), normal(0, 1, 4), 1.0))))


def projected(cond, uncond, scale, average=None, *, momentum=0.0, bound=jnp.inf, parallel=0.0):
    average = jnp.zeros_like(cond) if average is None else average
    settings = {"momentum": momentum, "bound": bound, "parallel": parallel}
    return adaptive_projected_guidance(cond, uncond, scale, average, **settings)


def test_projected_guidance_of_scale_1_is_the_conditional_prediction():
    cond, uncond = normal(0, 2, 5, 3), normal(1, 2, 5, 3)
    np.testing.assert_array_equal(projected(cond, uncond, 1.0, cond, momentum=-0.5, bound=0.1)[0], cond)


def test_projected_guidance_that_keeps_everything_is_classifier_free_guidance():
    cond, uncond = normal(0, 2, 5, 3), normal(1, 2, 5, 3)
    guided, average = projected(cond, uncond, 3.0, parallel=1.0)
    np.testing.assert_allclose(guided, classifier_free_guidance(cond, uncond, 3.0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(average, cond - uncond)


def test_projected_guidance_moves_at_right_angles_to_the_conditional_prediction():
    cond, uncond = normal(0, 2, 5, 3), normal(1, 2, 5, 3)
    step = projected(cond, uncond, 4.0)[0] - cond
    # 15 products of up to ten, summed in float32.
    np.testing.assert_allclose(jnp.sum(step * cond, axis=(1, 2)), 0, atol=1e-4)
    full = classifier_free_guidance(cond, uncond, 4.0) - cond
    along = jnp.sum(full * cond, axis=(1, 2)) / jnp.sum(cond**2, axis=(1, 2))
    # A difference of numbers of up to ten, in float32.
    np.testing.assert_allclose(step, full - along[:, None, None] * cond, rtol=1e-4, atol=1e-4)
    # A difference along the prediction alone is dropped whole.
    np.testing.assert_allclose(projected(cond, 0.3 * cond, 4.0)[0], cond, atol=1e-5)


def test_projected_guidance_bounds_each_step_and_leaves_short_ones_alone():
    cond, uncond = normal(0, 2, 8, 8), jnp.stack([normal(1, 8, 8), normal(0, 2, 8, 8)[1] + 0.01])
    long, short = projected(cond, uncond, 2.0, bound=0.1, parallel=1.0)[0] - cond
    # A small step is read off as a difference of numbers twenty times as large, in float32.
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(long**2)), 0.1, rtol=1e-4)
    np.testing.assert_allclose(short, (cond - uncond)[1], atol=1e-5)
    black = projected(jnp.zeros((1, 4)), jnp.zeros((1, 4)), 2.0, bound=0.1)[0]
    np.testing.assert_array_equal(black, 0)


def test_projected_guidance_averages_over_steps():
    conds, unconds, average = normal(0, 3, 1, 6), normal(1, 3, 1, 6), None
    for cond, uncond in zip(conds, unconds, strict=True):
        _, average = projected(cond, uncond, 2.0, average, momentum=-0.5)
    a, b, c = conds - unconds
    np.testing.assert_allclose(average, c - 0.5 * (b - 0.5 * a), rtol=1e-5)


def test_guidance_joins_its_parts_and_is_plain_when_all_are_off():
    cond, uncond, average = normal(0, 2, 4, 4), normal(1, 2, 4, 4), normal(2, 2, 4, 4)
    plain = classifier_free_guidance(cond, uncond, 3.0)
    for guidance, expected in (
        (Guidance(3.0), plain),
        (Guidance(3.0, rescale=0.7), rescaled_guidance(plain, cond, 0.7)),
        (Guidance(3.0, parallel=0.0), projected(cond, uncond, 3.0)[0]),
        (
            Guidance(3.0, momentum=-0.5, bound=0.3),
            projected(cond, uncond, 3.0, average, momentum=-0.5, bound=0.3, parallel=1.0)[0],
        ),
    ):
        np.testing.assert_allclose(guidance(cond, uncond, average)[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(Guidance(3.0)(cond, uncond, average)[1], average)


# --- timesteps


def test_uniform_timesteps():
    schedule = cosine_schedule()
    np.testing.assert_array_equal(uniform_timesteps(schedule, 4), [999, 749, 499, 249, -1])
    np.testing.assert_array_equal(uniform_timesteps(schedule, 3), [999, 665, 332, -1])
    np.testing.assert_array_equal(uniform_timesteps(schedule, 1), [999, -1])
    np.testing.assert_array_equal(uniform_timesteps(cosine_schedule(7), 7), np.arange(6, -2, -1))
    assert uniform_timesteps(schedule, 76)[-2] == 12  # 1000 / 76 - 1 = 12.2


@pytest.mark.parametrize("spacing", [uniform_timesteps, log_snr_timesteps])
def test_timesteps_fall_from_the_noisiest_to_clean_data(spacing):
    for total, num_steps in ((1000, 1), (1000, 2), (1000, 10), (1000, 500), (1000, 999), (1000, 1000), (7, 5), (3, 3)):
        times = np.asarray(spacing(cosine_schedule(total), num_steps))
        assert (len(times), times[0], times[-1]) == (num_steps + 1, total - 1, -1)
        assert np.all(np.diff(times) < 0)
    for num_steps in (0, 1001):
        with pytest.raises(ValueError, match="between 1 and 1000"):
            spacing(cosine_schedule(), num_steps)


def test_log_snr_timesteps_are_even_in_it_and_end_where_50_uniform_steps_do():
    schedule = cosine_schedule()
    log_snr = np.log(np.asarray(schedule.signal_rate, np.float64) / np.asarray(schedule.noise_rate, np.float64))
    for num_steps in (5, 12, 20):
        times = np.asarray(log_snr_timesteps(schedule, num_steps))[:-1]
        assert times[-1] == uniform_timesteps(schedule, 50)[-2]
        # Each is the timestep nearest to an even one; float32 may decide between two that are equally near.
        even = np.linspace(-5, log_snr[times[-1]], num_steps)[1:, None]
        nearest = np.abs(log_snr - even).min(1)
        # The schedule's float32 rates: log-SNRs are known to 1e-5.
        np.testing.assert_allclose(np.abs(log_snr[times[1:]] - even[:, 0]), nearest, atol=1e-4)


# --- samplers

SAMPLERS = (ddim, ddpm, dpm_solver, dpm_solver_3m)


def run(sampler, denoise, x_T, num_steps, *, schedule=None, spacing=uniform_timesteps, **settings):
    """Samples with a denoiser `(x_t, timestep) -> x0`, which carries nothing from step to step."""
    schedule = cosine_schedule() if schedule is None else schedule
    if sampler in STOCHASTIC:
        settings = {"keys": jax.random.split(jax.random.key(9), len(x_T)), **settings}
    denoise_fn = lambda x_t, timestep, carry: (denoise(x_t, timestep), carry)
    return sampler(denoise_fn, x_T, schedule, spacing(schedule, num_steps), **settings)


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
    ],
)
def test_with_the_optimal_denoiser_a_sampler_draws_the_gaussian_that_it_denoises(sampler, num_steps, spacing):
    mean, deviation = 0.4, 0.3
    denoise = denoise_gaussian(cosine_schedule(), mean, deviation)
    samples = run(sampler, denoise, normal(0, 4000, 1), num_steps, spacing=spacing)
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
    [(ddim, 1, uniform_timesteps), (dpm_solver, 2, uniform_timesteps), (dpm_solver_3m, 3, log_snr_timesteps)],
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
