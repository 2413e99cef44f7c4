"""Published state dicts: names, layouts, exact round trips, and complaints that list everything."""

import ast
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.errors import UserError
from dfm_jax.interop.published import (
    StateDictError,
    export_arrays,
    export_state,
    import_params,
    leftovers,
    same_bits,
)
from dfm_jax.interop.published_config import check_form, read_sizes
from dfm_jax.interop.published_names import LABEL_EMBEDDING, POSITION_CODE, TIME_BIAS, rules
from dfm_jax.models.embeddings import token_position_code
from tests.published_state import CONFIGS, made_up_state, model_of, small_config
from tests.tiny import random_params, tiny_model

MODEL = tiny_model(view_blocks=2)
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
    # Sums of 16 products in another order, in float32.
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
    # Sums of 256 products in another order, in float32.
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
        "model.enc.pos_embed": token_position_code(4, 4, 16)[None],
        "model.pixelNeRF_joint_coarse.mlp_fine.lin_in.weight": np.zeros((16, 47)),
        "model.pixelNeRF_joint.mlp.lin_out.bias": np.zeros(4),
        "betas": np.zeros(1000),
    }
    import_params(state, MODEL)


def test_all_that_is_wrong_is_listed_at_once(state):
    del state[QKV], state[LABEL_EMBEDDING]
    state["model.enc.cnn_refine.bias"] = np.zeros(3, np.float32)
    state["model.pixelNeRF_joint.mlp.lin_in.weight"] = np.zeros((39 + 8, 16), np.float32)
    state["model.enc.blocks.2.attn.qkv.weight"] = np.zeros((48, 16), np.float32)
    state["model.enc.cnn_skip.bias"] = np.zeros(64, np.int32)
    state["model.enc.final_layer.linear.bias"] = np.full(32, np.nan, np.float32)
    state["model.enc.pos_embed"] = token_position_code(4, 4, 16)[None, ::-1]
    state["model.pixelNeRF_joint.mlp.lin_out.bias"] = np.zeros(5, np.float32)
    state["names"] = np.array(["a", "b"])
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
            "model.enc.cnn_skip.bias holds int32, not floating-point numbers",
            "model.enc.final_layer.linear.bias holds numbers that are not finite",
            "model.enc.pos_embed (1, 16, 16) holds other numbers than the published model's, which are fixed",
            "shape of model.pixelNeRF_joint.mlp.lin_out.bias: (5,), needed (4,)",
            "names holds <U1, no numbers",
        ]
    )


@pytest.mark.parametrize("shape", [(3, 1), (16,), (3, 8), (0, 16)])
def test_a_label_embedding_of_another_width_is_refused(state, shape):
    state[LABEL_EMBEDDING] = np.zeros(shape, np.float32)
    with pytest.raises(StateDictError, match=r"y_embedder"):
        import_params(state, MODEL)


def test_a_model_without_a_fine_pass_leaves_the_fine_field_out(params, state):
    imported = import_params(state, tiny_model(num_fine=0, view_blocks=2))
    assert set(imported["scene_field"]) == {"coarse"}
    jax.tree.map(np.testing.assert_array_equal, imported["scene_field"]["coarse"], params["scene_field"]["coarse"])


# --- whole state dicts, there and back

FIXTURES = sorted((pathlib.Path(__file__).resolve().parents[2] / "shared" / "fixtures").glob("*.npz"))


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not same_bits(a[name], b[name])] == []


@pytest.mark.parametrize("num_fine", [0, 4])
@pytest.mark.parametrize("name", ["co3d", "realestate10k"])
def test_a_state_dict_comes_back_bit_for_bit(name, num_fine):
    changes = {"model.ray_marching.num_fine": num_fine, "loss.coarse": 0, "model.ray_marching.background": 0.25}
    model = model_of(small_config(name, **changes))
    state = made_up_state(model) | {"betas": np.arange(3.0), "step": np.array(7)}
    kept = leftovers(state, model)
    assert not any(".pos_" in name for name in kept)  # recomputed
    assert_same_state(export_state(import_params(state, model), model, kept), state)


@pytest.mark.skipif(not FIXTURES, reason="no fixtures (shared/fixtures/*.npz beside the repository)")
@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_a_model_that_was_trained_here_exports_every_published_name_in_its_shape(path):
    with np.load(path) as arrays:
        shapes = {name[7:]: arrays[name].shape for name in arrays if name.startswith("params/")}
        meta = ast.literal_eval(str(arrays["meta"]))
    changes = {"model.rendered_features": 64, "model.ray_marching.num_fine": meta["n_fine"], "loss.coarse": 0}
    changes |= {f"model.{field}.width": meta["mlp_hidden"] for field in ("scene_field", "conditioning_field")}
    sizes = {"depth": meta["depth"], "width": meta["hidden"], "num_heads": meta["heads"], "features": meta["feat"]}
    changes |= {f"model.encoder.{name}": size for name, size in sizes.items()}
    model = model_of(small_config("co3d" if meta["abs_pose"] else "realestate10k", **changes))
    exported = export_state(random_params(model), model, {})
    assert {name: array.shape for name, array in exported.items()} == shapes


def test_what_was_not_imported_is_filled_in_as_documented(params):
    model = tiny_model(num_fine=0, view_blocks=2)
    params = params | {"scene_field": {"coarse": params["scene_field"]["coarse"]}}
    state = export_state(params, model, {})
    np.testing.assert_array_equal(state[LABEL_EMBEDDING], np.zeros((1001, 16)))
    np.testing.assert_array_equal(state[TIME_BIAS], params["encoder"]["time_out"]["bias"])
    np.testing.assert_array_equal(state[POSITION_CODE][0], token_position_code(4, 4, 16))
    np.testing.assert_array_equal(state["model.renderer.backgrd_color"], np.full(3, 0.3, np.float32))
    for field in ("pixelNeRF_joint", "pixelNeRF_joint_coarse"):
        used = state[f"model.{field}.mlp.lin_out_feats.weight"]
        np.testing.assert_array_equal(state[f"model.{field}.mlp.lin_out.weight"], used[:4])
        np.testing.assert_array_equal(state[f"model.{field}.mlp_fine.lin_out_feats.weight"], used)
    jax.tree.map(np.testing.assert_array_equal, import_params(state, model), params)


def test_the_label_and_its_bias_are_restored_although_their_sum_was_rounded(state):
    rng = np.random.default_rng(0)
    state[TIME_BIAS] = rng.standard_normal(16, dtype=np.float32)
    state[LABEL_EMBEDDING] = 1e4 * rng.standard_normal((3, 16), dtype=np.float32)
    bias = import_params(state, MODEL)["encoder"]["time_out"]["bias"]
    assert not np.array_equal(bias - state[LABEL_EMBEDDING][0], state[TIME_BIAS])
    again = export_state(import_params(state, MODEL), MODEL, leftovers(state, MODEL))
    assert same_bits(again[TIME_BIAS], state[TIME_BIAS])
    assert same_bits(again[LABEL_EMBEDDING], state[LABEL_EMBEDDING])


def test_a_bias_that_was_trained_further_is_exported_with_a_label_of_zero(state):
    state[LABEL_EMBEDDING] = np.ones((3, 16), np.float32)
    params = import_params(state, MODEL)
    params["encoder"]["time_out"]["bias"][3] += 1
    again = export_state(params, MODEL, leftovers(state, MODEL))
    jax.tree.map(np.testing.assert_array_equal, import_params(again, MODEL), params)


def test_codes_that_differ_in_the_last_bits_come_back_as_they_were(state):
    state[POSITION_CODE] = np.nextafter(token_position_code(4, 4, 16)[None], np.float32(2))
    again = export_state(import_params(state, MODEL), MODEL, leftovers(state, MODEL))
    assert same_bits(again[POSITION_CODE], state[POSITION_CODE])


def test_position_codes_of_another_grid_are_known_again():
    config = small_config()
    encoder = dataclasses.replace(config.model.encoder, position_grid=7)
    stretched = model_of(dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder)))
    assert read_sizes(made_up_state(stretched)).position_grid == 7
    assert read_sizes(made_up_state(model_of(config))).position_grid == 0


def test_position_codes_are_recomputed_for_another_image_size():
    model, larger = model_of(small_config()), model_of(small_config(image_size=32))
    state = made_up_state(model)
    state[POSITION_CODE] = np.nextafter(state[POSITION_CODE], np.float32(2))  # so that they are kept
    again = export_state(import_params(state, larger), larger, leftovers(state, larger))
    assert same_bits(again.pop(POSITION_CODE), token_position_code(8, 8, 16)[None])
    assert_same_state(again, {name: array for name, array in state.items() if name != POSITION_CODE})


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("co3d.py:64-lean", "a proposal in its place"),
        ("co3d.py:64-resnet34", "have the encoder 'dit'"),
        ("co3d.py:pixelnerf", "this config has 'pixelnerf'"),
    ],
)
def test_models_of_another_form_are_refused(file, message):
    with pytest.raises(StateDictError, match=message):
        check_form(read_config(str(CONFIGS / file)).model)
