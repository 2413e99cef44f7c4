"""Inception v3 against torchvision's network, for both kinds of weights, and files that are not its weights."""

import jax
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.interop import inception as interop
from dfm_jax.models import inception
from tests.tiny import jit
from tests.torchvision_state import import_torchvision, undrawn

SIDE = 107  # pixels: enough for every pooling, and faster than 299


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Random weights and statistics under torchvision's names, without the auxiliary classifier."""
    rng = np.random.default_rng(0)
    state = {}
    for layer, leaves in inception.shapes().items():
        height, width, inputs, outputs = leaves["kernel"].shape
        kernel = rng.standard_normal((outputs, inputs, height, width), np.float32)
        state[f"{layer}.conv.weight"] = kernel * np.float32(np.sqrt(2 / (inputs * height * width)))
        state[f"{layer}.bn.weight"] = rng.uniform(0.5, 1.5, outputs).astype(np.float32)
        state[f"{layer}.bn.bias"] = 0.2 * rng.standard_normal(outputs, np.float32)
        state[f"{layer}.bn.running_mean"] = 0.2 * rng.standard_normal(outputs, np.float32)
        state[f"{layer}.bn.running_var"] = rng.uniform(0.5, 2.0, outputs).astype(np.float32)
        state[f"{layer}.bn.num_batches_tracked"] = np.array(7)
    return state | {"fc.bias": np.zeros(1000, np.float32)}


def classifier(classes: int) -> dict[str, np.ndarray]:
    return {"fc.weight": np.zeros((classes, inception.FEATURES), np.float32), "fc.bias": np.zeros(classes, np.float32)}


def torchvision_features(state, images: np.ndarray, published_fid: bool, monkeypatch) -> np.ndarray:
    """By torchvision's network; its poolings replaced by those of the network of published FIDs."""
    torch, torchvision = import_torchvision()
    with undrawn():
        network = torchvision.models.Inception3(aux_logits=False, transform_input=False, init_weights=False).eval()
    loaded = {name: torch.from_numpy(np.asarray(x)) for name, x in (state | classifier(1000)).items()}
    network.load_state_dict(loaded, assign=True)
    network.fc = torch.nn.Identity()
    if published_fid:
        average, functional = torch.nn.functional.avg_pool2d, torchvision.models.inception.F
        calls = []

        def pool(x, **settings):
            calls.append(x)
            if len(calls) == 9:  # of the last block; three of 'a', four of 'c' and one of 'e' come before it
                return torch.nn.functional.max_pool2d(x, **settings)
            return average(x, **settings, count_include_pad=False)

        monkeypatch.setattr(functional, "avg_pool2d", pool)
    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


@pytest.mark.parametrize("published_fid", [False, True])
def test_features_are_those_of_torchvisions_network(published_fid, state, tmp_path, monkeypatch):
    path = tmp_path / "inception.npz"
    np.savez(path, **(state | classifier(1008 if published_fid else 1000)))
    weights = interop.load(path)
    assert weights.published_fid == published_fid
    images = np.random.default_rng(1).uniform(-1, 1, (2, SIDE, SIDE, 3)).astype(np.float32)
    expected = torchvision_features(state, images, published_fid, monkeypatch)
    network = inception.InceptionV3(published_fid)
    ours = jit(lambda params, x: network.apply({"params": params}, x))(weights.params, images)
    assert ours.shape == expected.shape == (2, inception.FEATURES)
    assert np.linalg.norm(ours - expected) < 1e-4 * np.linalg.norm(expected)


def test_the_two_networks_differ_in_their_poolings_only():
    shapes = [
        jax.eval_shape(inception.InceptionV3(kind).init, jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32))
        for kind in (False, True)
    ]
    assert shapes[0] == shapes[1]


def test_images_of_any_size_are_resized_as_torch_does():
    torch = pytest.importorskip("torch", reason="compares with torch")
    for side in (24, 400):
        image = np.random.default_rng(2).uniform(size=(1, side, side, 3)).astype(np.float32)
        ours = jax.image.resize(image, (1, 299, 299, 3), "bilinear", antialias=False)
        theirs = torch.nn.functional.interpolate(
            torch.from_numpy(image.transpose(0, 3, 1, 2).copy()), size=(299, 299), mode="bilinear", align_corners=False
        )
        # Both compute the weights between pixels in float32, of positions up to 400.
        np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-4)


def test_weights_of_something_else_are_one_error_that_says_what_is_wrong(state, tmp_path, monkeypatch):
    def error(name: str, arrays: dict[str, np.ndarray]) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(interop, "read_state", lambda path: arrays)  # a hundred megabytes, of which one array differs
            with pytest.raises(UserError, match=f"{name} does not hold the weights of Inception v3") as raised:
                interop.load(name)
        return str(raised.value)

    good = state | classifier(1000)
    first = "Conv2d_1a_3x3.conv.weight"
    assert f"missing: {first}" in error("a.npz", {name: x for name, x in good.items() if name != first})
    assert "unexpected: layer1.conv" in error("b.npz", good | {"layer1.conv": np.zeros(1)})
    assert f"{first} is (32, 3, 3, 1), not (32, 3, 3, 3)" in error("c.npz", good | {first: good[first][..., :1]})
    assert f"not finite: {first}" in error("d.npz", good | {first: good[first] * np.nan})
    assert "more" in error("e.npz", {"conv1.weight": np.zeros(1)})
    with pytest.raises(UserError, match="there is no file"):
        interop.load(tmp_path / "nowhere.npz")
