"""Embeddings, feature lookup and the radiance field, against plain numpy; the field's laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
from flax import linen as nn

from dfm_jax.geometry import cast_rays, project
from dfm_jax.models.embeddings import encoder_time_code, field_time_code, point_code, pose_code, token_position_code
from dfm_jax.models.feature_lookup import lookup_features
from dfm_jax.models.patch_convolution import PatchConv
from dfm_jax.structs import EncodedViews
from tests.tiny import assert_trees_close, jit, random_params, tiny_model, tiny_views

GRIDS = ["centres", "corners"]
MODEL = tiny_model(view_blocks=2)
FIELD = MODEL.networks.field("scene_field")
PARAMS = random_params(MODEL)["scene_field"]["fine"]
lookup = jit(lookup_features, static_argnums=2)


@jit
def evaluate(views: EncodedViews, points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Density and radiance at points [b, n, 3]."""
    density, radiance = FIELD.apply({"params": PARAMS}, views, points[:, :, None])
    return density[:, :, 0], radiance[:, :, 0]


def random_points(num: int = 9, seed: int = 0) -> jax.Array:
    points = np.random.default_rng(seed).uniform((-1, -1, 1), (1, 1, 4), (2, num, 3))
    return jnp.asarray(points, jnp.float32)


# --- convolutions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stride", "use_bias"), [(7, 1, True), (7, 2, False), (3, 2, True), (1, 1, True)])
def test_product_with_patches_is_a_convolution(size, stride, use_bias):
    ours = PatchConv(5, size, stride=stride, use_bias=use_bias)
    theirs = nn.Conv(5, (size, size), strides=stride, padding=size // 2, use_bias=use_bias)
    x = jax.random.normal(jax.random.key(0), (2, 9, 12, 3))
    initialize = jit(lambda key, x: [net.init(key, x) for net in (ours, theirs)])
    params, same = initialize(jax.random.key(1), x)
    assert_trees_close(params, same, rtol=0, atol=0)
    params = jax.tree.map(lambda p: np.asarray(p) + np.float32(0.1), params)
    value_and_gradients = lambda net, params, x: (
        net.apply(params, x),
        jax.grad(lambda params, x: jnp.sum(jnp.sin(net.apply(params, x))), argnums=(0, 1))(params, x),
    )
    found, expected = jit(lambda *given: [value_and_gradients(net, *given) for net in (ours, theirs)])(params, x)
    # Up to 147 products and 100 places are summed in another order, in float32.
    assert_trees_close(found, expected, rtol=1e-4, atol=1e-4)


# --- embeddings ---------------------------------------------------------------------------------------------------


def test_time_codes_are_the_documented_waves():
    t = np.array([0.0, 1.0, 37.0, 999.0])
    omega = np.array([10000 ** (-i / 128) for i in range(128)])
    phase = t[:, None] * omega
    # Float32 phases of up to 999 are known to 6e-5.
    np.testing.assert_allclose(encoder_time_code(jnp.asarray(t)), np.hstack([np.cos(phase), np.sin(phase)]), atol=1e-4)
    omega = np.array([10000 ** (-i / 7) for i in range(8)])
    phase = t[:, None] * omega
    # Float32 phases of up to 999 are known to 6e-5.
    np.testing.assert_allclose(
        field_time_code(jnp.asarray(t), 16), np.hstack([np.sin(phase), np.cos(phase)]), atol=1e-4
    )


def test_point_code_is_the_point_then_sines_and_cosines_octave_by_octave():
    p = np.array([0.3, -1.2, 2.5])
    expected = list(p)
    for k in range(6):
        expected += [np.sin(1.5 * 2**k * x) for x in p] + [np.cos(1.5 * 2**k * x) for x in p]
    # Float32 phases of up to 120 are known to 8e-6.
    np.testing.assert_allclose(point_code(jnp.asarray(p, jnp.float32)[None])[0], expected, atol=1e-4)


def test_pose_code_is_sines_then_cosines_then_the_pose():
    x = np.random.default_rng(0).normal(size=12)
    sines = [np.sin(value * 2**k) for value in x for k in range(6)]
    cosines = [np.cos(value * 2**k) for value in x for k in range(6)]
    ours = pose_code(jnp.asarray(x.reshape(1, 3, 4), jnp.float32))[0]
    np.testing.assert_allclose(ours, [*sines, *cosines, *x], atol=1e-4)  # float32 phases of up to 80 are known to 8e-6


def test_every_token_has_its_own_place_half_of_it_from_each_axis():
    code = token_position_code(3, 5, 16).reshape(3, 5, 16)
    assert len(np.unique(code.reshape(15, 16).round(4), axis=0)) == 15
    assert np.all(code[:, :, :8] == code[:1, :, :8])  # x alone
    assert np.all(code[:, :, 8:] == code[:, :1, 8:])  # y alone
    np.testing.assert_allclose(code[0, 2, [0, 4]], [np.sin(2), np.cos(2)], rtol=1e-6)
    np.testing.assert_allclose(code[2, 0, [9, 13]], [np.sin(2 / 10), np.cos(2 / 10)], rtol=1e-6)


def test_codes_of_another_grid_lie_at_the_same_places_of_the_image():
    code = token_position_code(4, 4, 16, grid=2).reshape(4, 4, 16)
    np.testing.assert_allclose(np.arcsin(code[0, :3, 0]), [-0.25, 0.25, 0.75], atol=1e-6)  # tokens of 2: at 0 and 1
    np.testing.assert_array_equal(token_position_code(4, 4, 16, grid=4), token_position_code(4, 4, 16))


# --- radiance field -------------------------------------------------------------------------------------------------


def numpy_field(views: EncodedViews, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One scene's field, layer by layer: the features are looked up first and then enter the first layer."""
    dense = lambda x, p: x @ np.asarray(p["kernel"], np.float64) + np.asarray(p.get("bias", 0.0), np.float64)
    relu = lambda x: np.maximum(x, 0)
    silu = lambda x: x * scipy.special.expit(x)
    gelu = lambda x: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2)))
    uv, camera_points = jit(project)(views.camera, jnp.asarray(points)[None])
    features = lookup(views.features[None], uv[None], "centres")[0]
    time = np.asarray(field_time_code(views.timestep, 16), np.float64)
    time = dense(gelu(dense(time, PARAMS["time_in"])), PARAMS["time_out"])

    def block(x: np.ndarray, p: dict, code: np.ndarray) -> np.ndarray:
        scale, shift = np.split(dense(silu(code), p["film"]), 2)
        return x + dense(relu(dense(relu(x), p["fc_0"]) * (1 + scale) + shift), p["fc_1"])

    per_view = []
    for v in range(len(time)):
        x = dense(np.asarray(point_code(camera_points[v])), PARAMS["point_in"])
        x = x + dense(np.asarray(features[v]), PARAMS["feature_in"])
        for i in range(2):
            x = block(x, PARAMS[f"view_blocks_{i}"], time[v])
        per_view.append(x)
    x = block(np.mean(per_view, axis=0), PARAMS["joint_blocks_0"], time[-1])
    out = dense(relu(x), PARAMS["out"])
    return relu(out[:, 3]), np.concatenate([scipy.special.expit(out[:, :3]), out[:, 4:]], axis=-1)


def test_the_field_equals_plain_numpy():
    views, points = tiny_views(), random_points()
    density, radiance = evaluate(views, points)
    for b in range(2):
        one = jax.tree.map(lambda x, b=b: x[b], views)
        expected_density, expected_radiance = numpy_field(one, points[b])
        # Numpy in float64 against float32: six layers behind sines of 48 times the position.
        np.testing.assert_allclose(density[b], expected_density, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(radiance[b], expected_radiance, rtol=1e-3, atol=1e-3)  # as above


def test_density_is_not_negative_and_colour_is_in_range():
    density, radiance = evaluate(tiny_views(), 10 * random_points())
    assert bool(np.all(density >= 0))
    assert bool(np.all((radiance[..., :3] >= 0) & (radiance[..., :3] <= 1)))
    assert float(np.max(np.abs(radiance[..., 3:]))) > 1


def test_the_order_of_context_views_does_not_matter():
    views, points = tiny_views(), random_points()
    swap = lambda x: x[:, jnp.array([1, 0, 2])]
    assert_trees_close(evaluate(views, points), evaluate(jax.tree.map(swap, views), points))


def masked_views(garbage: float) -> tuple[EncodedViews, EncodedViews]:
    """Three views of which the second is padding, filled with `garbage`, and the same without it."""
    views = tiny_views()
    absent = jax.tree.map(lambda x: x[:, jnp.array([0, 2])], views)
    padded = views.replace(
        features=views.features.at[:, 1].set(garbage),
        valid=views.valid.at[:, 1].set(False),
        camera=jax.tree.map(lambda x: x.at[:, 1].set(0.0), views.camera),
    )
    return padded, absent


@pytest.mark.parametrize("garbage", [0.0, 1e6])
def test_a_masked_view_equals_an_absent_one(garbage):
    padded, absent = masked_views(garbage)
    points = random_points()
    assert_trees_close(evaluate(padded, points), evaluate(absent, points))


def test_no_gradient_reaches_a_masked_view():
    padded, _ = masked_views(1e6)
    points = random_points()

    def loss(features):
        density, radiance = evaluate.__wrapped__(padded.replace(features=features), points)
        return jnp.sum(density) + jnp.sum(radiance)

    gradient = jit(jax.grad(loss))(padded.features)
    np.testing.assert_array_equal(gradient[:, 1], np.zeros_like(gradient[:, 1]))
    assert bool(np.all(np.isfinite(gradient)))
    assert float(np.max(np.abs(gradient[:, 0]))) > 0


@pytest.mark.parametrize("view", [0, 2])
def test_every_view_looks_through_its_own_lens_at_its_own_time(view):
    views, points = tiny_views(), random_points()
    before, _ = evaluate(views, points)
    wider = views.camera.intrinsics.at[:, view, 0, 0].multiply(0.7)
    after, _ = evaluate(views.replace(camera=views.camera.replace(intrinsics=wider)), points)
    assert float(np.max(np.abs(after - before))) > 1e-3
    after, _ = evaluate(views.replace(timestep=views.timestep.at[:, view].add(300.0)), points)
    assert float(np.max(np.abs(after - before))) > 1e-3


def test_a_new_field_is_half_transparent_everywhere():
    views, points = tiny_views(), random_points()
    params = jit(FIELD.init)(jax.random.key(0), views, points[:, :, None])["params"]
    params["out"]["kernel"] = jnp.zeros_like(params["out"]["kernel"])
    density, _ = jit(FIELD.apply)({"params": params}, views, points[:, :, None])
    np.testing.assert_allclose(density, np.full((2, 9, 1), MODEL.config.scene_field.density_bias))


# --- what need not be computed ------------------------------------------------------------------------------------


def test_less_output_is_a_part_of_all():
    views, points = tiny_views(), random_points()[:, :, None]
    apply = lambda *args, method: FIELD.apply({"params": PARAMS}, *args, method=method)
    of = jit(lambda method: apply(apply(views, method="project_features"), points, method=method), static_argnums=0)
    density, radiance = of("radiance")
    assert_trees_close(of("colour"), (density, radiance[..., :3]), atol=1e-6)
    np.testing.assert_allclose(of("density"), density, atol=1e-6)


@pytest.mark.parametrize("pixel_grid_name", GRIDS)
def test_rays_of_the_last_view_are_looked_up_once(pixel_grid_name):
    """All points of such a ray lie at one pixel of that view, and what the others say may be known."""
    views = tiny_views()
    field = tiny_model(view_blocks=2, pixel_grid=pixel_grid_name).networks.field("scene_field")
    camera = jax.tree.map(lambda x: x[:, -1], views.camera)
    xy = jnp.asarray(np.random.default_rng(0).uniform(-0.1, 1.1, (2, 5, 2)), jnp.float32)
    rays = cast_rays(camera, xy)
    points = rays.origins[:, :, None] + jnp.linspace(1, 4, 3).reshape(1, 1, 3, 1) * rays.directions[:, :, None]
    apply = lambda *args, method: field.apply({"params": PARAMS}, *args, method=method)

    @jit
    def run(views):
        features = apply(views, method="project_features")
        context = apply(features.some_views(slice(-1)), points, method="aggregate_context_views")
        arguments = ((), (xy,), (xy, context), (None, context))
        return [apply(features, points, *extra, method="radiance") for extra in arguments]

    plain, *others = run(views)
    for other in others:
        # Sums of the views in another order: six layers behind sines of 48 times the position.
        assert_trees_close(other, plain, rtol=1e-3, atol=1e-4)
