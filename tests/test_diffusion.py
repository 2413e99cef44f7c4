"""Laws of the diffusion process, guidance and samplers; the schedule against an independent reference."""

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
from dfm_jax.diffusion.schedule import cosine_schedule, schedule_from_betas
from dfm_jax.diffusion.timesteps import high_noise_timesteps, log_snr_timesteps, uniform_timesteps
from tests.tiny import jit


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
    assert bool(np.all(np.diff(schedule.alpha_bar) < 0))
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
    assert np.abs(dynamic_threshold(x0, 0.5)).max() <= 1
    np.testing.assert_array_equal(dynamic_threshold(x0, 1.0), x0)


def test_rescaling_gives_each_example_the_conditional_contrast():
    cond = normal(0, 3, 8, 8, 3) * jnp.array([0.2, 1.0, 2.0]).reshape(3, 1, 1, 1)
    guided = classifier_free_guidance(cond, normal(1, 3, 8, 8, 3), 5.0)
    spread = lambda x: jnp.std(x, axis=(1, 2, 3))
    assert bool(np.all(spread(guided) > 2 * spread(cond)))
    np.testing.assert_allclose(spread(rescaled_guidance(guided, cond, 1.0)), spread(cond), rtol=1e-5)
    half = 0.5 * (spread(guided) + spread(cond))
    np.testing.assert_allclose(spread(rescaled_guidance(guided, cond, 0.5)), half, rtol=1e-5)
    np.testing.assert_array_equal(rescaled_guidance(guided, cond, 0.0), guided)


def test_rescaling_of_a_constant_image_is_finite():
    assert bool(np.all(np.isfinite(rescaled_guidance(jnp.zeros((1, 4)), normal(0, 1, 4), 1.0))))


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
    np.testing.assert_allclose(np.sum(step * cond, axis=(1, 2)), 0, atol=1e-4)
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
    np.testing.assert_allclose(np.sqrt(np.mean(long**2)), 0.1, rtol=1e-4)
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


def test_high_noise_timesteps_lie_where_nothing_is_chosen_yet():
    np.testing.assert_array_equal(high_noise_timesteps(cosine_schedule(), 1), [999, -1])
    np.testing.assert_array_equal(high_noise_timesteps(cosine_schedule(), 2), [999, 849, -1])
    np.testing.assert_array_equal(high_noise_timesteps(cosine_schedule(), 3), [999, 899, 799, -1])


@pytest.mark.parametrize("spacing", [uniform_timesteps, log_snr_timesteps, high_noise_timesteps])
def test_timesteps_fall_from_the_noisiest_to_clean_data(spacing):
    for total, num_steps in ((1000, 1), (1000, 2), (1000, 10), (1000, 500), (1000, 999), (1000, 1000), (7, 5), (3, 3)):
        times = np.asarray(jit(spacing, static_argnums=1)(cosine_schedule(total), num_steps))
        assert (len(times), times[0], times[-1]) == (num_steps + 1, total - 1, -1)
        assert np.all(np.diff(times) < 0)
    for num_steps in (0, 1001):
        with pytest.raises(ValueError, match="between 1 and 1000"):
            spacing(cosine_schedule(), num_steps)


def test_log_snr_timesteps_are_even_in_it_and_end_where_50_uniform_steps_do():
    schedule = cosine_schedule()
    log_snr = np.log(np.asarray(schedule.signal_rate, np.float64) / np.asarray(schedule.noise_rate, np.float64))
    for num_steps in (5, 12, 20):
        times = np.asarray(jit(log_snr_timesteps, static_argnums=1)(schedule, num_steps))[:-1]
        assert times[-1] == uniform_timesteps(schedule, 50)[-2]
        # Each is the timestep nearest to an even one; float32 may decide between two that are equally near.
        even = np.linspace(-5, log_snr[times[-1]], num_steps)[1:, None]
        nearest = np.abs(log_snr - even).min(1)
        # The schedule's float32 rates: log-SNRs are known to 1e-5.
        np.testing.assert_allclose(np.abs(log_snr[times[1:]] - even[:, 0]), nearest, atol=1e-4)
