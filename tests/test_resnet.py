"""The ResNet34 encoder: torchvision's network tap for tap, and its laws."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from dfm_jax.config import ResNet34Config
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.interop.imagenet import load_encoder
from dfm_jax.models.resnet import IMAGENET_MEAN, IMAGENET_STD, ResidualBlock, resize_aligned
from tests.tiny import RESNET, SIZE, assert_trees_close, jit, random_params, tiny_model
from tests.torchvision_state import import_torchvision, resnet34_state, undrawn

MODEL = tiny_model(encoder=RESNET)
RENDERED = MODEL.config.rendered_features


@cache
def parameters():
    return random_params(MODEL)["encoder"]


def encode(params, *given, model=MODEL, method="encode_clean"):
    return model.networks.encoder.apply({"params": params}, *given, method=method)


encode_clean = jit(encode)
encode_noisy = jit(partial(encode, method="encode_noisy"))


def inputs(n: int = 3, size: int = SIZE) -> tuple[jax.Array, jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (n, size, size, 3)), jnp.float32)
    return images, jnp.asarray([0.0, 400.0, 900.0][:n]), jnp.asarray(rng.normal(size=(n, 3, 4)), jnp.float32)


def noisy_inputs(images: jax.Array, estimate: jax.Array) -> jax.Array:
    rest = np.random.default_rng(1).normal(size=(*images.shape[:3], 1 + RENDERED))
    return jnp.concatenate([images, estimate, jnp.asarray(rest, jnp.float32)], axis=-1)


def largest(x: jax.Array) -> float:
    return float(np.max(np.abs(x)))


# --- against torchvision ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained():
    """torchvision's network with random weights and statistics, and ours with its weights."""
    torch, torchvision = import_torchvision()
    with undrawn():
        network = torchvision.models.resnet34(weights=None).eval()
    state = resnet34_state(64, classes=1000)
    network.load_state_dict({name: torch.from_numpy(np.asarray(x)) for name, x in state.items()}, assign=True)
    model = tiny_model(encoder=ResNet34Config("resnet34", base=64, absolute_pose=False, remat=False, init_file=""))
    return network, model


def torchvision_maps(network, images: np.ndarray) -> list[np.ndarray]:
    """pixelNeRF's taps of images in [0, 1]."""
    import torch

    x = torch.from_numpy(rearrange((images - IMAGENET_MEAN) / IMAGENET_STD, "n h w c -> n c h w"))
    with torch.no_grad():
        maps = [network.relu(network.bn1(network.conv1(x)))]
        x = network.maxpool(maps[0])
        for layer in (network.layer1, network.layer2, network.layer3):
            x = layer(x)
            maps.append(x)
    return maps


def test_the_pyramid_is_that_of_torchvisions_network(pretrained, tmp_path):
    import torch

    network, model = pretrained
    torch.save(network.state_dict(), tmp_path / "resnet34.pth")
    weights = load_encoder(tmp_path / "resnet34.pth", model)
    params = jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), parameter_shapes(model)["encoder"])
    for (module, *rest), array in weights.arrays.items():
        layer = params[module] if len(rest) == 1 else params[module][rest[0]]
        layer[rest[-1]] = jnp.asarray(array)

    images, timestep, pose = inputs(2, size=36)
    expected = torchvision_maps(network, np.asarray(images / 2 + 0.5))
    run = jit(
        lambda *given: (
            encode(params, *given, model=model, method=lambda m, *xs: m.pyramid(m.clean_stem, *xs)),
            encode(params, *given, model=model),
        )
    )
    maps, features = run(images, timestep, pose)
    for ours, theirs in zip(maps, expected, strict=True):
        theirs = rearrange(theirs.numpy(), "n c h w -> n h w c")
        assert ours.shape == theirs.shape
        assert np.linalg.norm(ours - theirs) < 1e-5 * np.linalg.norm(theirs)

    grow = partial(torch.nn.functional.interpolate, mode="bilinear", align_corners=True)
    whole = grow(torch.cat([grow(x, size=(18, 18)) for x in expected], dim=1), size=(36, 36))
    # Float32: enlarged twice, from maps that 33 layers made.
    np.testing.assert_allclose(features, rearrange(whole.numpy(), "n c h w -> n h w c"), rtol=1e-4, atol=1e-4)
    assert features.shape[-1] == model.config.encoder.features == 512


@pytest.mark.parametrize(("height", "width"), [(7, 4), (1, 9), (5, 6), (3, 2)])
def test_aligned_resizing_is_linear_between_the_corners(height, width):
    x = np.random.default_rng(0).normal(size=(1, 5, 6, 2)).astype(np.float32)
    ours = jit(resize_aligned, static_argnums=(1, 2))(x, height, width)
    rows = [np.interp(np.linspace(0, 4, height), np.arange(5), x[0, :, j, c]) for j, c in np.ndindex(6, 2)]
    rows = rearrange(np.array(rows), "(j c) i -> i j c", j=6)
    for i, c in np.ndindex(height, 2):
        expected = np.interp(np.linspace(0, 5, width), np.arange(6), rows[i, :, c])
        np.testing.assert_allclose(ours[0, i, :, c], expected, atol=1e-5)


# --- laws ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [SIZE, 17, 24, 36])
def test_a_feature_map_is_as_large_as_its_image(size):
    shape = jax.eval_shape(encode, parameters(), *inputs(size=size)).shape
    assert shape == (3, size, size, MODEL.config.encoder.features)


def test_an_images_features_do_not_depend_on_the_rest_of_the_batch():
    images, timestep, pose = inputs()
    together = encode_clean(parameters(), images, timestep, pose)
    other = encode_clean(parameters(), images.at[1:].multiply(3), timestep.at[1:].add(3), pose.at[1:].add(1))
    np.testing.assert_allclose(together[0], other[0], atol=1e-5)
    assert largest(together[1] - other[1]) > 1e-2
    given = (images, noisy_inputs(images, images), timestep, pose)
    assert set(jax.eval_shape(MODEL.networks.encoder.init, jax.random.key(0), *given)) == {"params"}


def test_time_and_pose_modulate_every_layer_but_the_first():
    images, timestep, pose = inputs()
    base = RESNET.base
    before = np.asarray(encode_clean(parameters(), images, timestep, pose))
    for given in ((images, timestep + 50, pose), (images, timestep, pose + 1)):
        after = np.asarray(encode_clean(parameters(), *given))
        np.testing.assert_array_equal(after[..., :base], before[..., :base])
        for layer in np.split(np.arange(base, 8 * base), [base, 3 * base]):
            assert largest(after[..., layer] - before[..., layer]) > 1e-3


@pytest.fixture(scope="module")
def new():
    """A wider model, and its encoder's new parameters."""
    model = tiny_model(encoder=ResNet34Config("resnet34", base=8, absolute_pose=True, remat=False, init_file=""))
    images, timestep, pose = inputs(1)
    init = jit(model.networks.encoder.init)(jax.random.key(0), images, noisy_inputs(images, images), timestep, pose)
    return model, init["params"]


def test_a_new_encoder_does_not_heed_time_or_pose_but_learns_to(new):
    model, params = new
    images, timestep, pose = inputs()

    def loss(params, timestep, pose):
        features = encode(params, images, timestep, pose, model=model)
        return jnp.sum(jnp.square(features)), features

    run = jit(jax.grad(loss, has_aux=True))
    slope, before = run(params, timestep, pose)
    np.testing.assert_array_equal(run(params, timestep + 50, pose + 1)[1], before)
    # One step down the gradient opens the last convolutions, the next reaches the modulation in front of them.
    slope, _ = run(
        jax.tree.map(lambda x, g: np.asarray(x) - np.float32(1e-5) * np.asarray(g), params, slope), timestep, pose
    )
    film = {name: layer["film"]["kernel"] for name, layer in slope.items() if "film" in layer}
    assert len(film) == 3 + 4 + 6
    assert {name: largest(kernel) > 0 for name, kernel in film.items()} == dict.fromkeys(film, True)


def test_signals_of_a_new_encoder_keep_their_size_from_map_to_map(new):
    model, params = new
    run = jit(lambda *xs: encode(params, *xs, model=model, method=lambda m, *xs: m.pyramid(m.clean_stem, *xs)))
    sizes = [float(np.sqrt(np.mean(np.square(x)))) for x in run(*inputs(size=32))]
    assert max(sizes) < 4 * min(sizes), sizes


def test_a_noisy_view_is_seen_with_all_that_the_estimate_rendered():
    images, timestep, pose = inputs()
    given = noisy_inputs(images, images[::-1])
    before = encode_noisy(parameters(), given, timestep, pose)
    assert before.shape == (3, SIZE, SIZE, MODEL.config.encoder.features)
    for channel in range(7 + RENDERED):
        changed = encode_noisy(parameters(), given.at[..., channel].add(0.5), timestep, pose)
        assert largest(changed - before) > 1e-2, channel


def test_recomputing_blocks_changes_neither_values_nor_gradients():
    """In float64: two programs round otherwise, and in float32 a ReLU at its kink may then be open in one of them."""
    again = ResNet34Config("resnet34", RESNET.base, absolute_pose=True, remat=True, init_file="")

    def loss(params, given, encoder):
        model = tiny_model(encoder=encoder, compute_dtype="float64")
        return jnp.mean(jnp.square(encode(params, *given, model=model)))

    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), (parameters(), inputs(2)))
        run = jit(jax.value_and_grad(loss), static_argnums=2)
        kept, recomputed = (run(*exact, encoder) for encoder in (RESNET, again))
        assert kept[0].dtype == jnp.float64
        assert_trees_close(kept, recomputed, rtol=1e-9, atol=1e-12)


def test_bfloat16_computes_nearly_the_same():
    model = tiny_model(encoder=RESNET, compute_dtype="bfloat16")
    low = jit(partial(encode, model=model))(parameters(), *inputs())
    high = encode_clean(parameters(), *inputs())
    assert low.dtype == jnp.bfloat16
    error = float(jnp.linalg.norm(low.astype(jnp.float32) - high) / jnp.linalg.norm(high))
    assert 0 < error < 0.03


def test_a_block_whose_last_convolution_is_zero_passes_on_what_a_relu_let_through():
    block, x = ResidualBlock(channels=4, stride=1, dtype=jnp.float32), jnp.abs(inputs()[0][..., [0, 1, 2, 0]])
    code = jnp.ones((3, 8))
    params = jit(block.init)(jax.random.key(0), x, code)
    np.testing.assert_array_equal(jit(block.apply)(params, x, code), x)
