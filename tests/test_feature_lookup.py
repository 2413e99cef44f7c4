"""Bilinear lookups in feature maps, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
from flax import linen as nn

from dfm_jax.geometry import pixel_grid
from dfm_jax.models import feature_lookup
from dfm_jax.models.feature_lookup import lookup_features
from tests.test_models import GRIDS, lookup
from tests.tiny import assert_trees_close, jit


def random_maps(height: int = 5, width: int = 7, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, 2, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize("grid", GRIDS)
def test_lookup_is_bilinear_and_clamps_to_the_border(grid):
    maps = random_maps()
    uv = np.random.default_rng(1).uniform(-0.4, 1.4, (2, 2, 40, 2)).astype(np.float32)
    size = np.array([7, 5])
    x, y = np.moveaxis(uv * size - 0.5 if grid == "centres" else uv * (size - 1), -1, 0)
    ours = lookup(jnp.asarray(maps), jnp.asarray(uv), grid)
    for b, v, c in np.ndindex(2, 2, 3):
        place = (y[b, v], x[b, v])
        expected = scipy.ndimage.map_coordinates(maps[b, v, :, :, c], place, order=1, mode="nearest")
        # Positions between pixels in float32: 1e-6 of a pixel times steps of up to 5.
        np.testing.assert_allclose(ours[b, v, :, c], expected, atol=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
def test_lookup_at_the_pixels_returns_the_map(grid):
    maps = random_maps()
    uv = jnp.broadcast_to(pixel_grid(5, 7, grid).reshape(1, 1, 35, 2), (2, 2, 35, 2))
    np.testing.assert_allclose(lookup(jnp.asarray(maps), uv, grid), maps.reshape(2, 2, 35, 3), atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_lookup_works_on_maps_of_a_single_row_or_column(grid, shape):
    maps = jnp.asarray(random_maps(*shape))
    uv = jnp.broadcast_to(pixel_grid(*shape, grid).reshape(1, 1, -1, 2), (2, 2, shape[0] * shape[1], 2))
    ours = lookup(maps, uv, grid)
    np.testing.assert_allclose(ours, maps.reshape(2, 2, -1, 3), atol=1e-6)


def test_lookup_of_a_point_at_infinity_is_finite_and_so_is_its_slope():
    maps, uv = jnp.asarray(random_maps()), jnp.full((2, 2, 1, 2), 1e12)
    gradient = jit(jax.grad(lambda uv: jnp.sum(lookup_features(maps, uv, "centres"))))(uv)
    np.testing.assert_allclose(lookup(maps, uv, "centres")[:, :, 0], maps[:, :, -1, -1], rtol=1e-6)
    np.testing.assert_array_equal(gradient, np.zeros_like(gradient))


def test_lookup_commutes_with_a_linear_layer():
    maps, uv = jnp.asarray(random_maps(channels=8)), jnp.asarray(np.random.default_rng(2).uniform(size=(2, 2, 9, 2)))
    layer = nn.Dense(5)
    params = {"params": {"kernel": jnp.asarray(random_maps(8, 5, 1)[0, 0, :, :, 0]), "bias": jnp.arange(5.0)}}
    late = layer.apply(params, lookup(maps, uv, "centres"))
    # Float32: biases of up to 4 are added before or after.
    np.testing.assert_allclose(lookup(layer.apply(params, maps), uv, "centres"), late, atol=1e-4)


@pytest.mark.parametrize("at_once", [1000, 16, 3])
def test_the_lookups_gradient_is_the_plain_one_however_few_points_are_added_at_once(at_once, monkeypatch):
    monkeypatch.setattr(feature_lookup, "ADDED_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    maps, uv = jnp.asarray(random_maps()), jnp.asarray(rng.uniform(-0.2, 1.2, (2, 2, 20, 2)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 2, 20, 3)), jnp.float32)

    def plain(maps, uv):
        """By the triangles around each pixel: differentiable without a lookup."""
        near = lambda x, size: jnp.maximum(
            0, 1 - jnp.abs(jnp.clip(x * size - 0.5, 0, size - 1)[..., None] - jnp.arange(size)[None, None, None])
        )
        return jnp.einsum("bvnh,bvnw,bvhwc->bvnc", near(uv[..., 1], 5), near(uv[..., 0], 7), maps)

    loss = lambda look: lambda maps, uv: jnp.sum(weights * look(maps, uv))
    ours = jit(jax.grad(loss(lambda maps, uv: lookup_features(maps, uv, "centres")), argnums=(0, 1)))(maps, uv)
    theirs = jit(jax.grad(loss(plain), argnums=(0, 1)))(maps, uv)
    assert_trees_close(ours, theirs)


def test_gradients_of_lookups_are_the_same_added_at_once_as_in_pieces():
    rng = np.random.default_rng(4)
    index, weights = rng.integers(0, 6, (4, 2, 50)), rng.uniform(size=(4, 2, 50)).astype(np.float32)
    arguments = jnp.zeros((2, 6, 3)), jnp.asarray(index), jnp.asarray(weights), jnp.asarray(rng.normal(size=(2, 50, 3)))
    # Sums of about 30 numbers in another order.
    assert_trees_close(feature_lookup.add_at_once(*arguments), feature_lookup.add_in_pieces(*arguments))


def test_an_unknown_grid_is_refused():
    with pytest.raises(ValueError, match="middles"):
        lookup_features(jnp.asarray(random_maps()), jnp.zeros((2, 2, 1, 2)), "middles")
