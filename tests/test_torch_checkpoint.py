"""Published state dicts: names, layouts, and complaints that list everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.interop.torch_checkpoint import (
    LABEL_EMBEDDING,
    TIME_BIAS,
    StateDictError,
    export_arrays,
    import_params,
    rules,
)
from tests.tiny import random_params, tiny_model

MODEL = tiny_model()
QKV = "model.enc.blocks.1.attn.qkv.weight"


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture
def state(params):
    found = {name: np.array(array) for name, array in export_arrays(params, MODEL).items()}
    return found | {LABEL_EMBEDDING: np.zeros((3, MODEL.config.encoder.width), np.float32)}


def test_import_undoes_export_and_export_undoes_import(params, state):
    imported = import_params(state, MODEL)
    jax.tree.map(np.testing.assert_array_equal, imported, params)
    again = export_arrays(imported, MODEL)
    assert set(again) == set(state) - {LABEL_EMBEDDING}
    for name, array in again.items():
        np.testing.assert_array_equal(array, state[name])


def test_every_parameter_is_named_once(params):
    paths = [(path, rule.layer) for rule in rules(MODEL.config) for path in rule.paths]
    assert len(paths) == len(set(paths))
    leaves = {tuple(part.key for part in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert {path for path, _ in paths} == leaves


def test_import_overwrites_every_number(state):
    numbered = {name: np.full_like(array, i + 1) for i, (name, array) in enumerate(state.items())}
    leaves = jax.tree.leaves(import_params(numbered, MODEL))
    assert all(np.all(leaf >= 1) for leaf in leaves)
    assert len({float(value) for leaf in leaves for value in np.unique(leaf)}) == len(state) - 1


def test_linear_layers_act_as_in_torch(state):
    x = np.random.default_rng(0).normal(size=16).astype(np.float32)
    ours = x @ import_params(state, MODEL)["encoder"]["time_out"]["kernel"]
    np.testing.assert_allclose(ours, state["model.enc.t_embedder.mlp.2.weight"] @ x, rtol=1e-4, atol=1e-5)


def test_transformer_blocks_are_stacked_by_their_number(state):
    kernel = import_params(state, MODEL)["encoder"]["blocks"]["qkv"]["kernel"]
    np.testing.assert_array_equal(kernel[1], state[QKV].T)


def test_convolutions_act_as_in_torch(state):
    kernel = import_params(state, MODEL)["encoder"]["patch_embedding"]["kernel"]
    patch = np.random.default_rng(0).normal(size=(1, 2, 2, 64)).astype(np.float32)
    ours = jax.lax.conv_general_dilated(
        jnp.asarray(patch), jnp.asarray(kernel), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    theirs = np.einsum("oikl,kli->o", state["model.enc.x_embedder.proj.weight"], patch[0])
    np.testing.assert_allclose(ours[0, 0, 0], theirs, rtol=1e-4, atol=1e-4)


def test_the_first_layer_takes_the_point_code_and_then_the_features(state):
    weight = state["model.pixelNeRF_joint.mlp_fine.lin_in.weight"]
    field = import_params(state, MODEL)["scene_field"]["fine"]
    np.testing.assert_array_equal(field["point_in"]["kernel"], weight[:, :39].T)
    np.testing.assert_array_equal(field["feature_in"]["kernel"], weight[:, 39:].T)


def test_the_label_that_is_always_used_is_folded_into_the_time_code(state):
    state[LABEL_EMBEDDING] = np.arange(48, dtype=np.float32).reshape(3, 16)
    bias = import_params(state, MODEL)["encoder"]["time_out"]["bias"]
    np.testing.assert_allclose(bias, state[TIME_BIAS] + np.arange(16), rtol=1e-6)


def test_what_the_published_model_stores_but_never_reads_is_left_out(state):
    state |= {
        "model.enc.pos_embed": np.zeros((1, 16, 16)),
        "model.pixelNeRF_joint_coarse.mlp_fine.lin_in.weight": np.zeros((2, 2)),
        "model.pixelNeRF_joint.mlp.lin_out.bias": np.zeros(4),
    }
    import_params(state, MODEL)


def test_all_that_is_wrong_is_listed_at_once(state):
    del state[QKV], state[LABEL_EMBEDDING]
    state["model.enc.cnn_refine.bias"] = np.zeros(3, np.float32)
    state["model.pixelNeRF_joint.mlp.lin_in.weight"] = np.zeros((39 + 8, 16), np.float32)
    state["model.enc.blocks.2.attn.qkv.weight"] = np.zeros((48, 16), np.float32)
    with pytest.raises(StateDictError) as caught:
        import_params(state, MODEL)
    assert isinstance(caught.value, UserError)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert sorted(lines) == sorted(
        [
            f"missing: {QKV}",
            f"missing: {LABEL_EMBEDDING}",
            "unexpected: model.enc.blocks.2.attn.qkv.weight (48, 16)",
            "shape of model.enc.cnn_refine.bias: (3,), needed (8,)",
            "shape of model.pixelNeRF_joint.mlp.lin_in.weight: (47, 16), needed (16, 47)",
        ]
    )


@pytest.mark.parametrize("shape", [(3, 1), (16,), (3, 8), (0, 16)])
def test_a_label_embedding_of_another_width_is_refused(state, shape):
    state[LABEL_EMBEDDING] = np.zeros(shape, np.float32)
    with pytest.raises(StateDictError, match=r"y_embedder"):
        import_params(state, MODEL)


def test_a_model_without_a_fine_pass_leaves_the_fine_field_out(params, state):
    imported = import_params(state, tiny_model(num_fine=0))
    assert set(imported["scene_field"]) == {"coarse"}
    jax.tree.map(np.testing.assert_array_equal, imported["scene_field"]["coarse"], params["scene_field"]["coarse"])
