"""Reprojection between views: exact pictures agree, and false depths or surfaces are found out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.data.loading import toy_scenes
from dfm_jax.evaluation import consistency as consistency_module
from dfm_jax.evaluation.consistency import consistency
from dfm_jax.structs import Camera, RenderedViews
from tests.tiny import jit

SIZE, VIEWS = 48, 4
BOX = {
    "half_sizes": (0.7, 0.65),
    "height": 1.2,
    "yaw": 0.05,
    "visible_colour": (0.8, 0.6, 0.2),
    "floor_colour": (0.5, 0.5, 0.5),
    "hidden": 0,
}
measure = jit(consistency, static_argnums=3)


@pytest.fixture(scope="module")
def exact():
    """A toy scene as it really is, all around."""
    poses = toy_scenes.orbit_pose(np.linspace(0.1, 1.6, VIEWS))
    views = [toy_scenes.render_view(BOX, pose, toy_scenes.intrinsics(), SIZE) for pose in poses]
    hit = np.stack([np.isfinite(depth) for _, depth, _ in views])
    seen = RenderedViews(
        rgb=np.stack([rgb for rgb, _, _ in views]).astype(np.float32),
        depth=np.where(hit, np.stack([depth for _, depth, _ in views]), 0).astype(np.float32),
        opacity=hit.astype(np.float32),
    )
    camera = Camera(poses.astype(np.float32), np.tile(toy_scenes.intrinsics().astype(np.float32), (VIEWS, 1, 1)))
    return seen, camera, np.ones(VIEWS, bool)


def test_exact_pictures_agree(exact):
    found = measure(*exact, "centres")
    assert found.reprojection < 0.1  # a pixel; the depth between pixels is interpolated
    assert found.colour < 0.06  # antialiased edges
    assert found.contradicted < 0.02


def test_false_depths_are_found_out(exact):
    seen, camera, valid = exact
    scale = np.float32(1) + 0.03 * np.array([1, -1, 1, -1], np.float32)[:, None, None]
    wrong = measure(seen.replace(depth=seen.depth * scale), camera, valid, "centres")
    assert wrong.reprojection > 3 * measure(*exact, "centres").reprojection
    nearer = np.float32(1) - 0.2 * np.array([1, 0, 0, 0], np.float32)[:, None, None]
    assert measure(seen.replace(depth=seen.depth * nearer), camera, valid, "centres").contradicted > 0.1


def test_another_colour_in_one_view_is_found_out(exact):
    seen, camera, valid = exact
    other = seen.replace(rgb=seen.rgb * np.array([0, 1, 1, 1], np.float32)[:, None, None, None])
    assert measure(other, camera, valid, "centres").colour > 0.2


def test_padding_views_and_empty_space_count_for_nothing(exact):
    seen, camera, valid = exact
    padded = valid & np.array([True, True, True, False])
    first = jax.tree.map(lambda x: x[:3], (seen, camera, valid))
    for ours, alone in zip(
        *(jax.tree.leaves(measure(*given, "centres")) for given in ((seen, camera, padded), first)), strict=True
    ):
        np.testing.assert_allclose(ours, alone, rtol=1e-5)
    nothing = measure(seen.replace(opacity=0 * seen.opacity), camera, valid, "centres")
    assert all(np.isnan(x) for x in jax.tree.leaves(nothing))


@pytest.mark.parametrize(("valid", "compared"), [("11111111", 3), ("10110101", 3), ("11100000", 2), ("10000000", 0)])
def test_of_many_views_each_is_compared_with_some(monkeypatch, valid, compared):
    """However many there are: with as many others as may be, all different, at even distances among the valid ones."""
    monkeypatch.setattr(consistency_module, "MOST_COMPARED", 3)
    valid = np.array([x == "1" for x in valid])
    others, counts = map(np.asarray, consistency_module.compared_with(jnp.asarray(valid)))
    assert others.shape == (8, 3)
    for view, (named, count) in enumerate(zip(others, counts, strict=True)):
        chosen = named[count].tolist()
        assert len(set(chosen)) == len(chosen) == (compared if valid[view] else 0)
        assert view not in chosen and valid[chosen].all()
    if valid.all():
        assert others[0].tolist() == [1, 3, 5]


def test_where_few_of_many_views_are_valid_all_of_their_pairs_count(exact, monkeypatch):
    monkeypatch.setattr(consistency_module, "MOST_COMPARED", 4)
    seen, camera, valid = exact
    padded = jax.tree.map(lambda x: np.concatenate([x, x[:1], x[:1]]), (seen, camera))
    found = measure(*padded, np.concatenate([valid, [False] * 2]), "centres")  # of a shape that is not compiled yet
    for ours, alone in zip(jax.tree.leaves(found), jax.tree.leaves(measure(*exact, "centres")), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=1e-5)  # float32, in another order


def test_corner_aligned_pixels_are_understood(exact):
    """The same rays are pixels of another camera on the other grid."""
    seen, camera, valid = exact
    scale = SIZE / (SIZE - 1)
    intrinsics = np.array(camera.intrinsics)
    intrinsics[:, :2] *= scale
    intrinsics[:, :2, 2] -= 0.5 / (SIZE - 1)
    found = measure(seen, Camera(camera.camera_to_world, intrinsics), valid, "corners")
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(measure(*exact, "centres")), strict=True):
        # Depth is read off between pixels of another raster; near an edge a pixel may count in one of them alone.
        np.testing.assert_allclose(ours, theirs, rtol=0.02)


def test_depths_of_what_stops_a_ray_and_of_all_that_is_before_the_end():
    """Half of the ray is stopped at 2, the rest at the end; nothing stops the other."""
    views = RenderedViews(rgb=np.zeros((1, 1, 2, 3)), depth=np.array([[[1.0, 0.0]]]), opacity=np.array([[[0.5, 0.0]]]))
    np.testing.assert_allclose(views.surface_depth()[0, 0, 0], 2)
    np.testing.assert_allclose(views.depth_before(6.0), [[[4, 6]]])
