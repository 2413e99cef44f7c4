"""What a sampler decides: whether steps are guided and where, and which size scenes are rendered at."""

import dataclasses
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import toy
from dfm_jax.config import FITTED, SAMPLERS, SPACINGS
from dfm_jax.config.reading import from_dict
from dfm_jax.denoiser import cache_context, denoise
from dfm_jax.diffusion.fitted_solver import dpm_solver_as_fitted
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.diffusion.timesteps import log_snr_timesteps
from dfm_jax.forward_models.linear import LinearModel
from dfm_jax.sampling.diffusion_sampler import STEP_NOISE, DiffusionSampler, sample_keys
from tests.tiny import UNCHUNKED, jit, random_camera, random_params, tiny_model, tiny_scene

STEPS, COUNT = 100, 4
MODEL = LinearModel(STEPS)
PARAMS = jax.tree.map(lambda x: jax.random.normal(jax.random.key(3), x.shape), MODEL.init(jax.random.key(0)))
EXAMPLE = jax.tree.map(jnp.asarray, MODEL.generate(0, np.arange(COUNT)))
CURES = {"guidance_rescale": 0.0, "guidance_parallel": 1.0, "guidance_momentum": 0.0, "guidance_bound": 0.0}


def sampler(**settings) -> DiffusionSampler:
    sample = from_dict(toy.get_config()).sample
    sample = dataclasses.replace(sample, **{"guidance_from": 0.0, "guidance_to": 1.0, **CURES, **settings})
    schedule = cosine_schedule(STEPS)
    solver = dpm_solver_as_fitted(schedule, log_snr_timesteps(schedule, sample.num_steps))
    return DiffusionSampler(MODEL, PARAMS, schedule, sample, solver=solver if sample.sampler == FITTED else None)


def step(made: DiffusionSampler, timestep: int) -> np.ndarray:
    """What its denoiser makes of some noise."""
    x_t = jax.random.normal(jax.random.key(1), (COUNT, 2))
    denoise_fn = made.denoise_fn(made.cache_context(EXAMPLE))
    return np.asarray(denoise_fn(x_t, jnp.full(COUNT, timestep), jnp.zeros_like(x_t))[0])


def branch(dropped: bool, timestep: int) -> np.ndarray:
    """The same, straight from the model, with or without the context."""
    example = MODEL.drop_context(EXAMPLE, jnp.full(COUNT, dropped))
    x_t = jax.random.normal(jax.random.key(1), (COUNT, 2))
    return np.asarray(denoise(PARAMS, MODEL, x_t, jnp.full(COUNT, timestep), cache_context(PARAMS, MODEL, example)).x0)


@pytest.mark.parametrize("timestep", [10, 50, 90])
def test_guidance_is_that_of_the_two_branches_within_its_interval(timestep):
    conditional, unconditional = branch(False, timestep), branch(True, timestep)
    assert np.abs(conditional - unconditional).max() > 0.1
    guided = unconditional + 3.0 * (conditional - unconditional)
    np.testing.assert_allclose(step(sampler(guidance=1.0), timestep), conditional, atol=1e-5)
    # Guidance in numpy multiplies the branches' rounding by 3.
    np.testing.assert_allclose(step(sampler(guidance=3.0), timestep), guided, rtol=1e-4, atol=1e-4)
    limited = step(sampler(guidance=3.0, guidance_from=0.4, guidance_to=0.6), timestep)
    # As above.
    np.testing.assert_allclose(limited, guided if timestep == 50 else conditional, rtol=1e-4, atol=1e-4)


def test_a_scale_that_is_an_argument_takes_the_place_of_the_settings():
    scaled = sampler(guidance=2.0).replace(guidance_scale=jnp.float32(3.0))
    np.testing.assert_allclose(step(scaled, 50), step(sampler(guidance=3.0), 50), rtol=1e-5)
    assert np.abs(step(scaled, 50) - step(sampler(guidance=2.0), 50)).max() > 0.1


@pytest.mark.parametrize("name", ["ddim", "ddpm"])
def test_a_sample_depends_on_its_own_key_only(name):
    keys = sample_keys(jax.random.key(0), jnp.arange(COUNT), jnp.array([0, 0, 1, 2]))
    made = sampler(sampler=name, num_steps=5, guidance=2.0)
    sample = jax.jit(lambda example, keys: made.sample(example, keys).x0)
    turned = jax.tree.map(lambda x: x[::-1], (EXAMPLE, keys))
    # The scenes stand elsewhere in the batch: float32's rounding through the steps.
    np.testing.assert_allclose(sample(*turned)[::-1], sample(EXAMPLE, keys), rtol=1e-4, atol=1e-5)
    again = sample_keys(jax.random.key(0), jnp.array([2, 3]), jnp.array([1, 2]))
    np.testing.assert_array_equal(jax.random.key_data(again), jax.random.key_data(keys[2:]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_guided_and_thresholded(name):
    keys = sample_keys(jax.random.key(0), jnp.arange(COUNT), jnp.int32(0))
    settings = {"sampler": name, "spacing": "log-snr", "num_steps": 4}
    sample = lambda **changes: np.asarray(sampler(**settings, **changes).sample(EXAMPLE, keys).x0)
    plain = sample(guidance=1.0)
    guided = sample(guidance=2.0, guidance_momentum=-0.5, guidance_to=0.5, threshold_quantile=0.9)
    assert np.abs(plain).max() > 1 >= np.abs(guided).max()
    assert np.abs(guided - np.clip(plain, -1, 1)).max() > 1e-3


def test_the_noise_of_a_step_is_no_initial_noise_of_a_view():
    # Views along a path begin with noise from the sample's key, folded with their numbers.
    key = jax.random.key(0)
    of_steps = jax.random.fold_in(key, STEP_NOISE)
    step_noise = {float(jax.random.normal(jax.random.fold_in(of_steps, n))) for n in range(20)}
    views = {float(jax.random.normal(jax.random.fold_in(key, n))) for n in range(20)}
    assert len(step_noise | views | {float(jax.random.normal(key))}) == 41


def test_names_of_configs_are_functions():
    for name in (*SAMPLERS.values(), *SPACINGS.values()):
        assert callable(pkgutil.resolve_name(name))


def test_a_scene_is_rendered_at_any_height_and_width():
    model = tiny_model(chunk_size=UNCHUNKED)
    made = sampler().replace(model=model, params=random_params(model))
    camera = jax.tree.map(lambda x: x[:, None], random_camera(np.random.default_rng(3), (2,)))
    render = lambda height, width: jit(lambda scene: made.render(scene, camera, height, width))(tiny_scene())
    wide, square = render(2, 6), render(2, 2)
    assert wide.rgb.shape == (2, 1, 2, 6, 3) and wide.depth.shape == wide.opacity.shape == (2, 1, 2, 6)
    # Of three columns, the middle one looks where one as wide as the three looks.
    for one, other in zip(jax.tree.leaves(wide), jax.tree.leaves(square), strict=True):
        # Another number of pixels is another program: float32's rounding through the field.
        np.testing.assert_allclose(one[:, :, :, 1::3], other, rtol=1e-4, atol=1e-4)
