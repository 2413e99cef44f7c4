"""LPIPS: the laws of a distance, agreement with the `lpips` package, and its place in a training run."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from PIL import Image

from configs import realestate10k
from dfm_jax.config import Config
from dfm_jax.config.reading import ConfigError, from_dict
from dfm_jax.errors import UserError
from dfm_jax.interop.lpips_weights import CONVOLUTIONS, PLACES, from_state_dicts
from dfm_jax.models import lpips
from dfm_jax.training import loop
from dfm_jax.training.choices import fitted
from dfm_jax.training.setup import make_train_setup
from tests.tiny import jit, tiny_example
from tests.torchvision_state import import_torchvision, undrawn

ROOT = pathlib.Path(__file__).resolve().parents[1]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "realestate10k"
SIZE = 24

distance_of = jit(lambda distance, a, b: distance(a, b))


def random_weights() -> lpips.Params:
    """Made-up weights that neither blow features up nor let them fade."""
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.startswith("head"):
            return rng.uniform(size=shape).astype(np.float32)
        if name.endswith("bias"):
            return 0.1 * rng.standard_normal(shape, np.float32)
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[:-1])))

    arrays = {name: draw(name, shape) for name, shape in lpips.shapes().items()}
    return traverse_util.unflatten_dict(arrays, sep="/")


@pytest.fixture(scope="module")
def distance() -> lpips.Distance:
    return lpips.Distance(jax.tree.map(jnp.asarray, random_weights()), "float32")


def images(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(size=(count, size, size, 3)).astype(np.float32)


# --- laws -------------------------------------------------------------------------------------------------------------


def test_equal_images_are_at_distance_0_and_others_apart_either_way(distance):
    a, b = images(2), images(2, seed=1)
    np.testing.assert_array_equal(distance_of(distance, a, a), [0, 0])
    forth, back = distance_of(distance, a, b), distance_of(distance, b, a)
    assert (forth > 0).all()
    np.testing.assert_allclose(forth, back, rtol=1e-5)


def test_batches_of_any_rank_are_compared_image_by_image(distance):
    a, b = images(4), images(4, seed=1)
    singly = [float(distance_of(distance, a[i], b[i])) for i in range(4)]
    together = distance_of(distance, a.reshape(2, 2, *a.shape[1:]), b.reshape(2, 2, *b.shape[1:]))
    assert together.dtype == jnp.float32
    np.testing.assert_allclose(together, np.reshape(singly, (2, 2)), rtol=1e-5)


def test_features_that_are_kept_give_the_same_distance(distance):
    a, b = images(2), images(2, seed=1)
    kept = jit(lambda distance, a, b: distance.between(distance.features(a), distance.features(b)))
    np.testing.assert_allclose(kept(distance, a, b), distance_of(distance, a, b), rtol=1e-5)


def test_the_distance_grows_with_blur(distance):
    sharp = Image.fromarray((255 * images(1)[0]).astype(np.uint8))
    blurred = [sharp.resize((side, side), Image.Resampling.BOX).resize((SIZE, SIZE)) for side in (SIZE, 16, 8, 3)]
    array = lambda image: np.asarray(image, np.float32) / 255
    found = [float(distance_of(distance, array(sharp), array(image))) for image in blurred]
    assert found[0] == 0
    assert found == sorted(found)
    assert found[-1] > 1.5 * found[1]


def test_bfloat16_features_change_the_distance_little(distance):
    a, b = images(2), images(2, seed=1)
    exact, rounded = (distance_of(distance.replace(dtype=dtype), a, b) for dtype in ("float32", "bfloat16"))
    assert rounded.dtype == jnp.float32
    assert (np.asarray(exact) != np.asarray(rounded)).all()
    # Bfloat16 has 8 bits: 0.004 in each of 13 layers, averaged over positions and channels.
    np.testing.assert_allclose(rounded, exact, rtol=0.02)


def test_images_get_gradients_and_weights_get_none(distance):
    gradient = jit(jax.grad(lambda distance, a, b: distance(a, b), argnums=(0, 1)))
    a, b = images(2)
    for_weights, for_image = gradient(distance, a, b)
    assert all(not leaf.any() for leaf in jax.tree.leaves(for_weights))
    assert np.isfinite(for_image).all()
    assert np.abs(for_image).max() > 0
    # 0 but for float32's rounding, relative to an ordinary gradient.
    np.testing.assert_allclose(gradient(distance, a, a)[1], 0, atol=1e-4 * np.abs(for_image).max())
    # Where no feature is left, a length of 0 is divided by.
    dead = {name: {"kernel": w["kernel"], "bias": w["bias"] - 1e3} for name, w in distance.params["vgg16"].items()}
    np.testing.assert_array_equal(gradient(distance.replace(params=distance.params | {"vgg16": dead}), a, b)[1], 0)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((24, 24, 3), np.uint8), np.zeros((24, 24, 3), np.uint8), "float images"),
        (np.zeros((24, 24, 3)), np.zeros((2, 24, 24, 3)), "of one shape"),
        (np.zeros((3, 24, 24)), np.zeros((3, 24, 24)), "h, w, 3"),
        (np.zeros((24, 15, 3)), np.zeros((24, 15, 3)), "at least 16 pixels"),
    ],
)
def test_what_is_no_pair_of_images_is_refused(distance, a, b, message):
    with pytest.raises(ValueError, match=message):
        distance(a, b)


# --- the package ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package():
    """PyTorch, the package `lpips`, and its network with a random VGG16 (it would download a trained one)."""
    torch, _ = import_torchvision()
    package = pytest.importorskip("lpips", reason="compares with PyTorch: make .venv/.installed-reference")
    with undrawn():  # a hundred million of its numbers are a classifier's, which is not used
        network = package.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    for layer in convolutions(network).values():
        torch.nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        torch.nn.init.normal_(layer.bias, std=0.1)
    return torch, package, network


def packages_distance(torch, network, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    channels_first = lambda x: torch.from_numpy(np.moveaxis(x, -1, 1).copy())
    with torch.no_grad():
        return network(channels_first(a), channels_first(b), normalize=True).numpy().ravel()


def convolutions(network) -> dict:
    """The network's convolutions under torchvision's names."""
    slices = [getattr(network.net, f"slice{i}") for i in range(1, 6)]
    found = {name: layer for part in slices for name, layer in part.named_children()}
    return {f"features.{place}": found[str(place)] for place in PLACES}


@pytest.mark.parametrize("size", [(24, 24), (17, 33)])
def test_random_weights_give_the_packages_distance(package, size):
    torch, _, network = package
    for head in network.lins:
        torch.nn.init.uniform_(head.model[1].weight)
    state = {f"{name}.{part}": getattr(layer, part).detach().numpy()
             for name, layer in convolutions(network).items() for part in ("weight", "bias")}  # fmt: skip
    heads = {f"lin{i}.model.1.weight": head.model[1].weight.detach().numpy() for i, head in enumerate(network.lins)}
    ours = lpips.Distance(jax.tree.map(jnp.asarray, from_state_dicts(state, heads)), "float32")
    a, b = np.random.default_rng(0).uniform(size=(2, 3, *size, 3)).astype(np.float32)
    # 13 convolutions in float32, of which each sums up to 4608 products in an order of its own.
    np.testing.assert_allclose(distance_of(ours, a, b), packages_distance(torch, network, a, b), rtol=1e-4)


def test_the_published_weights_give_the_packages_distance_of_photographs(package):
    if not lpips.default_path().is_file():
        pytest.skip("the weights of LPIPS are not there: make lpips-weights")
    if not PHOTOGRAPHS.is_dir():
        pytest.skip("the photographs are not there (shared/data/realestate10k beside the repository)")
    torch, package, network = package
    heads = pathlib.Path(package.__file__).parent / "weights" / "v0.1" / "vgg.pth"
    network.load_state_dict(torch.load(heads, map_location="cpu", weights_only=True), strict=False)
    ours = lpips.load_default()
    for name, layer in zip(CONVOLUTIONS, convolutions(network).values(), strict=True):
        weights = jax.tree.map(np.array, ours.params["vgg16"][name])
        layer.weight.data = torch.from_numpy(weights["kernel"].transpose(3, 2, 0, 1).copy())
        layer.bias.data = torch.from_numpy(weights["bias"])
    files = sorted(PHOTOGRAPHS.rglob("*.jpg"))[::16]
    photographs = np.stack([np.asarray(Image.open(f).convert("RGB").resize((64, 64)), np.float32) / 255 for f in files])
    a, b = photographs[:-1], photographs[1:]
    # 13 convolutions in float32, of which each sums up to 4608 products in an order of its own.
    np.testing.assert_allclose(distance_of(ours, a, b), packages_distance(torch, network, a, b), rtol=1e-4)


# --- in training ------------------------------------------------------------------------------------------------------


def settings(**loss: float | str) -> Config:
    """A small config whose images are those of `tiny_example`."""
    config = realestate10k.get_config("tiny")
    config.image_size = 16
    config.model.estimate_size = 8
    config.loss.update({"patch_size": 16, "smoothness": 0.0} | loss)
    return fitted(from_dict(config))


def test_training_takes_lpips_as_an_argument_and_trains_no_part_of_it(tmp_path, monkeypatch):
    monkeypatch.setenv(lpips.ENVIRONMENT, str(tmp_path / "weights.npz"))
    lpips.save(lpips.default_path(), random_weights())
    setup, plain = make_train_setup(settings(lpips=1.0)), make_train_setup(settings(lpips=0.0))
    assert plain.frozen_params == ()
    key = jax.random.key(0)
    state = jax.eval_shape(setup.init, key)
    assert jax.tree.structure(state) == jax.tree.structure(jax.eval_shape(plain.init, key))
    arguments = state, tiny_example(v=1), key, *setup.frozen_params
    program, (after, metrics) = jax.make_jaxpr(setup.step, return_shape=True)(*arguments)
    assert "lpips" in metrics
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert sum(np.size(constant) for constant in program.consts) < 1e5


def test_lpips_is_computed_as_the_networks_are(tmp_path, monkeypatch):
    monkeypatch.setenv(lpips.ENVIRONMENT, str(tmp_path / "weights.npz"))
    lpips.save(lpips.default_path(), random_weights())
    config = settings(lpips=1.0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, compute_dtype="bfloat16"))
    assert make_train_setup(config).frozen_params[0].dtype == "bfloat16"


def test_without_weights_training_stops_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setenv(lpips.ENVIRONMENT, str(tmp_path / "nowhere.npz"))
    with pytest.raises(UserError, match=r"nowhere\.npz.*make lpips-weights.*--config\.loss\.lpips=0"):
        loop.train(settings(lpips=1.0), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", [{"pixels": "random"}, {"patch_size": 15}])
def test_lpips_needs_patches_that_are_large_enough(loss):
    with pytest.raises(ConfigError, match=r"loss\.lpips needs loss\.pixels='patch' and loss\.patch_size"):
        settings(lpips=1.0, **loss)
