"""Laws of every forward model that `build.py` knows: a new one is held to them by its entry there and its config
(`tests/forward_model_cases.py`). `test_forward_model_runs.py` holds its runs to more.
"""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from dfm_jax.commands.stablehlo import export_denoiser, to_inputs
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import MODELS, make_model
from dfm_jax.forward_models.protocol import GeneratingModel, SceneModel
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.signals import sample_signals
from dfm_jax.structs import Example
from tests.forward_model_cases import BATCH, Case, case_of
from tests.tiny import jit


@pytest.fixture(params=MODELS)
def case(request) -> Case:
    return case_of(request.param)


def context_leaves(case: Case) -> list[bool]:
    """Which arrays of an example are the context: those that dropping it changes."""
    dropped = case.model.drop_context(case.example, jnp.ones(BATCH, bool))
    same = jax.tree.map(lambda a, b: bool(np.all(np.asarray(a) == np.asarray(b))), case.example, dropped)
    return [not x for x in jax.tree.leaves(same)]


def another(x: Any) -> Any:
    return 0.5 * x[::-1] + 0.1 if x.dtype == jnp.float32 else x


def with_another_context(case: Case) -> Any:
    leaves, structure = jax.tree.flatten(case.example)
    changed = [another(x) if of_context else x for x, of_context in zip(leaves, context_leaves(case), strict=True)]
    return jax.tree.unflatten(structure, changed)


def with_another_truth(case: Case) -> Any:
    """The example with other values where they make `x0`, and neither its query nor the context."""
    leaves, structure = jax.tree.flatten(case.example)
    x0, query = case.model.target(case.example)
    changed = list(leaves)
    for i, of_context in enumerate(context_leaves(case)):
        one = another(leaves[i])
        other_x0, other_query = case.model.target(structure.unflatten([*leaves[:i], one, *leaves[i + 1 :]]))
        same_query = jax.tree.all(jax.tree.map(lambda a, b: bool(np.all(a == b)), query, other_query))
        if not of_context and same_query and not np.array_equal(x0, other_x0, equal_nan=True):
            changed[i] = one
    return structure.unflatten(changed)


# Float32's rounding through a whole model, compiled in another program or in another order.
close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)


def test_a_model_is_a_value_and_its_parameters_a_function_of_the_key(case):
    assert make_model(case.config) == case.model and hash(make_model(case.config)) == hash(case.model)
    # As programs, which are not compiled: whatever was drawn or read elsewhere than from the key is a constant of one.
    one, again = (jax.make_jaxpr(make_model(case.config).init)(jax.random.key(3)) for _ in range(2))
    assert len({re.sub("0x[0-9a-f]+", "", str(program)) for program in (one, again)}) == 1
    for constant, other in zip(one.consts, again.consts, strict=True):
        np.testing.assert_array_equal(constant, other)
    assert {x.dtype for x in one.out_avals} == {jnp.dtype("float32")}


def test_observations_have_the_shapes_of_what_they_are_compared_with(case):
    def shapes(params, example, x_t, timestep):
        model, keys = case.model, jax.random.split(jax.random.key(0), BATCH)
        context = model.encode_context(params, example)
        inference = model.infer(params, context, x_t, timestep)
        (x0, target_query), (query, truth) = model.target(example), model.supervision(example, keys)
        made = model.to_x0(model.observe(params, inference.signal, target_query))
        seen = model.to_x0(model.observe(params, inference.signal, query, keys))
        return {"x0": x0, "made": made, "truth": truth, "seen": seen}, (context, inference)

    arrays, trees = jax.eval_shape(shapes, case.params, case.example, case.x_t, case.timestep)
    assert arrays["made"].size == arrays["x0"].size and arrays["seen"].shape == arrays["truth"].shape
    assert {leaf.shape[0] for leaf in jax.tree.leaves((arrays, trees))} == {BATCH}


def test_a_prediction_is_finite_and_repeats(case):
    one, again = case.predictions(), case.predictions()
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert all(x.shape == case.x_t.shape and np.all(np.isfinite(x)) for x in one.values())


def test_examples_of_a_batch_do_not_see_each_other(case):
    turned = {name: jax.tree.map(lambda x: x[::-1], getattr(case, name)) for name in ("example", "x_t", "timestep")}
    close(case.predictions(**turned)["plain"][::-1], case.predictions()["plain"])


def test_what_is_cached_changes_nothing(case):
    made = case.predictions()
    close(made["uncached"], made["plain"])


def test_guidance_of_one_is_the_conditional_prediction(case):
    made = case.predictions()
    close(made["guided"], made["plain"])


def test_a_context_is_seen_unless_it_is_dropped(case):
    assert any(context_leaves(case))
    examples = (case.example, with_another_context(case))
    before, after = (case.predictions(example=example)["plain"] for example in examples)
    assert np.abs(after - before).max() > 1e-3
    dropped = [case.model.drop_context(example, jnp.ones(BATCH, bool)) for example in examples]
    np.testing.assert_array_equal(*(case.predictions(example=example)["plain"] for example in dropped))
    kept = case.model.drop_context(case.example, jnp.zeros(BATCH, bool))
    jax.tree.map(np.testing.assert_array_equal, kept, case.example)


def test_a_target_is_seen_in_its_noisy_observation_only(case):
    changed = with_another_truth(case)
    assert not np.array_equal(case.model.target(changed)[0], case.model.target(case.example)[0], equal_nan=True)
    jax.tree.map(np.testing.assert_array_equal, case.predictions(example=changed), case.predictions())


def test_a_padding_view_is_an_absent_one(case):
    if not isinstance(case.example, Example) or case.example.context.valid.shape[1] < 2:
        pytest.skip("its examples do not hold several context views")
    context = case.example.context
    one = lambda garbage: context.replace(
        images=context.images.at[:, 1].set(garbage), valid=context.valid.at[:, 1].set(False)
    )
    padded, other = (case.predictions(example=case.example.replace(context=one(x)))["plain"] for x in (0.0, 100.0))
    close(padded, other)
    assert np.abs(padded - case.predictions()["plain"]).max() > 1e-4  # a view that is there is seen


def test_generated_examples_are_functions_of_their_numbers(case):
    if not isinstance(case.model, GeneratingModel):
        pytest.skip("its examples are of a data set")
    whole, part = (case.model.generate(7, np.arange(*ends)) for ends in ((0, 8), (3, 5)))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3:5], b), whole, part)
    held_out = case.model.generate(7, np.arange(8), held_out=True)
    assert not np.array_equal(case.model.target(held_out)[0], case.model.target(whole)[0])


def test_the_door_samples_behind_examples_of_a_model(case):
    if isinstance(case.model, SceneModel):
        pytest.skip("tests/test_door.py samples scenes")
    sampler = Sampler(case.params, case.config, 0, "made up").sampled_with(steps=2, num_samples=2, seed=1)
    sampled, example = sampler.sample(case.example), sampler.held_out(BATCH)
    direct = sample_signals(sampler.diffusion(), case.example, 2, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, (sampled.signal, sampled.x0), (direct.signal, direct.x0))
    assert sampled.x0.shape == (BATCH, 2, *case.x_t.shape[1:]) and np.ptp(sampled.x0, axis=1).max() > 1e-4
    assert jax.tree.structure(example) == jax.tree.structure(case.example)
    for source, said in ((np.zeros((8, 8, 3)), {}), (case.example, {"fov": 50.0})):
        with pytest.raises(UserError, match=r"such as sampler\.held_out|are for models of scenes"):
            sampler.sample(source, **said)


# `test_export.py` samples with the radiance field's, and what partial views export are its programs.
EXPORTED = [pytest.param(name, marks=[pytest.mark.slow] * (name == "radiance_field")) for name in MODELS]


@pytest.mark.parametrize("case", EXPORTED, indirect=True)
def test_an_exported_denoiser_is_the_one_in_this_process(case):
    pytest.importorskip("flatbuffers", reason="jax.export needs it: install this package again")
    called = jax.export.deserialize(export_denoiser(case.config, case.model)).call
    flat = {name: jnp.asarray(x) for name, x in flatten_dict(case.params, sep="/").items()}
    exported = jit(called)(flat, to_inputs(case.example), case.x_t, case.timestep.astype(jnp.int32))
    schedule = cosine_schedule(case.config.diffusion.num_timesteps)
    sampler = DiffusionSampler(case.model, case.params, schedule, case.config.sample)
    assert not sampler.guided
    close(exported, case.predictions()["plain"])
