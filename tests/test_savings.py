"""Work that sampling leaves out: none of it by default, and what it costs where it is left out."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import linear, toy
from dfm_jax.config.marching import marching_levels
from dfm_jax.config.reading import ConfigError, from_dict
from dfm_jax.denoiser import cache_context, denoise
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.radiance_field.networks import Savings
from dfm_jax.rendering.compaction import Compaction
from dfm_jax.rendering.ray_marching import render_by_itself, render_by_proposal, render_coarse_to_fine
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.structs import Rays
from tests.tiny import (
    LOSS,
    NUM_COARSE,
    NUM_FINE,
    SIZE,
    assert_trees_close,
    jit,
    random_params,
    tiny_example,
    tiny_model,
)

TIMESTEPS = 100
EXAMPLE = tiny_example()
MODEL = tiny_model()
PARAMS = random_params(MODEL)
ONE_FIELD = tiny_model(num_fine=0)  # half the program, where fine samples are not the question
# One field in both places: then where fine samples go does not depend on which of the two says it.
SHARED = PARAMS | {"scene_field": dict.fromkeys(("coarse", "fine"), PARAMS["scene_field"]["fine"])}
X_T = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE, 3))
SAMPLE = from_dict(toy.get_config()).sample
AS_MADE = f"{NUM_COARSE}+{NUM_FINE}"


# --- compaction, of a field that is a function of the distance


NUM_RAYS, COARSE, FINE = 40, 24, 16
NEAR, FAR = jnp.array([1.0]), jnp.array([5.0])
RAYS = Rays(
    jnp.stack([jnp.linspace(0, 1, NUM_RAYS), jnp.zeros(NUM_RAYS), jnp.zeros(NUM_RAYS)], -1)[None],
    jnp.broadcast_to(jnp.array([0.0, 0, 1]), (1, NUM_RAYS, 3)),
)
COUNTS = {"num_coarse": COARSE, "num_fine": FINE, "background": 0.5}


def wall(rays, distances):
    """Opaque from a distance on that differs between rays; a sixth of the rays meet nothing."""
    x = rays.origins[..., :1]
    density = jnp.where(x < 1 / 6, 0.0, 40.0 * jax.nn.sigmoid(20 * (distances - 2 - x)))
    return density, 0.5 + 0.5 * jnp.sin(jnp.stack([3 * distances, 5 * distances + x, x + 0 * distances], -1))


def wall_of_samples(rays, distances, index):
    some = jax.tree.map(lambda x: x[:, index[0] // distances.shape[2]], rays)
    density, radiance = wall(some, distances.reshape(1, -1)[:, index[0], None])
    return density[..., 0], radiance[..., 0, :]


@functools.partial(jit, static_argnums=(0, 1))
def march(name: str, share: float | None):
    """The wall in one of the layouts, with a compaction to a share of its samples."""
    compaction = None if share is None else Compaction(share, wall_of_samples)
    fields = {"coarse": (render_coarse_to_fine, wall), "itself": (render_by_itself, wall)}
    fields["proposal"] = render_by_proposal, lambda *of: wall(*of)[0]
    render, first = fields[name]
    return render(first, wall, RAYS, NEAR, FAR, None, compaction=compaction, **COUNTS)


LAYOUTS = ["coarse", "itself", "proposal"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_bucket_for_all_samples_changes_nothing(name):
    # Another program: float32's rounding.
    assert_trees_close(march(name, 1.0), march(name, None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("share", [0.6, 0.3, 0.05])
def test_a_colour_is_wrong_by_the_weight_that_is_dropped_at_most(name, share):
    exact, some = march(name, None), march(name, share)
    dropped = np.where(some.weights > 0, 0, exact.weights).sum(-1)
    kept = np.mean(some.weights > 0)
    if name == "itself":  # all of its even distances are looked at
        even, fine = COUNTS["num_coarse"], COUNTS["num_fine"]
        share = (even + share * fine) / (even + fine)
    assert 0 < kept <= share + 1e-6
    # Float32's rounding of a sum of weights beside the bound.
    assert np.all(np.abs(some.rgb - exact.rgb).max(-1) <= dropped + 1e-5)
    if share == 0.05:  # not of "itself"
        assert dropped.max() > 0.1  # there was something to be bounded


def test_what_is_empty_or_hidden_is_what_is_dropped():
    """With a bucket for what has any weight, the error is far below what an image file can hold."""
    exact = march("coarse", None)
    needed = float(np.mean(exact.weights > 1e-4))
    assert needed < 0.6
    assert np.abs(march("coarse", needed + 0.05).rgb - exact.rgb).max() < 1e-3


# --- the same through the networks


@functools.cache
def inferred(timestep):
    """Context and scene of a denoising step of `PARAMS`, of the example and of the same without its context: savings
    change neither, and are compiled without them."""
    return jax.device_get(infer(PARAMS, timestep))


@jit
def infer(params, timestep):
    context = cache_context(params, MODEL, EXAMPLE, guided=True).context
    return context, MODEL.infer(params, context, twice(X_T), jnp.full(4, timestep)).signal


def twice(tree):
    return jax.tree.map(lambda x: jnp.concatenate([x, x]), tree)


@functools.partial(jit, static_argnums=(0, 2))
def observed(model, scene_field, cache_bytes, example, context, scene):
    params = PARAMS | {"scene_field": scene_field}
    query = model.cache(params, context, model.target(example)[1], cache_bytes)
    x0 = model.to_x0(model.observe(params, scene, query))
    return x0.reshape(*example.near.shape, *X_T.shape[1:])


def step(model, params, cache_bytes=2**30):
    """The x0 of a denoising step, of parameters that differ from `PARAMS` in the fields of the scene alone."""
    assert all(params[part] is PARAMS[part] for part in ("encoder", "conditioning_field"))
    conditional = jax.tree.map(lambda x: x[:2], inferred(50))
    return observed(model, params["scene_field"], cache_bytes, EXAMPLE, *conditional)


def saving(model=MODEL, **settings):
    return model.saving(dataclasses.replace(SAMPLE, **settings))


@pytest.mark.parametrize("coarse_pass", ["coarse", "fine"])
def test_samples_are_evaluated_alone_as_together(coarse_pass):
    # So near 1 that all samples of a chunk fit the bucket: they only take the way through it.
    compacted = step(saving(kept_samples=0.9999, coarse_pass=coarse_pass), PARAMS)
    # Lookups and the sums over views come in another order, behind codes that enlarge float32's rounding.
    assert_trees_close(compacted, step(saving(coarse_pass=coarse_pass), PARAMS), rtol=1e-3, atol=1e-4)


def test_a_proposals_samples_are_compacted_as_well():
    proposal = dataclasses.replace(MODEL.config.scene_field, width=8)
    model = tiny_model(proposal=proposal, loss=dataclasses.replace(LOSS, coarse=0.0, interlevel=1.0))
    params = PARAMS | {"scene_field": random_params(model)["scene_field"]}
    # As above.
    assert_trees_close(step(saving(model, kept_samples=0.9999), params), step(model, params), rtol=1e-3, atol=1e-4)
    few = np.asarray(step(saving(model, kept_samples=0.1), params))
    assert 1e-3 < np.abs(few - step(model, params)).mean() < 1


@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_the_fine_field_takes_the_place_of_an_equal_coarse_one(cache_bytes):
    fine = saving(coarse_pass="fine")
    # As above.
    assert_trees_close(step(fine, SHARED, cache_bytes), step(MODEL, SHARED), rtol=1e-3, atol=1e-4)
    # And the coarse field is not asked.
    assert_trees_close(step(fine, SHARED, cache_bytes), step(fine, PARAMS, cache_bytes), rtol=0, atol=0)
    assert np.abs(step(MODEL, SHARED) - step(MODEL, PARAMS)).max() > 1e-3


def test_a_model_of_one_field_is_asked_twice_for_fine_samples():
    alone = ONE_FIELD
    params = PARAMS | {"scene_field": {"coarse": SHARED["scene_field"]["coarse"]}}
    twice = alone.at_level(marching_levels(f"0:{AS_MADE}")[0])
    # As above.
    assert_trees_close(step(twice, params), step(MODEL, SHARED), rtol=1e-3, atol=1e-4)


def test_training_leaves_nothing_out():
    config = from_dict(toy.get_config("tiny,fine"))
    sample = {"coarse_pass": "fine", "kept_samples": 0.5, "marching_schedule": "0:4"}
    config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, **sample))
    assert make_model(config).networks.savings == Savings()
    assert DiffusionSampler.from_config(config, {}).model.networks.savings == Savings("fine", 0.5)


# --- the marching schedule


def sampler(schedule="", model=MODEL, params=PARAMS, **settings) -> DiffusionSampler:
    settings = {"marching_schedule": schedule, "context_cache_gb": 4.0, "guidance": 1.0} | settings
    return DiffusionSampler(model, params, cosine_schedule(TIMESTEPS), dataclasses.replace(SAMPLE, **settings))


@jit
def x0_at(made: DiffusionSampler, timestep):
    cache = made.cache_context(EXAMPLE)
    return made.denoise_fn(cache)(X_T, jnp.full(2, timestep), jnp.zeros_like(X_T))[0]


def of_level(level: str, timestep: int):
    """The x0 of one field, guided by 2 and observed at one level: by itself, of what is inferred in any case."""
    model = ONE_FIELD.at_level(marching_levels(f"0:{level}")[0]) if level else ONE_FIELD
    fields = {"coarse": PARAMS["scene_field"]["coarse"]}
    conditional, unconditional = np.split(observed(model, fields, 2**30, twice(EXAMPLE), *inferred(timestep)), 2)
    return unconditional + 2 * (conditional - unconditional)


def test_where_nothing_may_be_cached_no_level_caches_anything():
    made = sampler(f"0:{AS_MADE},0.5:4", context_cache_gb=0.0)
    cache = jax.eval_shape(made.cache_context, EXAMPLE)
    assert [cached.activations for _, cached in (cache.query, *cache.other_queries)] == [{}, {}]


def test_levels_as_the_model_was_made_change_nothing():
    assert_trees_close(of_level(f"{NUM_COARSE}", 90), of_level("", 90), rtol=0, atol=0)
    assert_trees_close(step(MODEL.at_level(marching_levels(f"0:{AS_MADE}")[0]), PARAMS), step(MODEL, PARAMS), 0, 0)


def test_the_noise_level_says_how_finely_a_step_marches():
    """Down to as the model was made, and so below the lowest level, too."""
    params = PARAMS | {"scene_field": {"coarse": PARAMS["scene_field"]["coarse"]}}
    scheduled = sampler(f"0.6:4/2,0.2:5,0.1:{NUM_COARSE}", ONE_FIELD, params, guidance=2.0)
    levels = {9: "", 10: "", 19: "", 20: "5", 59: "5", 60: "4/2", 99: "4/2"}
    for timestep, level in levels.items():
        # Other programs: float32's rounding.
        assert_trees_close(x0_at(scheduled, timestep), of_level(level, timestep))


@pytest.mark.parametrize("grid", ["centres", "corners"])
def test_fewer_rays_make_the_image_that_they_are_the_pixels_of(grid):
    model = tiny_model(pixel_grid=grid, num_fine=0)
    small, level = SIZE // 2, model.at_level(marching_levels(f"0:{NUM_COARSE}/2")[0])
    camera = jax.tree.map(lambda x: x[:, :1], EXAMPLE.target.camera)

    @jit
    def both(params):
        cache = cache_context(params, level, EXAMPLE, cache_bytes=2**30)
        denoised = denoise(params, level, X_T, jnp.full(2, 50), cache)
        return denoised.x0, model.render(params, denoised.signal, camera, small, small).rgb[:, 0]

    x0, rendered = both(PARAMS)
    # The rays of `x0` are known to be seen in one pixel of the noisy view: float32's rounding of projected points.
    close = {"rtol": 1e-3, "atol": 1e-3}
    if grid == "centres":
        resized = jax.image.resize(2 * rendered - 1, x0.shape, "bilinear")
        np.testing.assert_allclose(x0, resized, **close)
    else:  # whose corners lie where those of the large image do
        corners = np.ix_(range(2), [0, -1], [0, -1])
        np.testing.assert_allclose(x0[corners], 2 * rendered[corners] - 1, **close)


@pytest.mark.parametrize("coarse_pass", ["coarse", "fine"])
def test_without_fine_samples_the_first_field_is_the_result(coarse_pass):
    settings = {"num_coarse": 8, "num_fine": 0}
    alone = ONE_FIELD
    config = alone.config
    marching = dataclasses.replace(config.ray_marching, **settings)
    networks = dataclasses.replace(alone.networks, config=dataclasses.replace(config, ray_marching=marching))
    alone = dataclasses.replace(alone, networks=networks)
    params = PARAMS | {"scene_field": {"coarse": PARAMS["scene_field"][coarse_pass]}}
    level = saving(coarse_pass=coarse_pass).at_level(marching_levels("0:8")[0])
    assert_trees_close(step(level, PARAMS), step(alone, params), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
def test_a_schedule_is_for_every_sampler_and_its_callback(name):
    model = tiny_model(num_fine=0, deterministic=True)  # half the program: how an image is marched is the question
    made = sampler("0.5:4/2", model, random_params(model), sampler=name, num_steps=3, spacing="log-snr")
    keys = jax.random.split(jax.random.key(1), 2)
    samples, (timesteps, x0) = jit(lambda s: s.sample(EXAMPLE, keys, lambda t, x_t, x0: (t, x0)))(made)
    assert len(timesteps) == 3 and timesteps[0] == 99 and timesteps[-1] < 50
    enlarge = np.asarray(jax.image.resize(jnp.eye(SIZE // 2), (SIZE, SIZE // 2), "bilinear"))
    smooth = enlarge @ np.linalg.pinv(enlarge)  # leaves images as they are that were made of a quarter of their pixels
    rest = [np.abs(np.einsum("ih,jw,bhwc->bijc", smooth, smooth, x) - x).max() for x in (x0[0], x0[-1])]
    assert rest[0] < 1e-5 < 1e-3 < rest[1] and np.all(np.isfinite(samples.x0))


# --- settings


def config_with(variant="tiny,fine", config=toy, **sample):
    values = config.get_config(variant) if config is toy else config.get_config()
    values.sample.update(sample)
    return from_dict(values)


def test_levels_are_read_from_text():
    read = marching_levels(" 0.8 : 24 + 16 / 2, 0:64+32,0.95:8/4 ")
    assert [dataclasses.astuple(level) for level in read] == [(0, 64, 32, 1), (0.8, 24, 16, 2), (0.95, 8, 0, 4)]
    assert marching_levels("") == () == marching_levels(" ")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"marching_schedule": "64+32"}, "is no schedule"),
        ({"marching_schedule": "0.5:64,"}, "is no schedule"),
        ({"marching_schedule": "0.1.2:64"}, "no number"),
        ({"marching_schedule": "1.5:64"}, "noise_level must be"),
        ({"marching_schedule": "0.5:2"}, "coarse must be at least 3"),
        ({"marching_schedule": "0.5:8/0"}, "stride must be at least 1"),
        ({"marching_schedule": "0.5:8,0.5:9"}, "same noise level"),
        ({"marching_schedule": "0.5:8/5"}, "must divide image_size"),
        ({"marching_schedule": "0.5:8", "variant": "tiny,lean"}, "model.proposal has no colour"),
        ({"coarse_pass": "fine", "variant": "tiny"}, "needs model.ray_marching.num_fine"),
        ({"coarse_pass": "fine", "variant": "tiny,lean"}, "no model.proposal"),
        ({"coarse_pass": "both"}, "must be one of coarse, fine"),
        ({"kept_samples": 0.5, "variant": "tiny"}, "needs model.ray_marching.num_fine"),
        ({"kept_samples": 0.0}, "kept_samples must be above"),
        ({"marching_schedule": "0.5:8", "config": linear}, "renders no scene"),
    ],
)
def test_what_cannot_be_saved_is_one_clear_error(sample, message):
    with pytest.raises(ConfigError, match=message.replace("+", r"\+")):
        config_with(**sample)
