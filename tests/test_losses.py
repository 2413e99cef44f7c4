"""What is minimised: closed forms, a double sum, and who gets a gradient."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfm_jax.config import DiffusionConfig
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.forward_models.radiance_field.losses import (
    distortion,
    interlevel,
    inverse_depth_smoothness,
    rendering_terms,
)
from dfm_jax.forward_models.terms import mean_squared_error
from dfm_jax.losses import sample_timestep, training_loss, weighted
from dfm_jax.structs import Rendering
from tests.tiny import LOSS, UNCHUNKED, jit, random_params, tiny_example, tiny_model

DIFFUSION = DiffusionConfig(num_timesteps=1000, guidance_dropout=0.5, high_noise_fraction=0.3, high_noise_from=900)
SCHEDULE = cosine_schedule(1000)
CHUNKED, MODEL = tiny_model(), tiny_model(chunk_size=UNCHUNKED)
PARAMS = random_params(MODEL)
EXAMPLE = tiny_example(b=4)
HALVES = [0, 1], [2, 3]
KEY = jax.random.key(26)  # drops the context of one example of each half


WEIGHTS = dataclasses.replace(LOSS, lpips=0.3)


def absolute_difference(a, b):
    """In the place of LPIPS, which patches of this size are too small for."""
    return jnp.mean(jnp.abs(a - b), axis=(-3, -2, -1))


def loss_of(model, weights=WEIGHTS, perceptual=absolute_difference):
    settings = {"schedule": SCHEDULE, "diffusion": DIFFUSION, "weights": weights, "perceptual": perceptual}
    return partial(training_loss, model=model, **settings)


loss_and_gradients = jit(jax.value_and_grad(loss_of(MODEL), has_aux=True))
distort = jit(distortion)
smoothness = jit(inverse_depth_smoothness)
missing = jit(interlevel)


def take(example, indices):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[indices]), example)


# --- terms ------------------------------------------------------------------------------------------------------------


def test_mean_squared_error_is_per_example():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    ours = mean_squared_error(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(ours, [np.mean((a[i] - b[i]) ** 2) for i in range(3)], rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_distortion_equals_the_double_sum(seed):
    rng = np.random.default_rng(seed)
    near, far = rng.uniform(0.5, 1, 3), rng.uniform(4, 40, 3)
    d = np.sort(rng.uniform(near[:, None], far[:, None], (3, 9)), axis=-1)
    w = rng.dirichlet(np.ones(10), 3)[:, :9]
    expected = []
    for ray in range(3):
        x = (d[ray] - near[ray]) / (far[ray] - near[ray])
        delta = np.append(np.diff(x), x[-1] - x[-2])
        pairs = sum(w[ray, i] * w[ray, j] * abs(x[i] - x[j]) for i in range(9) for j in range(9))
        expected.append(pairs + np.sum(w[ray] ** 2 * delta) / 3)
    ours = distort(*(jnp.asarray(value, jnp.float32) for value in (w, d, near, far)))
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)  # running sums in float32, and differences of them


def test_distortion_prefers_weight_in_one_place():
    d, near, far = jnp.linspace(1.0, 5.0, 9)[None], jnp.ones(1), jnp.full(1, 5.0)
    together = jnp.zeros((1, 9)).at[0, 4].set(1.0)
    apart = jnp.zeros((1, 9)).at[0, jnp.array([0, 8])].set(0.5)
    np.testing.assert_allclose(distort(together, d, near, far), [1 / 8 / 3], rtol=1e-5)
    assert float(distort(apart, d, near, far)[0]) > 0.5
    assert float(distort(jnp.zeros((1, 9)), d, near, far)[0]) == 0


def smooth(depth: np.ndarray, image: np.ndarray | None = None, near: float = 0.1) -> float:
    image = np.zeros((*depth.shape, 3)) if image is None else image
    arguments = depth[None], image[None], np.array([near])
    return float(smoothness(*(jnp.asarray(x, jnp.float32) for x in arguments))[0])


def test_constant_depth_is_smooth_whatever_the_image():
    image = np.random.default_rng(0).uniform(-1, 1, (6, 6, 3))
    assert smooth(np.full((6, 6), 2.5), image) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_step_in_depth_costs_less_where_the_image_has_an_edge(axis):
    depth, image = np.ones((6, 6)), np.zeros((6, 6, 3))
    np.moveaxis(depth, axis, 0)[3:] = 2
    np.moveaxis(image, axis, 0)[3:] = 1
    # Disparities 1 and 1/2, relative to their mean 3/4; one step in five.
    assert smooth(depth) == pytest.approx((0.5 / 0.75) / 5, rel=1e-5)
    assert smooth(depth, image) == pytest.approx((0.5 / 0.75) / 5 * np.exp(-1), rel=1e-5)
    elsewhere = np.roll(image, 1, axis=axis)
    assert smooth(depth, image) < smooth(depth, elsewhere)


def test_smoothness_knows_no_unit_of_length_and_stops_at_near():
    depth = np.random.default_rng(1).uniform(1, 3, (6, 6))
    # Float32: differences of inverse depths have a digit fewer than they.
    assert smooth(5 * depth) == pytest.approx(smooth(depth), rel=1e-4)
    assert smooth(0.01 * depth, near=5.0) == pytest.approx(0, abs=1e-7)


def test_the_perceptual_distance_sees_the_patches_of_all_targets_as_images():
    rng = np.random.default_rng(0)
    image, truth = (jnp.asarray(rng.uniform(size=(2, 3, 6, 6, 3)), jnp.float32) for _ in range(2))
    seen = []
    rays = lambda x: x.reshape(2, 3 * 36, *x.shape[4:])
    zero = jnp.zeros((2, 3 * 36))
    rendering = Rendering(rays(image), zero, zero[..., None], zero[..., None], zero[..., None], rays(image))
    weights = dataclasses.replace(LOSS, coarse=0.0, distortion=0.0, smoothness=0.0, lpips=0.3)
    perceptual = lambda a, b: seen.append((a, b)) or absolute_difference(a, b)
    terms = rendering_terms(rendering, 2 * rays(truth) - 1, jnp.ones(2), 2 * jnp.ones(2), weights, perceptual)
    assert set(terms) == {"lpips"}
    np.testing.assert_allclose(terms["lpips"], np.mean(np.abs(image - truth), axis=(1, 2, 3, 4)), rtol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), seen, [(image, truth)])


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
def test_timesteps_cover_all_levels_with_the_extra_share_on_high_ones(fraction):
    diffusion = dataclasses.replace(DIFFUSION, high_noise_fraction=fraction)
    draw = jit(jax.vmap(partial(sample_timestep, diffusion=diffusion)))
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)))
    assert drawn.min() >= (900 if fraction == 1 else 0)
    assert drawn.max() == 999
    # Five standard deviations of a share of 4000 draws.
    assert np.mean(drawn >= 900) == pytest.approx(fraction + (1 - fraction) * 0.1, abs=0.04)


# --- the whole --------------------------------------------------------------------------------------------------------


def evaluate(indices, key=KEY, params=PARAMS):
    """Loss and metrics of some of the examples (two of them: one compilation)."""
    return loss_and_gradients(params, take(EXAMPLE, indices), key)[0]


@pytest.fixture(scope="module")
def whole():
    """All four examples as one batch, in chunks, without the coarse loss: metrics, gradient of the coarse field."""
    compute = loss_of(CHUNKED, dataclasses.replace(LOSS, coarse=0.0), perceptual=None)

    def loss(coarse):
        return compute(PARAMS | {"scene_field": PARAMS["scene_field"] | {"coarse": coarse}}, EXAMPLE, KEY)

    gradients, metrics = jit(jax.grad(loss, has_aux=True))(PARAMS["scene_field"]["coarse"])
    return metrics, gradients


def test_the_loss_is_the_weighted_sum_of_its_terms():
    loss, metrics = evaluate([0, 1])
    weighted = ("estimate", "coarse", "distortion", "smoothness", "lpips")
    assert set(metrics) == {"target", "loss", *weighted}
    scale = {"target": 1.0, **{name: getattr(WEIGHTS, name) for name in weighted}}
    assert float(loss) == pytest.approx(sum(scale[n] * float(metrics[n]) for n in scale), rel=1e-5)
    assert loss.dtype == jnp.float32
    assert all(float(value) > 0 for value in metrics.values())


def test_a_term_without_a_weight_is_named():
    with pytest.raises(UserError, match="a term 'sharpness', and LossConfig no such weight"):
        weighted({"target": jnp.ones(2), "sharpness": jnp.ones(2)}, WEIGHTS)


def test_neither_the_layout_of_the_batch_nor_chunks_change_what_is_drawn_or_found(whole):
    metrics, _ = whole
    halves = [evaluate(part)[1] for part in HALVES]
    for name in ("target", "estimate", "distortion", "smoothness"):
        # Another program, in chunks: float32's rounding through the whole model.
        assert float(sum(half[name] for half in halves) / 2) == pytest.approx(float(metrics[name]), rel=1e-4), name
    crossed = sum(evaluate(part)[0] for part in ([3, 0], [1, 2]))
    assert float(crossed) == pytest.approx(float(sum(half["loss"] for half in halves)), rel=1e-5)


def test_the_key_and_the_index_of_an_example_draw_its_numbers():
    loss, _ = evaluate([0, 1])
    assert float(loss) == float(evaluate([0, 1])[0])
    assert float(loss) != float(evaluate([0, 1], jax.random.key(12))[0])
    later = take(EXAMPLE.replace(index=EXAMPLE.index + 4), [0, 1])
    assert float(loss) != float(loss_and_gradients(PARAMS, later, KEY)[0][0])


def test_the_estimate_counts_for_nothing_where_the_context_was_dropped():
    """It has nothing to go by there, and would learn from the other examples' average."""
    settings = {"model": MODEL, "schedule": SCHEDULE, "weights": LOSS}

    @jit
    def estimate(dropout):
        diffusion = dataclasses.replace(DIFFUSION, guidance_dropout=dropout)
        return training_loss(PARAMS, take(EXAMPLE, [0, 1]), KEY, diffusion=diffusion, **settings)[1]["estimate"]

    assert estimate(1.0) == 0 < estimate(0.0)


def test_every_parameter_learns():
    _, gradients = loss_and_gradients(PARAMS, take(EXAMPLE, [0, 1]), KEY)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert bool(np.all(np.isfinite(leaf))), path
        assert float(np.max(np.abs(leaf))) > 0, path


def test_the_coarse_field_learns_from_the_coarse_loss_alone(whole):
    _, gradients = whole
    assert all(float(np.max(np.abs(leaf))) == 0 for leaf in jax.tree.leaves(gradients))


def test_gradients_are_finite_at_absurd_densities():
    out = PARAMS["scene_field"]["fine"]["out"]
    dense = {"kernel": out["kernel"].at[:, 3].multiply(1e10), "bias": out["bias"]}
    params = PARAMS | {"scene_field": {name: field | {"out": dense} for name, field in PARAMS["scene_field"].items()}}
    (loss, _), gradients = loss_and_gradients(params, take(EXAMPLE, [0, 1]), KEY)
    assert bool(np.isfinite(loss))
    assert all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(gradients))


# --- proposal -------------------------------------------------------------------------------------------------------


def test_interlevel_is_zero_for_a_proposal_that_covers_and_for_a_copy():
    rng = np.random.default_rng(0)
    d = jnp.asarray(np.sort(rng.uniform(1, 4, (5, 12)), axis=-1), jnp.float32)
    w = jnp.asarray(rng.dirichlet(np.ones(12), 5), jnp.float32)
    np.testing.assert_allclose(missing((w, d), w, d), np.zeros(5), atol=1e-10)
    everywhere = (jnp.ones((5, 3)), jnp.broadcast_to(jnp.array([0.5, 2.0, 4.5]), (5, 3)))
    np.testing.assert_allclose(missing(everywhere, w, d), np.zeros(5), atol=1e-10)


def test_interlevel_is_the_sum_of_what_is_missing():
    """Against a loop over all pairs of stretches."""
    rng = np.random.default_rng(1)
    d = np.sort(rng.uniform(1, 4, 9)).astype(np.float32)
    proposed = np.linspace(0.8, 4.2, 6).astype(np.float32)
    w, v = rng.dirichlet(np.ones(9)).astype(np.float32), 0.3 * rng.dirichlet(np.ones(6)).astype(np.float32)
    ends = lambda x: np.append(x[1:], 2 * x[-1] - x[-2])
    expected = 0.0
    for a, b, weight in zip(d, ends(d), w, strict=True):
        bound = sum(v[j] for j in range(6) if proposed[j] < b and ends(proposed)[j] > a)
        expected += max(0.0, weight - bound) ** 2 / (weight + 1e-6)
    one = lambda *x: tuple(jnp.asarray(y)[None] for y in x)
    # What is missing is a difference of float32 sums.
    np.testing.assert_allclose(missing(one(v, proposed), *one(w, d))[0], expected, rtol=1e-4)


def test_interlevel_trains_the_proposal_alone():
    d = jnp.linspace(1.0, 2.0, 4)[None]
    loss = lambda v, w: jnp.sum(interlevel((v, d), w, d))
    small, large = jnp.full((1, 4), 0.1), jnp.full((1, 4), 0.25)
    proposal, field = jit(jax.grad(loss, argnums=(0, 1)))(small, large)
    assert float(np.max(proposal)) < 0 and not np.any(field)
