"""The encoder's laws: every view for itself, gates closed at first, remat and precision change little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.forward_models.radiance_field.networks import BoundEncoder
from dfm_jax.models.dit import TransformerBlock, upsample
from tests.tiny import SIZE, assert_trees_close, jit, random_params, tiny_model

MODEL = tiny_model()
PARAMS = random_params(MODEL)["encoder"]


def inputs(n: int = 3) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (n, SIZE, SIZE, 3)), jnp.float32)
    return images, jnp.asarray([0.0, 400.0, 900.0][:n]), jnp.asarray(rng.normal(size=(n, 3, 4)), jnp.float32)


def encode(params, *given, model=MODEL):
    return model.networks.encoder.apply({"params": params}, *given, method="encode_clean")


encode_clean = jit(encode)
encode_noisy = jit(
    lambda params, *given: MODEL.networks.encoder.apply({"params": params}, *given, method="encode_noisy")
)


def test_a_feature_map_is_as_large_as_its_image_and_repeats():
    features = encode_clean(PARAMS, *inputs())
    assert features.shape == (3, SIZE, SIZE, MODEL.config.encoder.features)
    np.testing.assert_array_equal(features, encode_clean(PARAMS, *inputs()))


@pytest.mark.parametrize("axis", [1, 2])
def test_upsampling_is_bilinear_resizing(axis):
    x = jax.random.normal(jax.random.key(0), (2, 5, 1 if axis == 1 else 6, 3))
    shape = [2 * n if i == axis else n for i, n in enumerate(x.shape)]
    assert_trees_close(upsample(x, axis), jax.image.resize(x, shape, "bilinear"))


def test_views_do_not_see_each_other():
    images, timestep, pose = inputs()
    together = encode_clean(PARAMS, images, timestep, pose)
    other = encode_clean(PARAMS, images.at[1:].add(0.5), timestep.at[1:].add(3), pose.at[1:].add(1))
    np.testing.assert_allclose(together[0], other[0], atol=1e-5)
    assert float(np.max(np.abs(together[1] - other[1]))) > 1e-2


def test_time_and_pose_modulate_the_features():
    images, timestep, pose = inputs()
    before = encode_clean(PARAMS, images, timestep, pose)
    assert float(np.max(np.abs(encode_clean(PARAMS, images, timestep + 50, pose) - before))) > 1e-2
    assert float(np.max(np.abs(encode_clean(PARAMS, images, timestep, pose + 0.1) - before))) > 1e-2


def test_an_encoder_that_is_not_told_the_pose_has_no_parameters_for_it():
    model = tiny_model(absolute_pose=False)
    images, timestep, pose = inputs()
    params = random_params(model)["encoder"]
    assert not [name for name in params if "pose" in name or "fuse" in name]
    run = jit(lambda *given: encode(params, *given, model=model))
    np.testing.assert_array_equal(run(images, timestep, pose), run(images, timestep, pose + 1))


def test_closed_gates_make_a_block_the_identity():
    blocks = PARAMS["blocks"]
    closed = jax.tree.map(jnp.zeros_like, blocks["modulation"])
    others = jax.tree.map(lambda x: 2 * x + 1, blocks)
    given = [PARAMS | {"blocks": found | {"modulation": closed}} for found in (blocks, others)]
    np.testing.assert_array_equal(*(encode_clean(params, *inputs()) for params in given))


def test_new_parameters_are_float32_and_have_closed_gates():
    model = tiny_model(compute_dtype="bfloat16")
    shapes = parameter_shapes(model)["encoder"]
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    block = TransformerBlock(num_heads=2, dtype=jnp.bfloat16)
    params = jit(block.init)(jax.random.key(0), jnp.zeros((1, 4, 16)), jnp.zeros((1, 16)))["params"]
    for name, layer in params.items():
        assert bool(np.any(layer["kernel"] != 0)) == (name != "modulation"), name


def test_recomputing_blocks_changes_neither_values_nor_gradients():
    def loss(blocks, remat):
        features = encode(PARAMS | {"blocks": blocks}, *inputs(), model=tiny_model(remat=remat))
        return jnp.mean(jnp.square(features))

    kept, again = (jit(jax.value_and_grad(loss), static_argnums=1)(PARAMS["blocks"], remat) for remat in (False, True))
    # Float32's rounding through two blocks, forth and back: compiled in another order.
    assert_trees_close(kept, again, rtol=1e-4, atol=1e-6)
    assert all(float(np.max(np.abs(leaf))) > 0 for leaf in jax.tree.leaves(kept[1]))


def test_two_runs_of_the_same_blocks_add_up_their_gradients_in_place():
    images, timestep, pose = inputs()

    def loss(params, model):
        """A clean view, and a noisy one that depends on what was seen in it."""
        encoder = model.networks.bind_encoder(params)
        clean = encoder.encode_clean(images, timestep, pose)
        given = jnp.concatenate([images, jnp.tile(images, (1, 1, 1, 3))[..., :8]], axis=-1) * (1 + jnp.mean(clean))
        later = model.networks.bind_encoder(params, after=BoundEncoder(encoder, params))
        noisy = later.encode_noisy(given, timestep + 1, pose)
        return jnp.mean(jnp.square(noisy)) + jnp.mean(jnp.square(clean))

    run = jit(jax.value_and_grad(loss), static_argnums=1)
    kept, again = (run({"encoder": PARAMS}, tiny_model(remat=remat)) for remat in (False, True))
    # Float32's rounding through two blocks, twice, forth and back: compiled in another order.
    assert_trees_close(kept, again, rtol=1e-4, atol=1e-6)


def test_bfloat16_computes_nearly_the_same():
    model = tiny_model(compute_dtype="bfloat16")
    low = jit(lambda *given: encode(PARAMS, *given, model=model))(*inputs())
    high = encode_clean(PARAMS, *inputs())
    assert low.dtype == jnp.bfloat16
    error = float(jnp.linalg.norm(low.astype(jnp.float32) - high) / jnp.linalg.norm(high))
    assert 0 < error < 0.03


def test_a_noisy_view_is_seen_with_all_that_the_estimate_rendered():
    images, timestep, pose = inputs()
    given = jnp.concatenate([images, jnp.tile(images, (1, 1, 1, 3))[..., :8]], axis=-1)
    before = encode_noisy(PARAMS, given, timestep, pose)
    for channel in range(11):
        changed = encode_noisy(PARAMS, given.at[..., channel].add(0.5), timestep, pose)
        assert float(np.max(np.abs(changed - before))) > 1e-2, channel
