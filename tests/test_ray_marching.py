"""Ray marching through fields whose pictures are known in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange

from dfm_jax.rendering.compositing import composite, volume_weights
from dfm_jax.rendering.ray_marching import (
    in_chunks,
    points_along,
    render_by_proposal,
    render_coarse_to_fine,
    render_single_pass,
)
from dfm_jax.rendering.ray_sampling import deterministic_uniforms
from dfm_jax.structs import Rays
from tests.tiny import assert_trees_close, jit, random_camera

NEAR, FAR = jnp.array([1.0, 0.5]), jnp.array([5.0, 3.0])
WALL = 2.2
BACKGROUND = 0.4
COARSE, FINE = 24, 24


def random_rays(seed: int, num_rays: int = 6) -> Rays:
    """Rays of two scenes, from about the origin, forwards."""
    rng = np.random.default_rng(seed)
    directions = rng.uniform((-0.5, -0.5, 1), (0.5, 0.5, 1), (2, num_rays, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return Rays(*(jnp.asarray(x, jnp.float32) for x in (rng.uniform(-0.2, 0.2, (2, num_rays, 3)), directions)))


def smooth_field(points: jax.Array, strength: jax.Array | float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Something cloudy with a colour and two features that change from place to place."""
    density = strength * (1 + jnp.sin(3 * points[..., 0]) * jnp.cos(2 * points[..., 2]))
    colours = 0.5 + 0.5 * jnp.sin(points + jnp.array([0.0, 1.0, 2.0]).reshape(1, 1, 1, 3))
    return density, jnp.concatenate([colours, points[..., :2]], axis=-1)


def wall_field(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An opaque half space behind z = WALL, coloured by where it is hit."""
    inside = points[..., 2] > WALL
    return jnp.where(inside, 1e5, 0.0), jax.nn.sigmoid(points)


def of_rays(field):
    """A field of points, as the ray marcher asks for it."""
    return lambda rays, distances: field(points_along(rays, distances))


def uniform_field(density: float, colour: float):
    return lambda points: (jnp.full(points.shape[:-1], density), jnp.full((*points.shape[:-1], 4), colour))


def render_smooth(rays, uniforms=None, strength=(1.0, 1.0)):
    fields = [of_rays(lambda points, s=s: smooth_field(points, s)) for s in strength]
    settings = {"num_coarse": 7, "num_fine": 6, "background": BACKGROUND}
    return render_coarse_to_fine(*fields, rays, NEAR, FAR, uniforms, **settings)


hierarchical = jit(render_smooth)


def single_pass(field, rays: Rays, num_samples: int):
    render = partial(render_single_pass, of_rays(field), num_samples=num_samples, background=BACKGROUND)
    return jit(render)(rays, NEAR, FAR)


@pytest.mark.parametrize("density", [0.05, 0.7, 3.0])
def test_a_homogeneous_slab_absorbs_exponentially(density):
    num_samples, colour = 400, 0.9
    rays = random_rays(0)
    out = single_pass(uniform_field(density, colour), rays, num_samples)
    length = np.asarray(FAR - NEAR)[:, None] * num_samples / (num_samples - 1)
    left = np.exp(-density * length)
    rgb = np.broadcast_to((colour * (1 - left) + BACKGROUND * left)[..., None], (2, 6, 3))
    np.testing.assert_allclose(out.rgb, rgb, atol=1e-5)
    np.testing.assert_allclose(out.features[..., 0], np.broadcast_to(colour * (1 - left), (2, 6)), atol=1e-5)
    near, far = np.asarray(NEAR)[:, None], np.asarray(FAR)[:, None]
    depth = near + 1 / density - (far + 1 / density) * np.exp(-density * (far - near))
    # integral of t density exp(-density (t - near)) from near to far
    np.testing.assert_allclose(out.depth, np.broadcast_to(depth, (2, 6)), rtol=2e-2)


def test_an_opaque_wall_is_seen_where_it_is():
    rays = random_rays(1)
    hit = (WALL - rays.origins[..., 2]) / rays.directions[..., 2]
    point = rays.origins + hit[..., None] * rays.directions
    settings = {"num_coarse": COARSE, "num_fine": FINE, "background": BACKGROUND}
    render = partial(render_coarse_to_fine, of_rays(wall_field), of_rays(wall_field), uniforms=None, **settings)
    out = jit(render)(rays, NEAR, FAR)
    spacing = float(np.max(FAR - NEAR)) / (COARSE - 1)
    np.testing.assert_allclose(np.sum(out.weights, axis=-1), np.ones((2, 6)), atol=1e-6)
    np.testing.assert_allclose(out.depth, hit, atol=spacing)  # the wall is seen at the first sample behind it
    np.testing.assert_allclose(out.rgb, jax.nn.sigmoid(point), atol=spacing)  # as above
    coarse = single_pass(wall_field, rays, COARSE)
    error = lambda depth: float(jnp.mean(jnp.abs(depth - hit)))
    assert error(out.depth) < 0.5 * error(coarse.depth)


def test_an_empty_field_shows_the_background():
    out = single_pass(uniform_field(0.0, 0.9), random_rays(2), 8)
    np.testing.assert_allclose(out.rgb, np.full((2, 6, 3), BACKGROUND), rtol=1e-6)
    np.testing.assert_array_equal(out.depth, np.zeros((2, 6)))
    np.testing.assert_array_equal(out.features, np.zeros((2, 6, 1)))


def test_the_fine_pass_looks_at_coarse_and_fine_distances_in_order():
    rays = random_rays(3)
    out = hierarchical(rays, jnp.asarray(np.random.default_rng(0).uniform(size=(2, 6, 6)), jnp.float32))
    assert out.distances.shape == (2, 6, 13)
    assert bool(np.all(np.diff(out.distances, axis=-1) >= 0))
    for scene in range(2):
        for d in np.linspace(NEAR[scene], FAR[scene], 7):
            assert bool(np.all(np.any(np.abs(out.distances[scene] - d) < 1e-5, axis=-1)))


def test_the_result_is_the_fine_field_and_coarse_rgb_the_coarse_one():
    rays = random_rays(4)
    out = hierarchical(rays, strength=(0.3, 2.0))
    coarse = single_pass(lambda points: smooth_field(points, 0.3), rays, 7)
    np.testing.assert_allclose(out.coarse_rgb, coarse.rgb, atol=1e-5)
    points = rays.origins[:, :, None] + out.distances[..., None] * rays.directions[:, :, None]
    density, radiance = smooth_field(points, 2.0)
    lengths = np.diff(out.distances, axis=-1)
    thickness = np.asarray(density) * np.concatenate([lengths, lengths[..., -1:]], axis=-1)
    w = np.exp(-(np.cumsum(thickness, axis=-1) - thickness)) * (1 - np.exp(-thickness))
    np.testing.assert_allclose(out.weights, w, atol=1e-5)
    # Sums of 13 products in float32, of weights that are differences.
    np.testing.assert_allclose(out.depth, np.sum(w * out.distances, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(out.features, np.einsum("brs,brsc->brc", w, radiance[..., 3:]), atol=1e-5)


def test_a_proposal_says_where_the_field_is_evaluated():
    rays, field = random_rays(4), of_rays(smooth_field)
    settings = {"num_coarse": 7, "num_fine": 6, "background": BACKGROUND, "uniforms": None}
    proposal = lambda rays, distances: field(rays, distances)[0]
    out = jit(lambda rays: render_by_proposal(proposal, field, rays, NEAR, FAR, **settings))(rays)
    weights, distances = out.proposal
    assert out.coarse_rgb is None and bool(np.all(np.diff(out.distances, axis=-1) >= 0))
    # The same places as coarse to fine, without the coarse ones.
    everywhere = jnp.sort(jnp.concatenate([distances, out.distances], axis=-1), axis=-1)
    np.testing.assert_allclose(everywhere, hierarchical(rays).distances, atol=1e-5)
    np.testing.assert_allclose(weights, single_pass(smooth_field, rays, 7).weights, atol=1e-6)
    density, radiance = field(rays, out.distances)
    expected = composite(volume_weights(density, out.distances), radiance)
    np.testing.assert_allclose(out.features, expected[..., 3:], atol=1e-5)


def test_without_uniforms_the_samples_are_evenly_spread_and_repeat():
    rays = random_rays(5)
    even = jnp.broadcast_to(deterministic_uniforms(6), (2, 6, 6))
    assert_trees_close(hierarchical(rays), hierarchical(rays, even))
    assert_trees_close(hierarchical(rays), hierarchical(rays), rtol=0, atol=0)
    other = hierarchical(rays, 0.5 * even)
    assert float(np.max(np.abs(other.distances - hierarchical(rays).distances))) > 0.01


def test_gradients_do_not_flow_through_the_choice_of_distances():
    rays = random_rays(6)
    loss = lambda strength, name: jnp.sum(jnp.square(getattr(render_smooth(rays, strength=strength), name)))
    gradient = jit(jax.grad(loss), static_argnums=1)
    coarse, fine = gradient((1.0, 1.0), "rgb")
    assert float(coarse) == 0
    assert float(fine) != 0
    coarse, fine = gradient((1.0, 1.0), "coarse_rgb")
    assert float(coarse) != 0
    assert float(fine) == 0


def test_a_motion_of_the_field_and_the_rays_changes_nothing():
    rays = random_rays(7)
    motion = random_camera(np.random.default_rng(0), (), angle=3.0).camera_to_world
    rotation, translation = motion[:3, :3], motion[:3, 3]
    turn = lambda vectors: jnp.einsum("ij,...j->...i", rotation, vectors)
    moved = Rays(turn(rays.origins) + translation.reshape(1, 1, 3), turn(rays.directions))

    def moved_field(points):
        return smooth_field(jnp.einsum("ji,...j->...i", rotation, points - translation.reshape(1, 1, 1, 3)))

    assert_trees_close(single_pass(smooth_field, rays, 12), single_pass(moved_field, moved, 12))


def test_gradients_of_a_rendering_are_finite_at_absurd_densities():
    rays = random_rays(8)

    def loss(strength):
        out = render_smooth(rays, strength=strength)
        return jnp.sum(out.rgb) + jnp.sum(out.depth) + jnp.sum(out.features) + jnp.sum(out.coarse_rgb)

    gradient = jit(jax.grad(loss))
    for density in (0.0, 1e10, 1e30):
        assert bool(np.all(np.isfinite(jnp.stack(gradient((density, density)))))), density


@pytest.mark.parametrize(("num_rays", "chunk_size"), [(7, 3), (6, 3), (5, 1), (2, 5)])
def test_chunks_change_neither_values_nor_gradients(num_rays, chunk_size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, num_rays, 3)), jnp.float32)
    tree = {"a": x, "b": x[..., 0]}

    def work(inputs, scale):
        assert inputs["a"].shape[1] <= chunk_size
        return {"c": jnp.sin(scale * inputs["a"]), "d": scale * jnp.sum(inputs["a"], axis=-1) * inputs["b"]}

    def loss(scale, tree, run):
        out = run(tree, scale)
        return jnp.sum(jnp.square(out["c"])) + jnp.sum(rearrange(out["d"], "b r -> (b r)") ** 3), out

    plain = lambda tree, scale: {
        "c": jnp.sin(scale * tree["a"]), "d": scale * jnp.sum(tree["a"], axis=-1) * tree["b"]
    }  # fmt: skip
    chunked = lambda tree, scale: in_chunks(lambda inputs: work(inputs, scale), chunk_size, tree)
    compute = jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True), static_argnums=2)
    assert_trees_close(compute(1.3, tree, chunked), compute(1.3, tree, plain))
