"""What denoising steps share is cached, and changes nothing; the proposal field has a cache of its own."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config import FieldConfig
from dfm_jax.denoiser import cache_context, denoise
from dfm_jax.flops import count_flops
from dfm_jax.forward_models.radiance_field.losses import rendering_terms
from tests.test_forward_model import KEYS, PARAMS, TIMESTEP, X_T, with_padding
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


def observed_with(model, params, example, sizes):
    """Of each size of the cache: what a step observes, and its query. The scene is inferred once, without a cache."""
    context = cache_context(params, model, example).context
    scene, asked = model.infer(params, context, X_T, TIMESTEP).signal, model.target(example)[1]
    queries = {n: model.cache(params, context, asked, n) for n in sizes}
    return {n: (model.observe(params, scene, query, KEYS), query) for n, query in queries.items()}


@pytest.mark.parametrize("num_fine", [0, NUM_FINE])
def test_the_cache_changes_nothing(num_fine):
    """Neither of all rays nor of those that fit fewer bytes, in whole chunks; with padding views and random samples."""
    model = tiny_model(num_fine=num_fine)
    params, example = random_params(model), with_padding(tiny_example(), 10.0)
    width, parts = model.config.scene_field.width, 2 if num_fine else 1
    bytes_per_ray = parts * NUM_COARSE * width * 4
    half = bytes_per_ray * SIZE**2 // 2

    made = jit(lambda *given: observed_with(model, *given, (0, half, 10 * half)))(params, example)
    plain, partly, wholly = (made[memory][0] for memory in (0, half, 10 * half))
    none, some, whole = (made[memory][1][1].activations for memory in (0, half, 10 * half))
    assert none == {} and some["coarse"].shape == (2, 96, NUM_COARSE, width)  # two chunks of 48 rays
    assert sum(x.nbytes for x in some.values()) == 2 * 96 * bytes_per_ray
    assert whole["coarse"].shape == (2, SIZE**2, NUM_COARSE, width)
    for other in (partly, wholly):
        # Sums of the views in another order: points' codes and densities enlarge float32's rounding.
        assert_trees_close(other, plain, rtol=1e-3, atol=1e-4)


def test_a_step_with_a_cache_computes_less():
    model = tiny_model()
    example = tiny_example()
    step = lambda prepared: denoise(PARAMS, model, X_T, TIMESTEP, prepared).x0
    shapes = lambda memory: jax.eval_shape(lambda: cache_context(PARAMS, model, example, cache_bytes=memory))
    assert count_flops(step, shapes(2**30)) < 0.75 * count_flops(step, shapes(0))


# --- a proposal instead of the coarse field ----------------------------------------------------------------------

PROPOSAL = FieldConfig(width=8, view_blocks=1, joint_blocks=1, density_bias=0.5)
LEAN_LOSS = dataclasses.replace(LOSS, coarse=0.0, interlevel=1.0)


def test_a_proposal_places_the_samples_and_has_a_cache():
    model = tiny_model(proposal=PROPOSAL, loss=LEAN_LOSS)
    params, example = random_params(model), tiny_example()
    assert params["scene_field"].keys() == {"proposal", "fine"}

    made = jit(lambda *given: observed_with(model, *given, (0, 2**30)))(params, example)
    (plain, _), (cached, (_, cache)) = made.values()
    assert cache.activations.keys() == {"proposal"}
    assert plain.weights.shape == (2, SIZE**2, NUM_FINE) and plain.proposal[0].shape == (2, SIZE**2, NUM_COARSE)
    assert bool(np.all(np.diff(plain.distances, axis=-1) >= 0))
    # Sums of the views in another order: points' codes and densities enlarge float32's rounding.
    assert_trees_close(cached, plain, rtol=1e-3, atol=1e-4)


def test_the_interlevel_loss_reaches_the_proposal_and_colours_do_not():
    """Both gradients come from one forward pass: compiled twice, a unit at its kink may fall on either side."""
    model = tiny_model(proposal=PROPOSAL, loss=LEAN_LOSS)
    params, example = random_params(model), tiny_example()

    def losses(scene_field):
        weights = params | {"scene_field": scene_field}
        signal, _ = model.infer(weights, model.encode_context(weights, example), X_T, TIMESTEP)
        query, truth = model.supervision(example, KEYS)
        rendering = model.observe(weights, signal, query, KEYS)
        terms = rendering_terms(rendering, truth, example.near, example.far, LEAN_LOSS)
        return jnp.mean(jnp.square(model.to_x0(rendering) - truth)), jnp.mean(terms["interlevel"])

    @jit
    def gradients(scene_field):
        _, pull_back = jax.vjp(losses, scene_field)
        return [pull_back(seed)[0] for seed in ((1.0, 0.0), (0.0, 1.0))]

    size = lambda tree: sum(float(np.abs(x).sum()) for x in jax.tree.leaves(tree))
    of_colours, of_interlevel = gradients(params["scene_field"])
    assert size(of_colours["proposal"]) == 0 and size(of_colours["fine"]) > 0
    assert size(of_interlevel["proposal"]) > 0 and size(of_interlevel["fine"]) == 0
