"""Folders of posed pictures: what is exported is read back by our own importers and by COLMAP, where it was."""

import json

import numpy as np
import plyfile
import pytest
from PIL import Image

from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import pipeline
from dfm_jax.data.loading.source_frames import to_source
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError
from dfm_jax.exports.formats import export_scene
from dfm_jax.exports.protocol import Frame
from dfm_jax.exports.renderings import SceneViews, of_samples
from dfm_jax.structs import Camera
from tests.made_up_scene import CENTRES, RADII, Balls

# A source that is turned, moved, and 2.5 times as large as the scene.
TO_SOURCE = np.array([[0, 2.5, 0, 7], [0, 0, 2.5, -3], [2.5, 0, 0, 1], [0, 0, 0, 1]])
SCENE = Balls(Frame("source", TO_SOURCE))
SOURCES = {"transforms": TransformsSource, "colmap": ColmapSource}
VIEWS = 9


@pytest.fixture(scope="module", params=SOURCES)
def exported(request, tmp_path_factory):
    """A kind, what was told of it, and its folder."""
    folder = tmp_path_factory.mktemp("exports") / request.param
    return request.param, export_scene([SCENE], 0, folder, request.param, VIEWS, 48), folder


def assert_same_poses(poses, truth):
    """To 1e-5 of the cameras' spread."""
    spread = np.linalg.norm(truth[:, :3, 3] - truth[:, :3, 3].mean(0), axis=-1).max()
    np.testing.assert_allclose(poses[:, :3, 3], truth[:, :3, 3], atol=1e-5 * spread)
    np.testing.assert_allclose(poses[:, :3, :3], truth[:, :3, :3], atol=1e-5)


def test_it_is_prepared_again_with_the_same_cameras(exported, tmp_path):
    kind, told, folder = exported
    assert told["frame"] == "source" and told["scale"] == pytest.approx(2.5) and told["views"] == VIEWS
    building.prepare(SOURCES[kind](folder, (0, 0, 0)), tmp_path, "again", posed_scenes.StoreOptions(0, 3, 0))
    record = pipeline.open_dataset(tmp_path, "again", "train").scene(0)
    assert record.attributes["bounds"] == "points" and not record.attributes.get("warnings")
    cameras = SceneViews(SCENE, VIEWS, 48).cameras
    frame = Frame("source", to_source(record.scale, record.attributes))
    assert_same_poses(frame.pose_in_source(record.camera_to_world), SCENE.frame.pose_in_source(cameras.camera_to_world))
    np.testing.assert_allclose(record.intrinsics, cameras.intrinsics, atol=1e-9)
    pixels = np.asarray(Image.open(folder / "images" / "view_003.png")) / 255
    # The pictures have 8 bits.
    np.testing.assert_allclose(pixels, SceneViews(SCENE, VIEWS, 48).images.rgb[3], atol=0.5 / 255)


def test_the_cameras_of_the_source_come_first_and_are_named(exported):
    _, _, folder = exported
    frame = json.loads((folder / "frame.json").read_text())
    assert (frame["name"], frame["views"]["view_000.png"], frame["views"]["view_001.png"]) == (
        "source",
        "context",
        "target",
    )
    poses = SceneViews(SCENE, VIEWS).cameras.camera_to_world
    np.testing.assert_array_equal(poses[0], SCENE.context_camera.camera_to_world)
    np.testing.assert_array_equal(poses[1], SCENE.target_camera.camera_to_world)


def off_the_balls(points):
    """How far points [p, 3] of the source lie from the surfaces, in units of the scene."""
    positions = (points - TO_SOURCE[:3, 3]) @ np.linalg.inv(TO_SOURCE[:3, :3]).T
    return np.abs(np.linalg.norm(positions[:, None] - CENTRES, axis=-1) - RADII).min(-1)


def test_transforms_have_points_and_depths_where_the_surfaces_are(tmp_path):
    told = export_scene([SCENE], 0, tmp_path / "out", "transforms", 3, 40)
    vertices = plyfile.PlyData.read(str(tmp_path / "out" / "points3D.ply"))["vertex"]
    points = np.stack([vertices[axis] for axis in "xyz"], axis=-1)
    # Points of neighbouring pixels are averaged: within a pixel, which is 0.06 wide.
    assert len(points) == told["points"] and off_the_balls(points).max() < 0.03
    content = json.loads((tmp_path / "out" / "transforms.json").read_text())
    frame = content["frames"][2]
    depth = np.load(tmp_path / "out" / frame["depth_file_path"]) / 1000
    y, x = np.nonzero(depth)
    # OpenGL axes: the camera looks along -z, and y points up.
    ahead = [(x + 0.5 - frame["cx"]) / frame["fl_x"], -(y + 0.5 - frame["cy"]) / frame["fl_y"], -np.ones(len(x))]
    matrix = np.array(frame["transform_matrix"])
    seen = (np.stack(ahead, axis=-1) * depth[y, x, None]) @ matrix[:3, :3].T + matrix[:3, 3]
    assert len(x) > 100 and off_the_balls(seen).max() < 1e-4


def test_colmap_opens_it(tmp_path):
    pycolmap = pytest.importorskip("pycolmap", reason="pip install dfm_jax[sfm] brings it")
    told = export_scene([SCENE], 0, tmp_path / "out", "colmap", 6, 40)
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "sparse" / "0"))
    assert (model.num_images(), model.num_points3D()) == (6, told["points"])
    cameras = SceneViews(SCENE, 6, 40).cameras
    truth = SCENE.frame.pose_in_source(cameras.camera_to_world)
    poses = np.tile(np.eye(4), (6, 1, 1))
    for number, image in model.images.items():
        poses[number - 1, :3] = image.cam_from_world().inverse().matrix()
    assert_same_poses(poses, truth)
    # Where images see points is where these are seen.
    assert model.compute_mean_observations_per_reg_image() > 50
    errors = [
        np.linalg.norm(image.project_point(model.points3D[seen.point3D_id].xyz) - seen.xy)
        for image in model.images.values()
        for seen in image.points2D
    ]
    assert max(errors) < 1e-3


def test_pictures_of_a_model_whose_pixels_lie_at_corners_have_their_cameras():
    """The first pixel's centre is half a pixel from the border in files, and on it in such a model."""
    corners = SceneViews(Balls(pixel_grid="corners"), 4, 33)
    centres = SceneViews(Balls(), 4, 33)
    again = centres.render(corners.cameras)
    np.testing.assert_allclose(again.depth, corners.images.depth, atol=1e-9)
    assert np.abs(corners.images.depth - centres.images.depth).max() > 0.1


def test_uneven_intrinsics_are_kept_and_skew_is_not():
    camera = Camera(SCENE.context_camera.camera_to_world, np.array([[1.3, 0.1, 0.45], [0, 1.1, 0.52], [0, 0, 1]]))

    class Uneven(Balls):
        context_camera = camera

    kept = SceneViews(Uneven(), 2).cameras.intrinsics[0]
    np.testing.assert_array_equal(kept, [[1.3, 0, 0.45], [0, 1.1, 0.52], [0, 0, 1]])


def test_mistakes_are_one_clear_error(tmp_path):
    def refused(match, path, kind=None, **options):
        with pytest.raises(UserError, match=match):
            export_scene([SCENE], 0, path, kind, **options)

    refused("num_views is a number from 1", tmp_path / "a", "transforms", num_views=0)
    refused("num_views is a number from 1", tmp_path / "a", "transforms", num_views=True)
    refused("size is a number from 1", tmp_path / "a", "transforms", size=2.5)
    refused("there is no kind='splats'", tmp_path / "a.ply", "splats")
    refused("a file ends in", tmp_path / "a.obj")
    refused("a folder needs kind='transforms' or 'colmap'", tmp_path / "a")
    refused(r"is written to a file that ends in \.ply", tmp_path / "a.glb", "points")
    (tmp_path / "file").write_text("mine")
    refused("is a file, and transforms is a folder", tmp_path / "file", "transforms")
    (tmp_path / "folder.ply").mkdir()
    refused("is a folder, and points is a file", tmp_path / "folder.ply", "points")
    refused("cannot be written", tmp_path / "file" / "points.ply", "points")
    refused("cannot be written", tmp_path / "file" / "folder", "colmap")
    # Somebody's own capture is not replaced.
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "transforms.json").write_text("{}")
    refused("holds images of something else", tmp_path / "own", "transforms")
    assert (tmp_path / "own" / "transforms.json").read_text() == "{}" and not (tmp_path / "a").exists()


def test_coordinates_that_are_not_those_of_a_source_are_told(tmp_path, caplog):
    assert export_scene([Balls()], 0, tmp_path / "a", "transforms", 2, 8)["frame"] == "dataset"
    assert "frame: dataset" in caplog.text
    caplog.clear()
    export_scene([SCENE], 0, tmp_path / "b", "transforms", 2, 8)
    assert not caplog.text


def test_an_export_of_before_is_replaced_whole(tmp_path):
    export_scene([SCENE], 0, tmp_path / "out", "colmap", 3, 16)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    export_scene([SCENE], 0, tmp_path / "out", "colmap", 2, 16)
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["view_000.png", "view_001.png"]
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_samples_share_their_cameras_and_render_once():
    samples = of_samples([SCENE, Balls(shade=0.05)], 3, 8)
    assert samples[0].samples is samples and samples[1].images is samples[1].images
