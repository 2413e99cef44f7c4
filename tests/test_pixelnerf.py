"""pixelNeRF, the deterministic stage: what it sees, what it is trained on, and what the next stage takes of it."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config import FieldConfig, LossConfig
from dfm_jax.config.command_line import read_config
from dfm_jax.denoiser import cache_context, denoise, predict
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.pixelnerf import PixelNeRF
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.training.transfer import plan, transfer
from tests.test_configs import CONFIGS as NAMES
from tests.test_configs import choices
from tests.tiny import NUM_COARSE, SIZE, assert_trees_close, jit, random_params, reconfigured, tiny_example, tiny_model

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
MODEL = tiny_model(num_fine=0, deterministic=True)
NO_WEIGHTS = LossConfig(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, pixels="random", patch_size=1)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def test_it_has_no_part_that_only_noisy_views_need(params):
    assert isinstance(MODEL, PixelNeRF)
    assert params.keys() == {"encoder", "scene_field"}
    assert "noisy_stem" not in params["encoder"]
    made = parameter_shapes(MODEL)
    assert jax.tree.structure(made) == jax.tree.structure(params)


def test_it_never_looks_at_the_noisy_image(params):
    example, timestep = tiny_example(), jnp.array([10, 700])
    x_t = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE, 3))
    run = jit(lambda x, example: denoise(params, MODEL, x, timestep, cache_context(params, MODEL, example)).x0)
    np.testing.assert_array_equal(run(x_t, example), run(-x_t, example))
    other = example.replace(context=example.context.replace(images=1 - example.context.images))
    assert np.abs(run(x_t, other) - run(x_t, example)).max() > 1e-3


def test_its_loss_is_that_of_the_target_views_alone(params):
    example, timestep = tiny_example(), jnp.array([10, 700])
    noise = jax.random.normal(jax.random.key(0), (2, SIZE, SIZE, 3))
    keys = jax.random.split(jax.random.key(1), 2)
    run = jit(lambda p: predict(p, MODEL, cosine_schedule(), example, timestep, noise, keys))
    terms = MODEL.loss_terms(example, run(params), NO_WEIGHTS)
    assert terms.keys() == {"target"} and np.all(np.asarray(terms["target"]) > 0)


def flatten(tree, path=()):
    for name, value in tree.items():
        yield from flatten(value, (*path, name)) if isinstance(value, dict) else [(*path, name)]


def same_samples(model):
    """The model with an estimate that looks at the image as pixelNeRF does: all of its pixels and samples."""
    marching = dataclasses.replace(model.config.ray_marching, num_conditioning=NUM_COARSE)
    return reconfigured(model, ray_marching=marching, estimate_size=SIZE)


def test_the_next_stage_estimates_what_pixelnerf_rendered(params):
    next_model = same_samples(tiny_model(num_fine=0))
    made, _ = transfer(params, random_params(next_model, seed=1), "pixelnerf")
    example, x_t, clean = tiny_example(), jnp.ones((2, SIZE, SIZE, 3)), jnp.zeros(2, jnp.int32)
    look = lambda p, model: denoise(p, model, x_t, clean, cache_context(p, model, example))
    before = jit(lambda p: look(p, MODEL).observation)(params)
    after = jit(lambda p: look(p, next_model).estimate)(made)
    assert_trees_close(before, after.replace(features=before.features))


def test_the_next_stages_noisy_view_is_seen_as_the_image_estimated_for_it(params):
    next_model = tiny_model(num_fine=0)
    made, _ = transfer(params, random_params(next_model, seed=1), "pixelnerf")
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(1, SIZE, SIZE, 3 + 3 + 1 + 4)), jnp.float32)
    stem = lambda name, x: next_model.networks.encoder.apply(
        {"params": made["encoder"]}, x, method=lambda encoder, x: getattr(encoder, name)(x)
    )
    np.testing.assert_allclose(stem("noisy_stem", inputs), stem("clean_stem", inputs[..., 3:6]), atol=1e-5)


def test_a_transfer_tells_what_became_of_every_array(params):
    fresh = random_params(tiny_model(num_fine=3), seed=1)
    extra = params | {"old_head": {"kernel": jnp.ones((2, 2))}}
    made, plans = transfer(extra, fresh, "pixelnerf")
    assert plans.dropped == ("old_head/kernel",)
    fine = {"/".join(name) for name in flatten(fresh) if name[:2] == ("scene_field", "fine")}
    assert set(plans.new) == fine
    assert plans.taken["conditioning_field/out/kernel"] == "scene_field/coarse/out/kernel"
    report = plans.report()
    assert "new: scene_field/fine" in report and "dropped: old_head/kernel" in report
    assert "conditioning_field/out <- scene_field/coarse" in report
    assert_trees_close(made["scene_field"]["fine"], fresh["scene_field"]["fine"], rtol=0, atol=0)
    assert_trees_close(made["scene_field"]["coarse"], params["scene_field"]["coarse"], rtol=0, atol=0)


def test_the_same_model_is_taken_whole_or_refused(params):
    fresh = random_params(MODEL, seed=1)
    made, plans = transfer(params, fresh, "same")
    assert_trees_close(made, params, rtol=0, atol=0)
    assert not plans.new and not plans.dropped
    with pytest.raises(UserError, match=r"init_rule='pixelnerf'(?s:.*)missing: conditioning_field/out/kernel"):
        transfer(params, random_params(tiny_model(num_fine=0)), "same")


@pytest.mark.parametrize("rule", ["same", "pixelnerf"])
def test_arrays_of_another_shape_are_refused_by_name(params, rule):
    wider = params | {"scene_field": jax.tree.map(lambda x: jnp.zeros((*x.shape, 1)), params["scene_field"])}
    with pytest.raises(UserError, match=r"scene_field/coarse/out/bias is \(8, 1\), not \(8,\)"):
        transfer(wider, random_params(MODEL, seed=1), rule)


def shapes_of(name, variant):
    config = read_config(f"{CONFIGS / name}.py:{variant}")
    model = make_model(config)
    return parameter_shapes(model)


CHAINS = {  # stages that can follow a shipped pixelNeRF
    ("toy", "pixelnerf"): ("", "calibrated", "lean", "fine"),
    ("toy", "pixelnerf-resnet34"): ("resnet34",),
    ("realestate10k", "pixelnerf"): ("64", "128", "64-lean", "128-lean"),
    ("realestate10k", "pixelnerf-resnet34"): ("64-resnet34", "128-resnet34"),
    ("co3d", "pixelnerf"): ("64", "128", "64-lean", "128-lean"),
    ("co3d", "pixelnerf-resnet34"): ("64-resnet34", "128-resnet34"),
    ("srn", "pixelnerf"): ("128", "128-lean"),
    ("minens", "pixelnerf"): ("48", "48-lean"),
    ("shapes", "pixelnerf"): ("", "fine"),
    ("shapes", "pixelnerf-resnet34"): ("resnet34",),
}


@pytest.mark.parametrize(("name", "variant"), CHAINS, ids=lambda word: word)
def test_every_shipped_recipe_follows_its_pixelnerf(name, variant):
    source = shapes_of(name, variant)
    for after in CHAINS[name, variant]:
        found = plan(source, shapes_of(name, after), "pixelnerf")
        of = {part: [n for n in found.taken if n.startswith(part)] for part in ("encoder", "scene_field")}
        # The toy's proposal and fine field stand where its pixelNeRF has a coarse one.
        assert of["encoder"] and bool(of["scene_field"]) == ((name, after) != ("toy", "lean"))
        assert not [n for n in found.new if n.startswith("encoder")], after
        # For objects the conditioning field is smaller than any scene field, and begins anew.
        of_objects = name in ("toy", "shapes", "srn", "minens")
        assert found.other_size == of_objects == any(n.startswith("conditioning_field") for n in found.new)


def test_every_shipped_pixelnerf_has_stages_that_follow_it():
    of = {name: [word for choice in choices(name) for word in choice] for name in NAMES}
    assert {name for name, _ in CHAINS} == {name for name in of if "pixelnerf" in of[name]}


def test_a_field_of_another_size_begins_anew_as_a_whole_and_an_encoder_is_refused(params):
    field = FieldConfig(width=12, view_blocks=2, joint_blocks=1, density_bias=0.5)
    model = tiny_model(num_fine=0)
    smaller = reconfigured(model, conditioning_field=field)
    fresh = random_params(smaller, seed=1)
    made, found = transfer(params, fresh, "pixelnerf")
    assert_trees_close(made["conditioning_field"], fresh["conditioning_field"], rtol=0, atol=0)
    assert_trees_close(made["scene_field"], params["scene_field"], rtol=0, atol=0)
    assert "the conditioning field is of another size" in found.report()
    larger = reconfigured(model, scene_field=field)
    with pytest.raises(UserError, match="scene_field/coarse/out/kernel is"):
        plan(params, random_params(larger, seed=1), "pixelnerf")
