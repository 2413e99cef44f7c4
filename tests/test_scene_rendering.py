"""Rendering of scenes: what may change it, and what may not."""

import jax
import jax.numpy as jnp
import numpy as np

from dfm_jax.forward_models.radiance_field.rendering import image_rays, render
from dfm_jax.structs import Camera, Rays
from tests.tiny import (
    NUM_COARSE,
    NUM_FINE,
    SIZE,
    UNCHUNKED,
    assert_trees_close,
    jit,
    random_camera,
    random_params,
    tiny_model,
    tiny_scene,
)

CHUNKED, MODEL = tiny_model(), tiny_model(chunk_size=UNCHUNKED)
PARAMS = random_params(MODEL)
# Not a multiple of the chunk.
NUM_RAYS = 100


def some_rays() -> Rays:
    camera = random_camera(np.random.default_rng(3), (2,))
    return jax.tree.map(lambda x: x[:, :NUM_RAYS], image_rays(camera, SIZE, SIZE, "centres"))


SCENE, RAYS = tiny_scene(), jit(some_rays)()
KEYS = jax.random.split(jax.random.key(0), 2)


observe = jit(lambda keys: render(PARAMS, MODEL.networks, SCENE, RAYS, keys))


def test_chunks_change_neither_a_keyed_rendering_nor_its_gradients():
    def loss(params, features, model):
        scene = SCENE.replace(views=SCENE.views.replace(features=features))
        rendering = render(params, model.networks, scene, RAYS, KEYS)
        total = sum(jnp.sum(jnp.square(x)) for x in (rendering.rgb, rendering.coarse_rgb))
        return total + jnp.sum(rendering.depth), rendering

    compute = jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    given = PARAMS | {"encoder": {}, "conditioning_field": {}}
    chunked, whole = (compute(given, SCENE.views.features, model) for model in (CHUNKED, MODEL))
    assert_trees_close(chunked[0], whole[0])
    for a, b in zip(jax.tree.leaves(chunked[1]), jax.tree.leaves(whole[1]), strict=True):
        # Two programs: a ReLU at its kink may be open in one of them alone. That is one of 2200 samples (200 rays
        # of 11); a chunk that is left out, or copies that are counted, are a tenth of them.
        assert float(jnp.linalg.norm(a - b)) <= 1e-2 * float(jnp.linalg.norm(b))


def test_a_rendering_has_all_samples_in_order_and_repeats():
    rendering = observe(None)
    assert rendering.weights.shape == (2, NUM_RAYS, NUM_COARSE + NUM_FINE)
    assert bool(np.all(np.diff(rendering.distances, axis=-1) >= 0))
    assert bool(np.all((rendering.rgb >= 0) & (rendering.rgb <= 1)))
    assert_trees_close(rendering, observe(None), rtol=0, atol=0)


def test_keys_move_the_samples_of_their_own_scene_only():
    keyed, again = observe(KEYS), observe(KEYS)
    assert_trees_close(keyed, again, rtol=0, atol=0)
    assert float(np.max(np.abs(keyed.distances - observe(None).distances))) > 1e-2
    other = observe(KEYS.at[1].set(jax.random.key(77)))
    np.testing.assert_array_equal(keyed.rgb[0], other.rgb[0])
    assert float(np.max(np.abs(keyed.distances[1] - other.distances[1]))) > 1e-2


def render_image(camera: Camera, height: int, width: int) -> jax.Array:
    rays = image_rays(camera, height, width, "centres")
    return render(PARAMS, MODEL.networks, SCENE, rays).rgb.reshape(-1, height, width, 3)


def test_an_image_of_another_size_is_row_major_and_looks_the_same_way():
    camera = random_camera(np.random.default_rng(3), (2,))
    wide = jit(lambda camera: render_image(camera, 2, 3))(camera)
    assert wide.shape == (2, 2, 3, 3)
    # A pixel's part of the picture, seen alone, has as many times the focal length, and its corner at the same place.
    zoom = jnp.array([3.0, 2.0, 1.0]).reshape(1, 3, 1)
    part = Camera(camera.camera_to_world, camera.intrinsics * zoom)
    middle = jit(lambda camera: render_image(camera, 1, 1))
    for row, column in np.ndindex(2, 3):
        shift = jnp.zeros((1, 3, 3)).at[0, 0, 2].set(column).at[0, 1, 2].set(row)
        cut = part.replace(intrinsics=part.intrinsics - shift)
        # Rays are computed from other intrinsics, in float32; the field's codes enlarge that.
        np.testing.assert_allclose(middle(cut)[:, 0, 0], wide[:, row, column], atol=1e-4)
