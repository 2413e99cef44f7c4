"""DISTS against the published module, and TSED against geometry."""

import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.errors import UserError
from dfm_jax.evaluation import epipolar_consistency
from dfm_jax.interop import dists_weights
from dfm_jax.models import lpips
from dfm_jax.models.dists import CHANNELS, Dists
from tests import textured_room
from tests.tiny import jit
from tests.torchvision_state import import_torchvision, undrawn

RNG = np.random.default_rng(0)

distance_of = jit(lambda distance, a, b: distance(a, b))


@pytest.fixture(scope="module")
def vgg16():
    """Random weights of a size that keeps the signal's."""
    shapes = {name: shape for name, shape in lpips.shapes().items() if name.startswith("vgg16/")}
    arrays = {}
    for name, shape in shapes.items():
        _, layer, kind = name.split("/")
        size = np.sqrt(2 / np.prod(shape[:-1])) if kind == "kernel" else 0.1
        arrays.setdefault(layer, {})[kind] = (size * RNG.normal(size=shape)).astype(np.float32)
    return arrays


@pytest.fixture(scope="module")
def dists(vgg16):
    texture, structure = RNG.uniform(0, 0.1, (2, sum(CHANNELS))).astype(np.float32)
    return Dists(vgg16, jnp.asarray(texture), jnp.asarray(structure))


@pytest.fixture(scope="module")
def images():
    return RNG.uniform(size=(2, 2, 24, 20, 3)).astype(np.float32)


def test_dists_of_equal_images_is_0_and_of_others_the_same_both_ways(dists, images):
    a, b = images
    np.testing.assert_allclose(distance_of(dists, a, a), 0, atol=1e-5)
    np.testing.assert_allclose(distance_of(dists, a, b), distance_of(dists, b, a), atol=1e-5)
    assert np.all(np.asarray(distance_of(dists, a, b)) > 0.01)


def test_dists_is_that_of_the_published_module(dists, vgg16, images, monkeypatch):
    torch, torchvision = import_torchvision()
    pytest.importorskip("DISTS_pytorch", reason="the package dists-pytorch is not installed")
    published = importlib.import_module("DISTS_pytorch.DISTS_pt")
    with undrawn():
        network = torchvision.models.vgg16(weights=None)
    convolutions = [layer for layer in network.features if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer, weights in zip(convolutions, vgg16.values(), strict=True):
            layer.weight.copy_(torch.tensor(weights["kernel"].transpose(3, 2, 0, 1)))
            layer.bias.copy_(torch.tensor(weights["bias"]))
    monkeypatch.setattr(published.models, "vgg16", lambda pretrained: network)
    theirs = published.DISTS(load_weights=False)
    for name, weights in (("alpha", dists.texture), ("beta", dists.structure)):
        getattr(theirs, name).data = torch.tensor(np.asarray(weights)).reshape(1, -1, 1, 1)
    a, b = (torch.tensor(x.transpose(0, 3, 1, 2)) for x in images)
    # Float32, in another order.
    np.testing.assert_allclose(distance_of(dists, *images), theirs(a, b).detach().numpy(), atol=1e-5)


def test_weights_of_dists_that_are_missing_or_others_are_clear_errors(tmp_path, monkeypatch, vgg16):
    distance = lpips.Distance({"vgg16": vgg16}, "float32")
    weights = {name: RNG.uniform(size=(1, sum(CHANNELS), 1, 1)).astype(np.float32) for name in ("alpha", "beta")}
    np.savez(tmp_path / "dists.npz", **weights)
    loaded = dists_weights.load(str(tmp_path / "dists.npz"), distance)
    np.testing.assert_array_equal(loaded.texture, weights["alpha"].ravel())
    with pytest.raises(UserError, match="DISTS needs the VGG16 of LPIPS: run `make lpips-weights`"):
        dists_weights.load(str(tmp_path / "dists.npz"), None)
    np.savez(tmp_path / "others.npz", alpha=weights["alpha"][:, :3], beta=weights["beta"])
    with pytest.raises(UserError, match="does not hold the weights of DISTS: alpha and beta, 1475 numbers each"):
        dists_weights.load(str(tmp_path / "others.npz"), distance)
    monkeypatch.setattr(dists_weights, "PACKAGE", "a_package_that_there_is_not")
    with pytest.raises(UserError, match="pip install --no-deps dists-pytorch"):
        dists_weights.load("", distance)
    assert "a_package_that_there_is_not" not in sys.modules


# --- TSED


def room(count=4):
    """Pictures of a textured corner, their poses, and normalised intrinsics."""
    poses, walls = textured_room.cameras(2 * count - 2)[:count], textured_room.textures(0)
    images = np.stack([np.asarray(textured_room.picture(pose, walls)) for pose in poses]).astype(np.float32) / 255
    width, height, focal = textured_room.WIDTH, textured_room.HEIGHT, textured_room.FOCAL
    matrix = np.array([[focal / width, 0, 0.5], [0, focal / height, 0.5], [0, 0, 1]])
    return images, poses, np.tile(matrix, (count, 1, 1))


def test_points_of_a_scene_lie_on_their_epipolar_lines():
    _, poses, matrices = room()
    size = (textured_room.HEIGHT, textured_room.WIDTH)
    pixels = [epipolar_consistency._in_pixels(matrix, size, "centres") for matrix in matrices[:2]]
    points = RNG.uniform(0, 1, (30, 3))
    seen = []
    for pose, matrix in zip(poses[:2], pixels, strict=True):
        image = (points - pose[:3, 3]) @ pose[:3, :3] @ matrix.T
        seen.append(image[:, :2] / image[:, 2:])
    f = epipolar_consistency.fundamental(*poses[:2], *pixels)
    np.testing.assert_allclose(epipolar_consistency.symmetric_distance(*seen, f), 0, atol=1e-8)
    # A pair that is off by s pixels across the lines of both views has that distance, whatever the views are: of views
    # beside each other, lines are horizontal.
    beside = np.eye(4)
    beside[0, 3] = 1
    f = epipolar_consistency.fundamental(np.eye(4), beside, np.eye(3), np.eye(3))
    shifted = epipolar_consistency.symmetric_distance(np.array([[5.0, 2.0]]), np.array([[1.0, 5.0]]), f)
    np.testing.assert_allclose(shifted, 3)


def test_true_pictures_are_consistent_and_others_are_not():
    images, poses, matrices = room()
    assert epipolar_consistency.consistent_pairs(images, poses, matrices, "centres") == 1
    frozen = np.repeat(images[:1], len(images), axis=0)  # the camera moves, and the picture does not
    assert epipolar_consistency.consistent_pairs(frozen, poses, matrices, "centres") == 0
    assert epipolar_consistency.consistent_pairs(np.zeros_like(images), poses, matrices, "centres") == 0
