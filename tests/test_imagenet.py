"""Encoders from public ImageNet weights: every file format, what is taken and what is not, and clear complaints."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.interop.imagenet import BATCH_NORM_EPSILON, fold_batch_norm, load_encoder
from dfm_jax.interop.published import export_arrays
from tests.tiny import RESNET, SIZE, jit, random_params, tiny_model
from tests.torchvision_state import resnet34_state

RESNET_MODEL = tiny_model(encoder=RESNET)
DIT_MODEL = tiny_model()
FORMATS = (".npz", ".safetensors", ".pt", ".pth")


def write(path, state):
    if path.suffix == ".npz":
        np.savez(path, **state)
    elif path.suffix == ".safetensors":
        pytest.importorskip("safetensors", reason="writes a .safetensors file, and safetensors is not installed")
        from safetensors.numpy import save_file

        save_file(state, path)
    else:
        torch = pytest.importorskip("torch", reason="writes a .pt file, and torch is not installed")
        torch.save({name: torch.from_numpy(np.array(array)) for name, array in state.items()}, path)
    return path


def dit_state() -> dict[str, np.ndarray]:
    """A made-up ImageNet DiT with the model's blocks: patches of 4 latent channels, 8 outputs, 5 classes and none."""
    rng = np.random.default_rng(0)
    known = export_arrays(random_params(DIT_MODEL, seed=1), DIT_MODEL)
    names = {name.removeprefix("model.enc."): array for name, array in known.items() if name.startswith("model.enc.")}
    state = {name: array for name, array in names.items() if name.startswith(("blocks.", "t_embedder."))}
    width = DIT_MODEL.config.encoder.width
    shapes = {
        "x_embedder.proj.weight": (width, 4, 2, 2),
        "x_embedder.proj.bias": (width,),
        "pos_embed": (1, 16, width),
        "y_embedder.embedding_table.weight": (6, width),
        "final_layer.linear.weight": (2 * 2 * 8, width),
        "final_layer.linear.bias": (2 * 2 * 8,),
        "final_layer.adaLN_modulation.1.weight": (2 * width, width),
        "final_layer.adaLN_modulation.1.bias": (2 * width,),
    }
    made = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: np.ascontiguousarray(array) for name, array in (state | made).items()}


@functools.cache
def public(kind):
    """A model and a public state of its kind of encoder."""
    return (DIT_MODEL, dit_state()) if kind == "dit" else (RESNET_MODEL, resnet34_state(RESNET.base, classes=10))


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("kind", ["resnet34", "dit"])
def test_every_format_gives_the_same_encoder(kind, suffix, tmp_path):
    model, state = public(kind)
    plain = load_encoder(write(tmp_path / "plain.npz", state), model)
    other = load_encoder(write(tmp_path / f"other{suffix}", state), model)
    assert plain.arrays.keys() == other.arrays.keys()
    for path, array in plain.arrays.items():
        np.testing.assert_array_equal(other.arrays[path], array)


# --- ResNet34 -----------------------------------------------------------------------------------------------------


def test_a_folded_convolution_is_the_convolution_and_its_normalisation():
    rng = np.random.default_rng(0)
    kernel, (scale, bias, mean) = rng.normal(size=(4, 3, 1, 1)), rng.normal(size=(3, 4))
    variance, x = rng.uniform(0.1, 2, 4), rng.normal(size=3)
    expected = (kernel[:, :, 0, 0] @ x - mean) / np.sqrt(variance + BATCH_NORM_EPSILON) * scale + bias
    folded, folded_bias = fold_batch_norm(kernel, scale, bias, mean, variance)
    np.testing.assert_allclose(folded[:, :, 0, 0] @ x + folded_bias, expected)


def test_resnet_takes_all_but_what_depends_on_time_and_says_so(tmp_path):
    model, state = public("resnet34")
    weights = load_encoder(write(tmp_path / "resnet34.npz", state), model)
    flat = jax.tree_util.tree_leaves_with_path(parameter_shapes(model)["encoder"])
    shapes = {tuple(part.key for part in path): leaf.shape for path, leaf in flat}
    new = {path for path in shapes if "film" in path or path[0].startswith(("time_", "pose_", "fuse_"))}
    assert weights.arrays.keys() == shapes.keys() - new
    assert all(array.shape == shapes[path] and array.dtype == np.float32 for path, array in weights.arrays.items())
    lines = [line.strip() for line in weights.report.splitlines()]
    assert "new: fuse_in, fuse_out, layer1_*/film, layer2_*/film" in lines[2]
    assert lines[3] == "dropped: layer4, fc, num_batches_tracked"


def test_a_noisy_view_that_equals_its_estimate_is_seen_as_the_clean_one(tmp_path):
    model, state = public("resnet34")
    weights = load_encoder(write(tmp_path / "resnet34.npz", state), model)
    params = random_params(model)["encoder"]
    for name in ("clean_stem", "noisy_stem"):
        params[name] = {part: jnp.asarray(weights.arrays[name, part]) for part in ("kernel", "bias")}
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (1, SIZE, SIZE, 3)), jnp.float32)
    rest = jnp.asarray(rng.normal(size=(1, SIZE, SIZE, 1 + model.config.rendered_features)), jnp.float32)
    run = jit(
        lambda method, *given: model.networks.encoder.apply({"params": params}, *given, method=method), static_argnums=0
    )
    time_and_pose = (jnp.zeros(1), jnp.eye(4)[None, :3])
    noisy = run("encode_noisy", jnp.concatenate([images, images, rest], axis=-1), *time_and_pose)
    # Another sum in the first layer; 33 layers in float32 follow.
    np.testing.assert_allclose(noisy, run("encode_clean", images, *time_and_pose), rtol=1e-4, atol=1e-4)


def test_a_model_that_sees_no_noisy_view_takes_no_stem_for_one(tmp_path):
    path = write(tmp_path / "resnet34.npz", public("resnet34")[1])
    whole = load_encoder(path, RESNET_MODEL).arrays
    alone = load_encoder(path, tiny_model(encoder=RESNET, deterministic=True)).arrays
    assert whole.keys() - alone.keys() == {("noisy_stem", "kernel"), ("noisy_stem", "bias")}


# --- DiT ----------------------------------------------------------------------------------------------------------


def test_dit_takes_blocks_time_and_the_label_of_no_class(tmp_path):
    model, state = public("dit")
    weights = load_encoder(write(tmp_path / "dit.npz", state), model)
    expected = random_params(model, seed=1)["encoder"]
    parts = {path[0] for path in weights.arrays}
    assert parts == {"blocks", "time_in", "time_out"}
    label = state["y_embedder.embedding_table.weight"][-1]
    for path, array in weights.arrays.items():
        wanted = expected
        for part in path:
            wanted = wanted[part]
        np.testing.assert_array_equal(array, wanted + label if path == ("time_out", "bias") else wanted)
    assert "dropped: x_embedder, pos_embed, final_layer" in weights.report
    assert "clean_stem, final, final_modulation, fuse_in" in weights.report


# --- complaints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "lost", "found"),
    [
        ("resnet34", "layer2.0.conv1.weight", "bn1.running_mean"),
        ("dit", "blocks.1.attn.qkv.weight", "t_embedder.mlp.0.bias"),
    ],
)
def test_all_that_is_wrong_is_listed_at_once(kind, lost, found, tmp_path):
    model, state = public(kind)
    state = {name: array for name, array in state.items() if name != lost}
    state[found] = np.zeros(99, np.float32)
    state["surprise.weight"] = np.zeros((2, 3), np.float32)
    whole = next(name for name in state if name.endswith("weight") and name != lost)
    state[whole] = np.full_like(state[whole], np.nan)
    with pytest.raises(UserError) as error:
        load_encoder(write(tmp_path / "wrong.npz", state), model)
    lines = [line.strip() for line in str(error.value).splitlines()]
    assert f"wrong.npz does not fit config.model.encoder ({kind}):" in lines[0]
    assert {f"missing: {lost}", "unexpected: surprise.weight (2, 3)", f"not finite: {whole}"} <= set(lines)
    assert [line for line in lines if "(99,)" in line]
    assert len(lines) == 5


def test_another_networks_file_is_refused_in_few_lines(tmp_path):
    path = write(tmp_path / "resnet34.npz", public("resnet34")[1])
    with pytest.raises(UserError, match=r"missing: blocks\.0") as error:
        load_encoder(path, DIT_MODEL)
    assert len(str(error.value).splitlines()) == 22
    assert "more" in str(error.value).splitlines()[-1]


def test_a_wider_model_is_refused(tmp_path):
    path = write(tmp_path / "resnet34.npz", public("resnet34")[1])
    with pytest.raises(UserError, match=r"shape of conv1\.weight: \(2, 3, 7, 7\), needed \(4, 3, 7, 7\)"):
        load_encoder(path, tiny_model(encoder=dataclasses.replace(RESNET, base=4)))
