"""Gaussians of a scene: rasterised, fitted to renderings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dfm_jax.errors import UserError
from dfm_jax.exports import fitting
from dfm_jax.exports.blending import LEAST_ALPHA, MOST_ALPHA, Layers, blend
from dfm_jax.exports.initial_gaussians import initial_gaussians
from dfm_jax.exports.rasterizer import Splats, project_gaussians, rasterize, touched_tiles
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.exports.splat_parameters import from_gaussians, to_gaussians
from dfm_jax.structs import Camera
from tests.made_up_scene import Balls
from tests.splatting import made_up, splat

MATRIX = np.array([[1.2, 0.0, 0.45], [0.0, 1.4, 0.55], [0.0, 0.0, 1.0]])
NEAR = 0.5


def tilted() -> Camera:
    """A camera that sees most of the ball, some of it beside the image and some behind it."""
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", [5, -25, 10], degrees=True).as_matrix()
    pose[:3, 3] = [1.2, -0.3, 2.0]
    return Camera(pose, MATRIX)


def as_splats(gaussians):
    parts = (gaussians.means, gaussians.covariances(), gaussians.opacities, gaussians.colours)
    return Splats(*(jnp.asarray(x, jnp.float32) for x in parts))


def stacked(*cameras):
    return jax.tree.map(lambda *x: np.stack(x), *cameras)


def test_rasteriser_agrees_with_gaussians_drawn_one_by_one():
    gaussians, cameras = made_up(150), stacked(Camera(np.eye(4), MATRIX), tilted())
    seen = fitting.view(gaussians, cameras, 19, 26, NEAR, 0.3)  # no multiples of the tiles' side
    for i in range(2):
        camera = jax.tree.map(lambda x, i=i: x[i], cameras)
        rgb, depth, opacity = splat(gaussians, camera, 19, 26, NEAR, 0.3)
        assert opacity.min() < 0.1 and opacity.max() > 0.9
        # float32 against float64; where a gaussian is on the edge of being neglected, 1/255.
        np.testing.assert_allclose(seen.rgb[i], rgb, atol=1e-4)
        # As the colours; depths are divided by opacities.
        np.testing.assert_allclose(seen.depth[i], depth, atol=5e-4)
        # As the colours; depths are divided by opacities.
        np.testing.assert_allclose(seen.opacity[i], opacity, atol=1e-4)


def test_of_a_crowded_tile_the_nearest_gaussians_stay():
    gaussians, camera = made_up(150), jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tilted())

    def both(splats):
        ellipses = project_gaussians(splats, camera, 8, 8, NEAR)
        cameras = jax.tree.map(lambda x: x[None], camera)
        seen = rasterize(splats, cameras, 8, 8, near=NEAR, per_tile=20)
        return ellipses.z, touched_tiles(ellipses, 8, 8)[0], seen.rgb[0]  # there is one tile

    z, touching, seen = jax.device_get(jax.jit(both)(as_splats(gaussians)))
    assert 20 < touching.sum() < 150
    nearest = [i for i in np.argsort(z) if touching[i]][:20]
    # Float32 against float64; where a gaussian is on the edge of being neglected, 1/255 of it.
    np.testing.assert_allclose(seen, splat(gaussians[nearest], camera, 8, 8, NEAR)[0], atol=1e-4)
    assert np.abs(seen - splat(gaussians, camera, 8, 8, NEAR)[0]).max() > 0.01


def test_gradient_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    layers, tiles = 9, 3
    given = Layers(
        xy=rng.uniform(0, 8, (layers, tiles, 2)),
        conics=rng.uniform(0.02, 0.3, (layers, tiles, 3)) * [1, 0.3, 1],
        opacities=rng.uniform(0, 1.5, (layers, tiles, 1)) * (np.arange(layers) < 7)[:, None, None],  # some too opaque
        values=rng.normal(size=(layers, tiles, 2)),
    )
    given = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), given)
    pixels = jnp.asarray(rng.uniform(0, 8, (tiles, 16, 2)), jnp.float32)
    cotangent = jnp.asarray(rng.normal(size=(tiles, 2, 16)), jnp.float32)

    def formula(layers):
        x, y = jnp.moveaxis(pixels[None] - layers.xy[:, :, None], -1, 0)
        a, b, c = jnp.moveaxis(layers.conics[:, :, None], -1, 0)
        alpha = jnp.minimum(layers.opacities * jnp.exp(-0.5 * (a * x**2 + 2 * b * x * y + c * y**2)), MOST_ALPHA)
        alpha = jnp.where(alpha < LEAST_ALPHA, 0.0, alpha)
        passed = jnp.cumprod(jnp.concatenate([jnp.ones_like(alpha[:1]), 1 - alpha[:-1]]), axis=0)
        return jnp.einsum("ktp,ktc->tcp", alpha * passed, layers.values)

    def derived(function):
        found, pull = jax.vjp(function, given)
        return found, pull(cotangent)[0]

    wanted, by_formula = jax.jit(derived, static_argnums=0)(formula)
    found, by_ours = jax.jit(derived, static_argnums=0)(lambda layers: blend(layers, pixels))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    for name, ours, theirs in zip(Layers._fields, by_ours, by_formula, strict=True):
        # The layers that are empty in all tiles are not walked through, and cannot be fitted.
        np.testing.assert_allclose(ours[:7], theirs[:7], rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.abs(by_formula.conics).max() > 1


def test_parameters_stand_for_the_gaussians_they_are_made_of():
    gaussians = made_up(9)
    back = to_gaussians(from_gaussians(gaussians, 0.01, 0.5, 11), 0.01, 0.5)[:9]
    # Float32: through logarithms, and squared.
    np.testing.assert_allclose(back.covariances(), gaussians.covariances(), rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(back.opacities, gaussians.opacities.clip(1e-3, 0.999), rtol=1e-5)


@pytest.fixture(scope="module")
def fitted():
    """Views of a scene, and gaussians that were fitted to them."""
    views, steps = SceneViews(Balls(background=0.25), 18, 24), []
    gaussians = fitting.fit_to(views, 200, 60, lambda done, total: steps.append((done, total)))
    return views, gaussians, steps


def test_fitted_gaussians_look_like_the_scene_where_they_were_not_fitted(fitted):
    views, gaussians, steps = fitted
    assert steps == [(i + 1, 60) for i in range(60)]
    assert 20 < len(gaussians) <= 200
    before, after = fitting.psnr(initial_gaussians(views, 200), views), fitting.psnr(gaussians, views)
    assert after > 25 and after > before + 3


def test_gaussians_are_fitted_anywhere_and_with_any_pixel_grid(fitted):
    views, gaussians, _ = fitted
    away = np.array([3000.0, -500.0, 80.0])
    moved = SceneViews(Moved(Balls(background=0.25, pixel_grid="corners"), away), 18, 24)
    again = fitting.fit_to(moved, 200, 60)
    # Not the same: the pictures of the other grid see a little more.
    assert abs(fitting.psnr(again, moved) - fitting.psnr(gaussians, views)) < 2
    # Fits of different pictures, of a scene that is 2 across.
    np.testing.assert_allclose(again.means.mean(0) - away, gaussians.means.mean(0), atol=0.1)


@dataclasses.dataclass(frozen=True)
class Moved:
    """Another scene, elsewhere."""

    scene: Balls
    offset: np.ndarray

    def __getattr__(self, name):
        value = getattr(self.scene, name)
        return self._shifted(value, 1) if isinstance(value, Camera) else value

    def render(self, camera, height=None, width=None):
        return self.scene.render(self._shifted(camera, -1), height, width)

    def _shifted(self, camera, sign):
        poses = np.array(camera.camera_to_world)
        poses[..., :3, 3] += sign * self.offset
        return Camera(poses, camera.intrinsics)


def test_nothing_opaque_is_an_error():
    class Empty(Balls):
        def render(self, *args):
            return jax.tree.map(np.zeros_like, super().render(*args))

    with pytest.raises(UserError, match="nothing in the scene is opaque"):
        fitting.fit_to(SceneViews(Empty(image_size=8), fitting.NUM_CAMERAS))


def test_at_most_as_many_gaussians_as_asked_for(fitted):
    for most in (1, 7, 50):
        found = initial_gaussians(fitted[0], most)
        assert most / 2 <= len(found) <= most
        np.testing.assert_allclose(np.linalg.norm(found.quaternions, axis=-1), 1)


def test_gaussians_take_the_mean_of_the_pixels_that_they_are_seen_in(fitted):
    views, gaussians, _ = fitted
    means = fitting.averages(gaussians, views, np.full((18, 24, 24, 2), [0.25, 3.0]))
    seen = means[:, 0] > 0
    assert seen.mean() > 0.8
    # Sums of some hundred pixels in float32.
    np.testing.assert_allclose(means[seen], np.broadcast_to([0.25, 3.0], (seen.sum(), 2)), rtol=1e-4)
    of_views = fitting.averages(gaussians, views, views.images.rgb)
    colours = gaussians.colours[seen & (gaussians.opacities > 0.8)] - of_views[seen & (gaussians.opacities > 0.8)]
    assert np.abs(colours).mean() < 0.15
