"""Points and meshes: read back by their formats' libraries, they lie on the surfaces that cameras see."""

import jax
import numpy as np
import plyfile
import pytest
import trimesh

import dfm_jax
from dfm_jax.data.loading import toy_scenes
from dfm_jax.errors import UserError
from dfm_jax.exports import mesh, tsdf
from dfm_jax.exports.formats import export_scene
from dfm_jax.exports.gltf import gltf_from_source
from dfm_jax.exports.protocol import Frame
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.structs import Camera, RenderedViews, Views
from tests.made_up_scene import CENTRES, COLOURS, INTRINSICS, RADII, Balls, looking_at_the_origin
from tests.mesh_depth import mesh_depth

TO_SOURCE = np.array([[0, 2.5, 0, 7], [0, 0, 2.5, -3], [2.5, 0, 0, 1], [0, 0, 0, 1]])
SCENE = Balls(Frame("source", TO_SOURCE))
VIEWS, SIDE = 12, 40


def in_scene(points):
    return (points - TO_SOURCE[:3, 3]) @ np.linalg.inv(TO_SOURCE[:3, :3]).T


def nearest_ball(points):
    """Of points [p, 3] in the scene: which ball's surface is nearest, how far off it is, and which way is outwards."""
    outwards = points[:, None] - CENTRES
    off = np.abs(np.linalg.norm(outwards, axis=-1) - RADII)
    ball = off.argmin(-1)
    return ball, off.min(-1), outwards[np.arange(len(points)), ball] / RADII[ball, None]


def test_points_have_places_normals_colours_and_uncertainties(tmp_path):
    told = export_scene([SCENE, Balls(shade=0.05)], 0, tmp_path / "points.ply", "points", VIEWS, SIDE)
    file = plyfile.PlyData.read(str(tmp_path / "points.ply"))
    assert "frame source, 2.5 of its units" in file.comments[0]
    vertices = file["vertex"]
    points, normals = (np.stack([vertices[f"{n}{axis}"] for axis in "xyz"], axis=-1) for n in ("", "n"))
    ball, off, outwards = nearest_ball(in_scene(points))
    assert len(points) == told["points"] > 500 and off.max() < 0.03  # half a pixel
    facing = (normals @ np.linalg.inv(TO_SOURCE[:3, :3] / 2.5).T * outwards).sum(-1)
    assert np.median(facing) > 0.98 and (facing > 0.8).mean() > 0.95  # not where balls meet
    colours = np.stack([vertices[name] for name in ("red", "green", "blue")], axis=-1) / 255
    assert np.abs(colours - COLOURS[ball]).max(-1).mean() < 0.02
    np.testing.assert_allclose(vertices["uncertainty"], 0.025, rtol=1e-5)  # half of what the samples differ by
    np.testing.assert_array_equal(vertices["depth_uncertainty"], 0)
    assert told["samples"] == 2


def test_a_mesh_lies_in_the_source_and_stands_upright(tmp_path):
    told = export_scene([SCENE], 0, tmp_path / "scene.glb", None, VIEWS, SIDE)
    assert told["kind"] == "mesh" and told["frame"] == "source" and told["scale"] == pytest.approx(2.5)
    scene = trimesh.load(tmp_path / "scene.glb", process=False)
    (surface,) = scene.geometry.values()
    ball, off, outwards = nearest_ball(in_scene(surface.vertices))
    assert told["vertices"] == len(surface.vertices) and off.max() < 0.05 and off.mean() < 0.01
    normals = surface.vertex_normals @ np.linalg.inv(TO_SOURCE[:3, :3] / 2.5).T
    assert ((normals * outwards).sum(-1) > 0.5).mean() > 0.98
    turn, _ = scene.graph["scene"]
    np.testing.assert_array_equal(turn, gltf_from_source(SCENE))
    # Up is against y in the scene, and there along -z of the source.
    up = -TO_SOURCE[:3, 1] / 2.5
    np.testing.assert_allclose(turn[:3, :3] @ up, [0, 1, 0], atol=1e-12)
    assert scene.metadata["scale"] == pytest.approx(2.5) and scene.metadata["name"] == "source"
    light = surface.visual.vertex_attributes["color"][:, :3] / 255
    assert np.abs(light ** (1 / 2.2) - COLOURS[ball]).max(-1).mean() < 0.05


def test_a_mesh_is_as_deep_as_what_cameras_see():
    vertices, faces, _ = mesh.surface_mesh(SceneViews(SCENE, VIEWS, SIDE))
    camera = Camera(looking_at_the_origin(1.1, -0.6), INTRINSICS)
    truth, depth = SCENE.render(camera, 40, 40), mesh_depth(vertices, faces, camera, 40)
    both = np.isfinite(depth) & (truth.opacity > 0.5)
    assert both.sum() > 0.9 * truth.opacity.sum()
    assert np.abs(depth - truth.depth)[both].mean() < 0.01 * 3.0


@pytest.mark.parametrize(("axis", "sign"), [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)])
def test_up_is_up(axis, sign):
    turn = np.roll(np.eye(3), axis - 1, axis=0) * -sign  # the scene's -y becomes the source's axis
    turn *= np.linalg.det(turn) if axis != 1 else 1
    to_source = np.eye(4)
    to_source[:3, :3] = turn if np.linalg.det(turn) > 0 else turn @ np.diag([-1.0, 1, 1])
    up = to_source[:3, :3] @ [0, -1, 0]
    upright = gltf_from_source(Balls(Frame("source", to_source)))
    np.testing.assert_allclose(upright[:3, :3] @ up, [0, 1, 0], atol=1e-12)
    assert np.linalg.det(upright) == pytest.approx(1)


def test_a_scene_of_nothing_has_no_surface(tmp_path):
    class Nothing(Balls):
        def render(self, camera, height=None, width=None):
            seen = super().render(camera, height, width)
            return RenderedViews(seen.rgb, seen.depth, 0 * seen.opacity)

    for name in ("a.ply", "a.glb", "b.GLB"):
        kind = {".ply": "points", ".glb": "mesh"}[name[1:].lower()]
        with pytest.raises(UserError, match="nothing in the scene is opaque"):
            export_scene([Nothing()], 0, tmp_path / name, kind, 3, 8)
    assert not list(tmp_path.iterdir())
    assert export_scene([Nothing()], 0, tmp_path / "b", "transforms", 3, 8)["points"] == 0


def test_the_end_of_what_is_known_is_no_surface():
    """A wall that one camera sees from the front: nothing is said of its back."""
    camera = Camera(np.eye(4)[None], INTRINSICS[None])
    wall = RenderedViews(np.ones((1, 9, 9, 3)), np.full((1, 9, 9), 2.0), np.ones((1, 9, 9)))
    grid = tsdf.Grid(np.array([-0.5, -0.5, 1.5]), 0.04, 26)
    vertices, faces, _ = tsdf.surface(tsdf.fuse(wall, camera, grid), grid)
    assert len(faces) > 100
    # Half a voxel.
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=-1), 2.0, atol=0.02)


@pytest.mark.slow
def test_the_toy_s_meshes_are_as_deep_as_their_fields():
    """Mean over 8 scenes, at cameras that nothing was made of: within 2 % of the typical depth."""
    generator = toy_scenes.ToyScenes(2000, 24, 0)
    scenes = [generator.scene("test", name) for name in generator.splits()["test"][:8]]
    pose, intrinsics = np.eye(4, dtype=np.float32)[None], toy_scenes.intrinsics().astype(np.float32)[None]
    photos = [
        Views(each.images[:1] / np.float32(255), Camera(pose, intrinsics), np.float32(pose[:, :3]), np.ones(1, bool))
        for each in scenes
    ]
    views = jax.tree.map(lambda *x: np.stack(x), *photos)
    errors = []
    for scene in dfm_jax.load("toy").sample(views, num_samples=1, seed=0):
        vertices, faces, _ = mesh.surface_mesh(SceneViews(scene))
        others = SceneViews(scene, 37)
        cameras = jax.tree.map(lambda x: x[[5, 12, 19, 26, 33]], others.cameras)
        seen = others.render(cameras)
        depth = np.stack(
            [mesh_depth(vertices, faces, jax.tree.map(lambda x, i=i: x[i], cameras), others.side) for i in range(5)]
        )
        solid = seen.opacity > 0.5
        both, typical = solid & np.isfinite(depth), np.median(seen.surface_depth()[solid])
        assert both.sum() > 0.9 * solid.sum()
        errors.append(np.abs(depth - seen.surface_depth())[both].mean() / typical)
    assert np.mean(errors) < 0.02
