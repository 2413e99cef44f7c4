"""Files of gaussians, read back with the libraries of the formats and rendered by other code."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import plyfile
import pygltflib
import pytest
from scipy.spatial.transform import Rotation

from dfm_jax.exports import fitting, formats, splat_files
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.exports.protocol import Frame
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.structs import Camera
from tests.made_up_scene import Balls
from tests.splatting import made_up, splat

SIDE = 24


@pytest.fixture(scope="module")
def scene():
    """In a source that is larger, turned and elsewhere."""
    to_source = np.eye(4)
    to_source[:3, :3] = 2.5 * Rotation.from_euler("xyz", [80, 30, -40], degrees=True).as_matrix()
    to_source[:3, 3] = [4.0, -2.0, 1.0]
    return Balls(frame=Frame("source", to_source), background=0.2)


@pytest.fixture(scope="module")
def written(scene, tmp_path_factory):
    """Both files, what was told of them, and the gaussians in the scene's coordinates."""
    folder = tmp_path_factory.mktemp("gaussians")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splat_files, "fit_to", lambda views, progress: fitting.fit_to(views, 150, 40, progress))
        views = SceneViews(scene, 12, SIDE)
        told = [formats.export(views, folder / f"scene.{end}", kind="gaussians") for end in ("ply", "glb")]
        gaussians, _ = splat_files.fitted(views)
        assert splat_files.fitted.cache_info().misses == 1  # fitted once for both
        splat_files.fitted.cache_clear()
    return folder, told, gaussians


def from_ply(path):
    columns = plyfile.PlyData.read(path)["vertex"]
    stacked = lambda *names: np.stack([columns[name] for name in names], -1).astype(np.float64)
    return Gaussians(
        means=stacked("x", "y", "z"),
        scales=np.exp(stacked("scale_0", "scale_1", "scale_2")),
        quaternions=stacked("rot_0", "rot_1", "rot_2", "rot_3"),
        opacities=1 / (1 + np.exp(-stacked("opacity")[:, 0])),
        colours=0.5 + 0.28209479177387814 * stacked("f_dc_0", "f_dc_1", "f_dc_2"),
    )


def from_glb(path):
    gltf = pygltflib.GLTF2().load(str(path))
    primitive, blob = gltf.meshes[0].primitives[0], gltf.binary_blob()
    assert primitive.mode == pygltflib.POINTS and gltf.extensionsUsed == ["KHR_gaussian_splatting"]
    assert primitive.extensions["KHR_gaussian_splatting"]["kernel"] == "ellipse"

    def read(name):
        accessor = gltf.accessors[getattr(primitive.attributes, name)]
        start, width = gltf.bufferViews[accessor.bufferView].byteOffset, {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
        count = accessor.count * width[accessor.type]
        return np.frombuffer(blob, "<f4", count, start).reshape(accessor.count, -1).astype(np.float64)

    own = lambda name: read(f"KHR_gaussian_splatting:{name}")
    gaussians = Gaussians(
        means=read("POSITION"),
        scales=own("SCALE"),
        quaternions=np.roll(own("ROTATION"), 1, axis=-1),
        opacities=own("OPACITY")[:, 0],
        colours=0.5 + 0.28209479177387814 * own("SH_DEGREE_0_COEF_0"),
    )
    return gaussians, read("COLOR_0"), np.reshape(gltf.nodes[0].matrix, (4, 4)).T, gltf.extras


def seen_by_us(gaussians, scene):
    camera = Camera(scene.target_camera.camera_to_world[None], scene.target_camera.intrinsics[None])
    views = fitting.view(gaussians, camera, SIDE, SIDE, scene.bounds[0], scene.background)
    return views.rgb[0], views.opacity[0]


def seen_in_source(gaussians, scene):
    """The same camera where it stands in the source."""
    camera = Camera(scene.frame.pose_in_source(scene.target_camera.camera_to_world), scene.target_camera.intrinsics)
    near = scene.bounds[0] * scene.frame.scale
    rgb, _, opacity = splat(gaussians, camera, SIDE, SIDE, near, scene.background)
    return rgb, opacity


@pytest.mark.parametrize("end", ["ply", "glb"])
def test_file_shows_in_its_source_what_was_fitted_to_the_scene(written, scene, end):
    folder, told, gaussians = written
    path = folder / f"scene.{end}"
    read = from_ply(path) if end == "ply" else from_glb(path)[0]
    for ours, theirs in zip(seen_by_us(gaussians, scene), seen_in_source(read, scene), strict=True):
        assert ours.std() > 0.1
        np.testing.assert_allclose(theirs, ours, atol=2e-4)  # float32 in the file, and in the rasteriser
    report = told[end == "glb"]
    assert report["gaussians"] == len(gaussians) and report["frame"] == "source"
    assert report["scale"] == pytest.approx(2.5) and report["psnr_to_field"] > 18
    json.dumps(report)


def test_glb_turns_up_and_can_be_seen_as_points(written, scene):
    _, colours, node, extras = from_glb(written[0] / "scene.glb")
    # What is up for the cameras is near to +Y: the nearest quarter turn.
    up = node[:3, :3] @ scene.frame.to_source[:3, :3] @ [0, -1, 0] / 2.5
    assert up.argmax() == 1 and up[1] > 0.57
    assert ((colours >= 0) & (colours <= 1)).all() and colours.shape[-1] == 4
    assert extras["name"] == "source" and extras["scale"] == pytest.approx(2.5)


def test_layout_is_that_of_the_published_code(written):
    vertices = plyfile.PlyData.read(written[0] / "scene.ply")["vertex"]
    assert [p.name for p in vertices.properties] == list(splat_files.COLUMNS)
    assert {p.val_dtype for p in vertices.properties} == {"f4"}


def test_opaque_and_transparent_gaussians_have_finite_logits():
    edge = dataclasses.replace(made_up(2), opacities=np.array([0.0, 1.0]))
    vertices = splat_files.to_ply(edge, Frame())["vertex"]
    assert np.isfinite(vertices["opacity"]).all() and vertices["opacity"][1] > 10


def test_a_client_reads_the_ply(written, tmp_path):
    """PlayCanvas' splat-transform: `npm install --global @playcanvas/splat-transform`."""
    client = shutil.which("splat-transform")
    if client is None:
        pytest.skip("splat-transform is not installed (npm's @playcanvas/splat-transform)")
    table, path = tmp_path / "scene.csv", written[0] / "scene.ply"
    subprocess.run([client, "-w", path, table], check=True, capture_output=True, timeout=120)
    read = np.genfromtxt(table, delimiter=",", names=True)
    found, wanted = (
        np.stack([rows[axis] for axis in "xyz"], -1) for rows in (read, plyfile.PlyData.read(path)["vertex"])
    )
    order = lambda points: points[np.lexsort(points.round(4).T)]
    # Positions in float32, rounded to sort them.
    np.testing.assert_allclose(order(found), order(wanted), atol=1e-4)
