"""Score distillation against closed forms: what Gaussian priors say of every method, also of its failure.

Every gradient is affine in x and in the noise here, so that its expectation is the mean over noise and its negative.
"""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dfm_jax.diffusion import distillation
from dfm_jax.diffusion.cfg_plus_plus import cfg_plus_plus, guidance_scales
from dfm_jax.diffusion.distillation import Prior, csd, dds, esd, ism, nfsd, reused, sds, sjc, vsd
from dfm_jax.diffusion.guidance import Guidance, classifier_free_guidance
from dfm_jax.diffusion.inversion import inverted
from dfm_jax.diffusion.optimisation import draw_levels, draw_noise, falling_rate, optimised
from dfm_jax.diffusion.particles import ParticleScore, gaussian_prediction
from dfm_jax.diffusion.process import noise_from_x0
from dfm_jax.diffusion.samplers import ddim
from dfm_jax.diffusion.timesteps import uniform_timesteps
from tests.gaussian_prior import SCHEDULE, Gaussian, equal_gaussians, linear_gaussians, prior_of
from tests.tiny import jit

LEVELS = (40, 200, 500, 800)
PAIRS = {"equal": equal_gaussians(), "unequal": linear_gaussians()}
both_pairs = pytest.mark.parametrize("pair", PAIRS)


def prior_named(pair: str, **settings) -> tuple[Gaussian, Gaussian, Prior]:
    return *PAIRS[pair], prior_of(*PAIRS[pair], **settings)


def expected(gradient, x, levels=LEVELS):
    """The gradient's expectation at x [b, d], over noise and these levels."""
    noise = jax.random.normal(jax.random.key(3), x.shape)
    pair = jnp.stack([noise, -noise])
    # All in one batch: a smaller program.
    b, d = x.shape
    count = 2 * len(levels)
    many = lambda x: jnp.broadcast_to(x, (count // len(x), *x.shape)).reshape(count * b, d)
    return gradient(many(x[None]), jnp.repeat(jnp.array(levels), 2 * b), many(pair)).reshape(count, b, d).mean(0)


def fixed_point(gradient, levels=LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """Where the expectation vanishes [2], and the eigenvalues of its slope there: it is stable if they are positive."""
    of_one = lambda x: expected(gradient, x[None], levels)[0]
    origin, slope = jit(lambda x: (of_one(x), jax.jacfwd(of_one)(x)))(jnp.zeros(2))
    return -np.linalg.solve(slope, origin), np.linalg.eigvals(slope).real


def close(found, wanted, rtol=1e-3, atol=1e-3):
    """Sums of a few terms of size 1 in float32, divided by noise rates of 0.06 and more."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(wanted), rtol=rtol, atol=atol)


def summed_pull(gaussian: Gaussian) -> np.ndarray:
    return sum(gaussian.pull(t) for t in LEVELS)


def run(gradient, start, num_steps=600, rate=0.05, keys=None):
    """What Adam makes of `start`, with noise that is drawn; the rate falls to zero."""
    keys = jax.random.split(jax.random.key(0), len(start)) if keys is None else keys

    def estimate(x, known, done, keys, carry):
        noise_keys, level_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
        return gradient(x, draw_levels(level_keys, 0.02, 0.98, 1000), draw_noise(noise_keys, x)), carry

    optimiser = optax.adam(falling_rate(rate, num_steps))
    render = lambda x, keys: (x, None)
    return np.asarray(jit(lambda x: optimised(render, estimate, x, keys, num_steps, optimiser))(start))


# --- score distillation sampling


@both_pairs
def test_sds_ends_at_the_mean_whatever_the_start_and_has_no_variance(pair):
    conditional, _, prior = prior_named(pair)
    ends = run(partial(sds, prior), jax.random.normal(jax.random.key(5), (64, 2)))
    deviation = np.sqrt(np.trace(conditional.covariance))
    assert np.abs(ends - conditional.mean).max() < 0.2 * deviation
    assert ends.std(0).max() < 0.06 * deviation  # samples of the posterior have all of it


@pytest.mark.parametrize("scale", [1.0, 7.5, 100.0])
def test_guided_sds_overshoots_linearly_where_variances_are_equal(scale):
    conditional, unconditional, prior = prior_named("equal")
    found, slopes = fixed_point(partial(sds, prior, guidance=Guidance(scale)))
    expected_point = conditional.mean + (scale - 1) * (conditional.mean - unconditional.mean)
    # A linear solve of float32 slopes; guidance takes differences of numbers as large as its scale.
    close(found, expected_point, atol=1e-3 * scale)
    assert slopes.min() > 0


@pytest.mark.parametrize("scale", [1.0, 7.5, 100.0, 1e4])
def test_guided_sds_ends_where_weighted_precisions_say(scale):
    """x = (k A_c - (k - 1) A_u)^-1 (k A_c m_c - (k - 1) A_u m_u), with A the sum over levels of weighted inverse noisy
    covariances; finite for any k where the condition narrows the distribution."""
    conditional, unconditional, prior = prior_named("unequal")
    found, _ = fixed_point(partial(sds, prior, guidance=Guidance(scale)))
    a_c, a_u = scale * summed_pull(conditional), (scale - 1) * summed_pull(unconditional)
    # A linear solve of float32 slopes; guidance takes differences of numbers as large as its scale.
    close(found, np.linalg.solve(a_c - a_u, a_c @ conditional.mean - a_u @ unconditional.mean), rtol=0.02)


def test_without_end_the_scale_leads_to_where_guidance_alone_does():
    conditional, unconditional = (Gaussian(np.full(2, m), v * np.eye(2)) for m, v in ((0.4, 0.05), (0.1, 0.5)))
    prior = prior_of(conditional, unconditional)
    a_c, a_u = summed_pull(conditional), summed_pull(unconditional)
    limit = np.linalg.solve(a_c - a_u, a_c @ conditional.mean - a_u @ unconditional.mean)
    # A linear solve of float32 slopes; guidance takes differences of numbers as large as its scale.
    close(fixed_point(partial(csd, prior))[0], limit, rtol=0.02)
    far = [fixed_point(partial(sds, prior, guidance=Guidance(k)))[0] for k in (10.0, 100.0, 1000.0)]
    distances = [np.linalg.norm(x - limit) for x in far]
    assert distances[0] > 3 * distances[1] > 9 * distances[2] > 0


def test_guided_sds_flees_where_the_condition_widens_the_distribution():
    narrow, wide = (Gaussian(np.zeros(2) + m, v * np.eye(2)) for m, v in ((0.1, 0.05), (0.0, 0.5)))
    prior = prior_of(wide, narrow)  # as a mixture's condition may: k A_c < (k - 1) A_u
    assert fixed_point(partial(sds, prior))[1].min() > 0
    assert fixed_point(partial(sds, prior, guidance=Guidance(7.5)))[1].max() < 0


def test_csd_never_ends_where_variances_are_equal():
    conditional, unconditional, prior = prior_named("equal")
    pulls = [expected(partial(csd, prior), jnp.full((1, 2), where)) for where in (-3.0, 0.0, 3.0)]
    close(pulls[0], pulls[1], atol=1e-5)
    close(pulls[2], pulls[1], atol=1e-5)
    assert pulls[1][0] @ (conditional.mean - unconditional.mean) < 0  # descends away from the unconditional mean


# --- other forms of the same


@both_pairs
def test_sjc_is_sds_of_weight_one_on_average_and_has_more_variance_at_high_noise(pair):
    _, _, prior = prior_named(pair)
    flat = dataclasses.replace(prior, weight=lambda alpha_t, sigma_t: jnp.ones_like(sigma_t))
    x = jax.random.normal(jax.random.key(1), (4096, 2))
    close(expected(partial(sjc, prior), x), expected(partial(sds, flat), x))
    t, noise = jnp.full(len(x), 600), jax.random.normal(jax.random.key(2), x.shape)
    drawn = lambda form: float(form(0 * x, t, noise).var(0).sum())
    assert drawn(partial(sjc, prior)) > 1.2 * drawn(partial(sds, flat))


@both_pairs
def test_nfsd_takes_the_noise_of_sds_away_where_there_is_little_noise(pair):
    _, _, prior = prior_named(pair)
    x, scale = jnp.zeros((4096, 2)), 7.5
    noise = jax.random.normal(jax.random.key(2), x.shape)
    guided = partial(sds, prior, guidance=Guidance(scale))
    close(expected(partial(nfsd, prior, scale=scale), x, (40,)), expected(guided, x, (40,)))
    variance = lambda gradient, t: float(gradient(x, jnp.full(len(x), t), noise).var(0).sum())
    assert variance(partial(nfsd, prior, scale=1.0), 40) < 0.05 * variance(partial(sds, prior), 40)
    # Above, without a negative condition, guidance is all that is left of it.
    t = jnp.full(len(x), 600)
    close(nfsd(prior, x, t, noise, scale), scale * csd(prior, x, t, noise))


def test_a_negative_condition_repels_where_there_is_much_noise():
    _, unconditional, prior = prior_named("unequal")
    negative = Gaussian(np.array([-1.0, -1.0]), unconditional.covariance)
    repelled = partial(nfsd, prior, scale=1.0, negative=negative.denoiser())
    pull = expected(repelled, jnp.zeros((1, 2)), (600,)) - expected(
        partial(nfsd, prior, scale=1.0), jnp.zeros((1, 2)), (600,)
    )
    close(pull[0], negative.pull(600) @ negative.mean - unconditional.pull(600) @ unconditional.mean)


def test_dds_moves_a_source_by_the_difference_of_means_and_without_noise():
    target, described = equal_gaussians()
    prior = prior_of(target, described)
    source = jnp.array([[0.7, 0.9]])
    gradient = lambda x, t, noise: dds(prior, x, t, noise, jnp.broadcast_to(source, x.shape), described.denoiser())
    close(fixed_point(gradient)[0], source[0] + target.mean - described.mean)
    x = jnp.zeros((2, 2))
    close(gradient(x, jnp.full(2, 300), jnp.zeros((2, 2))), gradient(x, jnp.full(2, 300), 5 * jnp.ones((2, 2))))


def test_a_picture_that_is_described_as_it_is_wanted_is_left_as_it_is():
    target, other = equal_gaussians()
    source, noise = jnp.array([[0.7, 0.9]]), jnp.ones((1, 2))
    assert not np.any(dds(prior_of(target, other), source, jnp.array([300]), noise, source, target.denoiser()))


# --- distributions of particles


def moved(gradient_of, particles, num_steps=3000, rate=0.3):
    """Particles [n, 2] that follow the expectation of the gradient that they make, `gradient_of(particles)`."""
    step = lambda x, _: (x - rate * expected(gradient_of(x), x), None)
    return np.asarray(jit(lambda x: jax.lax.scan(step, x, length=num_steps)[0])(particles), np.float64)


def exact_score(particles):
    """The denoiser of the Gaussian with the particles' moments."""
    mean = particles.mean(0, keepdims=True)
    centred = particles - mean
    covariance = centred.T @ centred / len(particles)

    def predict(x_t, t):
        alpha, sigma = SCHEDULE.signal_rate[t], SCHEDULE.noise_rate[t]
        noisy = alpha[:, None, None] ** 2 * covariance[None] + sigma[:, None, None] ** 2 * jnp.eye(2)[None]
        rest = jnp.linalg.solve(noisy, (x_t - alpha[:, None] * mean)[..., None])[..., 0]
        return mean + alpha[:, None] * rest @ covariance

    return predict


@both_pairs
def test_vsd_with_exact_scores_keeps_mean_and_covariance_and_finds_them(pair):
    conditional, _, prior = prior_named(pair)
    gradient_of = lambda x: partial(vsd, prior, particles=exact_score(x))
    kept = moved(gradient_of, jnp.asarray(conditional.samples(16), jnp.float32), 100)
    found = moved(gradient_of, jnp.asarray(0.5 * Gaussian(np.ones(2), np.eye(2)).samples(16), jnp.float32))
    for particles in (kept, found):
        # Iterated in float32, and stopped near the limit.
        close(particles.mean(0), conditional.mean, atol=5e-3)
        # Iterated in float32, and stopped near the limit.
        close(np.cov(particles.T, bias=True), conditional.covariance, atol=5e-3)


def test_vsd_with_a_score_of_single_points_is_sds():
    _, _, prior = prior_named("unequal")
    x, t, noise = jnp.ones((3, 2)), jnp.array([50, 300, 900]), jax.random.normal(jax.random.key(0), (3, 2))
    close(vsd(prior, x, t, noise, lambda x_t, t: x), sds(prior, x, t, noise), atol=1e-5)


@pytest.mark.parametrize("entropy", [0.6, 0.8, 1.0])
def test_esd_keeps_the_variance_that_its_entropy_pays_for(entropy):
    """At one level: alpha^2 u + sigma^2 = l (alpha^2 v + sigma^2) for the particles' variance u, which is none where
    that leaves nothing; the mean is that of the posterior."""
    v, t = 0.2, 100
    conditional = Gaussian(np.array([0.4, -0.3]), v * np.eye(2))
    prior = prior_of(conditional, conditional)
    start = jnp.asarray(Gaussian(np.zeros(2), 0.1 * np.eye(2)).samples(16), jnp.float32)
    alpha, sigma = (float(rate[t]) for rate in (SCHEDULE.signal_rate, SCHEDULE.noise_rate))

    def step(x, _):
        gradient = partial(esd, prior, particles=exact_score(x), entropy=entropy)
        return x - 8 * expected(gradient, x, (t,)), None

    particles = np.asarray(jit(lambda x: jax.lax.scan(step, x, length=4000)[0])(start))
    kept = entropy * v - (1 - entropy) * sigma**2 / alpha**2
    # Iterated in float32, and stopped near the limit.
    close(particles.mean(0), conditional.mean, atol=5e-3)
    # Iterated in float32, and stopped near the limit.
    close(np.cov(particles.T, bias=True), kept * np.eye(2), atol=5e-3)


def test_esd_with_little_entropy_collapses_at_high_levels():
    v, t = 0.2, 700
    conditional = Gaussian(np.zeros(2), v * np.eye(2))
    gradient_of = lambda x: partial(esd, prior_of(conditional, conditional), particles=exact_score(x), entropy=0.5)
    start = jnp.asarray(conditional.samples(16), jnp.float32)
    step = lambda x, _: (x - expected(gradient_of(x), x, (t,)), None)
    assert np.abs(jit(lambda x: jax.lax.scan(step, x, length=500)[0])(start)).max() < 1e-3


def test_the_learnt_score_knows_more_than_the_moments_of_its_particles():
    """Of two points: it tells which one it was, where a Gaussian of the same moments is uncertain."""
    particles = jnp.repeat(jnp.array([[1.0, 1.0], [-1.0, -1.0]]), 8, axis=0)
    learn = jit(lambda key: ParticleScore.new(key, 2).learned(SCHEDULE, particles, key, 800))
    score, t = learn(jax.random.key(0)), jnp.full(16, 500)
    x_t = SCHEDULE.signal_rate[500] * particles + SCHEDULE.noise_rate[500] * draw_noise(
        jax.random.split(jax.random.key(1), 16), particles
    )
    error = lambda x0: float(jnp.mean(jnp.square(x0 - particles)))
    learnt = error(score.predict(SCHEDULE, particles, x_t, t))
    assert learnt < 0.7 * error(gaussian_prediction(SCHEDULE, particles, x_t, t))


# --- inversion


def exact_trajectory(gaussian: Gaussian, x_T, times):
    """All x_t of DDIM, and its predictions."""
    denoise = lambda x_t, t, carry: (gaussian.denoiser()(x_t, t), carry)
    watch = lambda t, x_t, x0: (x_t, x0)
    return jit(lambda x_T: ddim(denoise, x_T, SCHEDULE, times, callback=watch))(x_T)


@both_pairs
def test_sdi_with_exact_inversion_is_ddim(pair):
    """Where n solves x = D(alpha_t x + sigma_t n), a step along the gradient of the next level, of the length at which
    it is x - D, goes to DDIM's next prediction."""
    conditional, _, prior = prior_named(pair, weight=distillation.of_prediction)
    times, x_T = uniform_timesteps(SCHEDULE, 20), jax.random.normal(jax.random.key(0), (8, 2))
    _, (seen, predictions) = exact_trajectory(conditional, x_T, times)
    levels = [jnp.full(len(x_T), t) for t in times[:-1]]
    x = conditional.denoiser()(x_T, levels[0])
    for number, (above, t) in enumerate(itertools.pairwise(levels), start=1):
        noise = solved_noise(conditional, x, above)
        # x carries the errors of the steps before, each divided by a small slope.
        close(SCHEDULE.signal_rate[above[0]] * x + SCHEDULE.noise_rate[above[0]] * noise, seen[number - 1], atol=0.03)
        x = x - sds(prior, x, t, noise)
        close(x, predictions[number], atol=5e-3)  # each step divides by the denoiser's slope, which is small at first
        # Noise that is drawn leads to the mean instead: the same steps without inversion lose the variance.
    y = conditional.denoiser()(x_T, levels[0])
    for number, t in enumerate(levels[1:]):
        y = y - sds(prior, y, t, jax.random.normal(jax.random.key(number), y.shape))
    assert np.linalg.norm(np.std(x, axis=0)) > 1.3 * np.linalg.norm(np.std(y, axis=0))


def solved_noise(gaussian: Gaussian, x, t):
    """n with x = D(alpha x + sigma n), in the axes in which D's slope alpha C (alpha^2 C + sigma^2)^-1 is diagonal."""
    alpha, sigma = SCHEDULE.signal_rate[t[0]], SCHEDULE.noise_rate[t[0]]
    variances, axes = (jnp.asarray(value, jnp.float32) for value in np.linalg.eigh(gaussian.covariance))
    rest = (x - jnp.asarray(gaussian.mean, jnp.float32)[None]) @ axes
    x_t = rest * ((alpha**2 * variances + sigma**2) / (alpha * variances))[None]  # less alpha times the mean
    return ((x_t - alpha * rest) / sigma) @ axes.T


@both_pairs
def test_inversion_in_more_steps_comes_nearer_to_the_exact_one(pair):
    conditional, _ = PAIRS[pair]
    x, t = jnp.asarray(conditional.samples(8), jnp.float32), jnp.full(8, 700)
    # Without steps, the flow keeps the place among all x_t: (x_t - alpha m) / root(alpha^2 C + sigma^2) is constant.
    variances, axes = (jnp.asarray(value, jnp.float32) for value in np.linalg.eigh(conditional.covariance))
    alpha, sigma = SCHEDULE.signal_rate[700], SCHEDULE.noise_rate[700]
    spread = jnp.sqrt((alpha**2 * variances + sigma**2) / variances)
    mean = jnp.asarray(conditional.mean, jnp.float32)[None]
    exact = alpha * mean + (((x - mean) @ axes) * spread[None]) @ axes.T
    errors = []
    for steps in (5, 20, 80):
        x_t, _ = jit(partial(inverted, conditional.denoiser(), SCHEDULE, num_steps=steps, first_level=0.01))(x, t)
        errors.append(float(jnp.abs(x_t - exact).max()))
        close(noise_from_x0(SCHEDULE, x_t, t, x) * sigma + alpha * x, x_t)
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.1


@both_pairs
def test_ism_ends_at_the_mean_too(pair):
    """Along the flow the noise that a Gaussian sees in x - m grows with the level: its difference over an interval
    points from the mean, and no noise is drawn that could lead elsewhere."""
    conditional, _, prior = prior_named(pair)

    def gradient(x, t, noise):
        s = t - 30
        x_s, _ = inverted(prior.conditional, SCHEDULE, x, s, 10, 0.01)
        return ism(prior, x_s, s, prior.noise(x_s, s), t)

    found, slopes = fixed_point(gradient, (200, 500, 800))
    # A linear solve of float32 slopes; guidance takes differences of numbers as large as its scale.
    close(found, conditional.mean, atol=5e-3)
    assert slopes.min() > 0


# --- samplers, and reuse


@pytest.mark.parametrize("num_steps", [10, 50])
def test_cfg_plus_plus_is_guidance_that_grows_with_the_number_of_steps(num_steps):
    conditional, unconditional = (gaussian.denoiser() for gaussian in PAIRS["unequal"])
    times, x_T = uniform_timesteps(SCHEDULE, num_steps), jax.random.normal(jax.random.key(0), (8, 2))
    scales = guidance_scales(SCHEDULE, times, 0.6)

    def guided(x_t, t, number):
        both = conditional(x_t, t), unconditional(x_t, t)
        return classifier_free_guidance(*both, scales[number]), number + 1

    plain = jit(lambda x: ddim(guided, x, SCHEDULE, times, carry=jnp.zeros((), int)))(x_T)
    both = lambda x_t, t: (conditional(x_t, t), unconditional(x_t, t))
    # The same steps, in another order of float32; the scale enlarges it.
    close(jit(lambda x: cfg_plus_plus(both, x, SCHEDULE, times, 0.6))(x_T), plain, atol=5e-3)
    assert scales[-1] == pytest.approx(0.6)
    finer = guidance_scales(SCHEDULE, uniform_timesteps(SCHEDULE, 2 * num_steps), 0.6)
    assert finer[num_steps] > 1.6 * scales[num_steps // 2]


def test_a_rendering_that_is_reused_has_the_same_expectation_and_less_variance():
    _, _, prior = prior_named("unequal")
    x, m = jnp.ones((4096, 2)), 4
    t, noise = jnp.full((m, len(x)), 300), jax.random.normal(jax.random.key(0), (m, *x.shape))
    many, one = reused(partial(sds, prior), x, t, noise), sds(prior, x, t[0], noise[0])
    np.testing.assert_allclose(many.var(0), one.var(0) / m, rtol=0.15)  # 4096 draws: 2 % each, and once more
    # The mean of 4 x 4096 draws.
    np.testing.assert_allclose(many.mean(0), expected(partial(sds, prior), x[:1], (300,))[0], atol=0.01)


def test_a_result_depends_on_its_own_key_alone():
    _, _, prior = prior_named("unequal")
    keys, start = jax.random.split(jax.random.key(4), 6), jnp.ones((6, 2))
    together = run(partial(sds, prior), start, 20, keys=keys)
    alone = run(partial(sds, prior), start[2:3], 20, keys=keys[2:3])
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-5)
    assert np.abs(np.diff(together, axis=0)).min() > 1e-4
