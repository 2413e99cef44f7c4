"""Views to scenes to pictures: what may change a rendering, and what may not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from dfm_jax.config import LossConfig
from dfm_jax.forward_models.radiance_field.rendering import image_rays, render
from dfm_jax.forward_models.radiance_field.supervision import Supervision, sample_pixels
from dfm_jax.geometry import pixel_grid, project
from dfm_jax.structs import EncodedViews, Example, Rays, Rendering, Scene, Views
from tests.tiny import (
    SIZE,
    UNCHUNKED,
    assert_trees_close,
    jit,
    random_camera,
    random_params,
    tiny_example,
    tiny_model,
    tiny_scene,
)

CHUNKED, MODEL = tiny_model(), tiny_model(chunk_size=UNCHUNKED)
PARAMS = random_params(MODEL)
# Not a multiple of the chunk.
NUM_RAYS = 100
X_T = jnp.asarray(np.random.default_rng(5).normal(size=(2, SIZE, SIZE, 3)), jnp.float32)
TIMESTEP = jnp.array([300, 800])


def some_rays() -> Rays:
    camera = random_camera(np.random.default_rng(3), (2,))
    return jax.tree.map(lambda x: x[:, :NUM_RAYS], image_rays(camera, SIZE, SIZE, "centres"))


SCENE, RAYS = tiny_scene(), jit(some_rays)()
KEYS = jax.random.split(jax.random.key(0), 2)


def look(params, example: Example, x_t, timestep) -> tuple[Scene, Rendering, Rendering]:
    """The scene, its estimate, and what some rays of the second target camera see."""
    scene, estimate = MODEL.infer(params, MODEL.encode_context(params, example), x_t, timestep)
    rays = image_rays(jax.tree.map(lambda x: x[:, 1], example.target.camera), 4, 4, "centres")
    return scene, estimate, MODEL.observe(params, scene, rays)


see = jit(look)


def encode_clean(params, views: Views) -> EncodedViews:
    return MODEL.networks.encode_views(MODEL.networks.bind_encoder(params), views, jnp.zeros((2, 2)))


def first_context_view_only(example: Example) -> Example:
    return example.replace(context=jax.tree.map(lambda x: x[:, :1], example.context))


def with_padding(example: Example, garbage: float) -> Example:
    """The second context view is padding."""
    context = example.context
    return example.replace(
        context=context.replace(
            images=context.images.at[:, 1].set(garbage),
            camera=jax.tree.map(lambda x: x.at[:, 1].set(0.0), context.camera),
            absolute_pose=context.absolute_pose.at[:, 1].set(0.0),
            valid=context.valid.at[:, 1].set(False),
        )
    )


# --- infer ------------------------------------------------------------------------------------------------------------


def test_a_scene_holds_the_context_and_then_the_noisy_target():
    example = tiny_example()
    scene, estimate, _ = see(PARAMS, example, X_T, TIMESTEP)
    assert scene.views.features.shape == (2, 3, SIZE, SIZE, 8)
    np.testing.assert_array_equal(scene.views.timestep, [[0, 0, 300], [0, 0, 800]])
    np.testing.assert_array_equal(
        scene.views.camera.camera_to_world[:, -1], example.target.camera.camera_to_world[:, 0]
    )
    np.testing.assert_array_equal(scene.near, example.near)
    np.testing.assert_array_equal(scene.far, example.far)
    assert estimate.rgb.shape == (2, MODEL.config.estimate_size**2, 3)
    clean = jit(encode_clean)(PARAMS, example.context)
    np.testing.assert_allclose(scene.views.features[:, :2], clean.features, atol=1e-5)


def test_the_estimate_knows_the_context_alone():
    example = tiny_example()
    _, estimate, rendering = see(PARAMS, example, X_T, TIMESTEP)
    _, same, other = see(PARAMS, example, X_T + 1, TIMESTEP + 7)
    assert_trees_close(estimate, same, rtol=0, atol=1e-6)
    assert float(np.max(np.abs(rendering.rgb - other.rgb))) > 1e-3


@pytest.mark.parametrize("garbage", [0.0, 1e3])
def test_a_padding_view_equals_an_absent_one(garbage):
    example = tiny_example()
    _, *padded = see(PARAMS, with_padding(example, garbage), X_T, TIMESTEP)
    _, *absent = see(PARAMS, first_context_view_only(example), X_T, TIMESTEP)
    assert_trees_close(padded, absent)


def test_no_gradient_comes_from_a_padding_view():
    example = with_padding(tiny_example(), 1e3)

    def loss(params, images):
        views = encode_clean(params, example.context.replace(images=images))
        rays = jax.tree.map(lambda x: x[:, :4], RAYS)
        rendering = render(params, MODEL.networks, Scene(views, example.near, example.far), rays)
        return jnp.sum(jnp.square(rendering.rgb)) + jnp.sum(rendering.depth)

    gradients, images = jit(jax.grad(loss, argnums=(0, 1)))(PARAMS, example.context.images)
    assert all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(images[:, 1], np.zeros_like(images[:, 1]))
    assert float(np.max(np.abs(images[:, 0]))) > 0


def test_the_order_of_context_views_does_not_matter():
    example = tiny_example()
    swapped = example.replace(context=jax.tree.map(lambda x: x[:, ::-1], example.context))
    _, *before = see(PARAMS, example, X_T, TIMESTEP)
    _, *after = see(PARAMS, swapped, X_T, TIMESTEP)
    assert_trees_close(before, after)


def test_one_motion_of_all_cameras_changes_nothing():
    example = tiny_example()
    motion = random_camera(np.random.default_rng(9), (2, 1), angle=3.0).camera_to_world
    move = lambda views: views.replace(
        camera=views.camera.replace(camera_to_world=jnp.matmul(motion, views.camera.camera_to_world))
    )
    moved = example.replace(context=move(example.context), target=move(example.target))
    _, *before = see(PARAMS, example, X_T, TIMESTEP)
    _, *after = see(PARAMS, moved, X_T, TIMESTEP)
    # Poses are inverted and multiplied in float32: points move by 1e-6, and the highest octave of their code by 50
    # times that.
    assert_trees_close(before, after, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("where", ["context", "target"])
def test_every_view_has_its_own_intrinsics(where):
    example = tiny_example()
    views = getattr(example, where)
    wider = views.camera.intrinsics.at[:, 1, 0, 0].multiply(0.7)
    changed = example.replace(**{where: views.replace(camera=views.camera.replace(intrinsics=wider))})
    _, _, before = see(PARAMS, example, X_T, TIMESTEP)
    _, _, after = see(PARAMS, changed, X_T, TIMESTEP)
    assert float(np.max(np.abs(before.rgb - after.rgb))) > 1e-3


# --- what ties the model to an example --------------------------------------------------------------------------------


def test_the_target_is_the_first_target_image_and_its_rays():
    example = tiny_example()
    x0, (rays, cache) = MODEL.target(example)
    np.testing.assert_allclose(x0, 2 * example.target.images[:, 0] - 1)
    assert rays.origins.shape == (2, SIZE * SIZE, 3)
    uv, _ = project(jax.tree.map(lambda x: x[:, 0], example.target.camera), rays.origins + rays.directions)
    expected = jnp.broadcast_to(pixel_grid(SIZE, SIZE, "centres").reshape(1, -1, 2), uv.shape)
    # Of the image's width: a ray of unit length and back, in float32; a pixel is 0.06.
    np.testing.assert_allclose(uv, expected, atol=1e-4)
    np.testing.assert_array_equal(cache.pixel, expected)


@pytest.mark.parametrize("grid", ["centres", "corners"])
@pytest.mark.parametrize("pixels", ["patch", "random"])
def test_supervision_pairs_every_ray_with_the_colour_it_should_see(grid, pixels):
    loss = LossConfig(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, pixels, patch_size=3)
    example = tiny_example()
    rays, truth = tiny_model(loss=loss, pixel_grid=grid).supervision(example, KEYS)
    assert truth.shape == (2, 2 * 9, 3)
    split = lambda x: rearrange(x, "b (t r) c -> b t r c", t=2)
    uv, _ = project(example.target.camera, split(rays.origins + rays.directions))
    place = uv * SIZE - 0.5 if grid == "centres" else uv * (SIZE - 1)
    x, y = np.moveaxis(np.rint(place).astype(int), -1, 0)
    # Pixels: float32; a wrong pixel is off by 1.
    np.testing.assert_allclose(np.stack([x, y], axis=-1), place, atol=1e-3)
    b, t = np.ix_(range(2), range(2))
    seen = np.asarray(example.target.images)[b[..., None], t[..., None], y, x]
    np.testing.assert_allclose(split(truth), 2 * seen - 1, atol=1e-6)


def draw_many(pixels: str, num: int = 200) -> np.ndarray:
    supervision = Supervision(pixels, patch_size=5)
    draw = partial(sample_pixels, num_views=2, image_size=8, supervision=supervision)
    return np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(1), num)))


def test_patches_are_whole_squares_that_fall_everywhere():
    drawn = draw_many("patch")
    rows, columns = (x.reshape(200, 2, 5, 5) for x in np.divmod(drawn, 8))
    assert np.all(rows - rows[..., :1, :1] == np.arange(5)[:, None])
    assert np.all(columns - columns[..., :1, :1] == np.arange(5))
    assert set(rows[..., 0, 0].ravel()) == set(columns[..., 0, 0].ravel()) == {0, 1, 2, 3}
    assert np.any(drawn[:, 0] != drawn[:, 1])


def test_random_pixels_fall_everywhere_and_independently():
    drawn = draw_many("random")
    counts = np.bincount(drawn.ravel(), minlength=64)
    assert len(counts) == 64
    assert np.all(np.abs(counts - drawn.size / 64) < 6 * np.sqrt(drawn.size / 64))


def test_dropped_context_is_mid_grey_and_nothing_else_changes():
    example = tiny_example()
    dropped = MODEL.drop_context(example, jnp.array([True, False]))
    np.testing.assert_array_equal(dropped.context.images[0], np.full_like(example.context.images[0], 0.5))
    restored = dropped.context.images.at[0].set(example.context.images[0])
    assert_trees_close(dropped.replace(context=dropped.context.replace(images=restored)), example, rtol=0, atol=0)


def test_the_estimate_is_compared_with_the_first_target_at_its_own_size():
    example = tiny_example()
    flat = example.target.images.at[:, 0].set(0.75)
    truth = MODEL.estimate_truth(example.replace(target=example.target.replace(images=flat)))
    np.testing.assert_allclose(truth, np.full((2, MODEL.config.estimate_size**2, 3), 0.5), atol=1e-6)


def test_new_parameters_have_the_documented_parts_in_float32():
    with_fine = jax.eval_shape(tiny_model(compute_dtype="bfloat16").init, jax.random.key(0))
    without = jax.eval_shape(tiny_model(num_fine=0).init, jax.random.key(0))
    assert set(with_fine) == {"encoder", "conditioning_field", "scene_field"}
    assert set(with_fine["scene_field"]) == {"coarse", "fine"}
    assert set(without["scene_field"]) == {"coarse"}
    assert {leaf.dtype for leaf in jax.tree.leaves(with_fine)} == {jnp.dtype("float32")}
