"""What preparing does to a source's coordinates is known afterwards, and undone in exports."""

import json
import pathlib

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import dfm_jax
from dfm_jax.commands import coordinates
from dfm_jax.config import DataConfig, ViewSamplingConfig
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import pipeline
from dfm_jax.data.loading.source_frames import to_source
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import Frame
from dfm_jax.sampling.sources import Placement, source_frame
from tests.captures_source import OPENGL_FROM_OPENCV, arc, write_colmap, write_transforms

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
APPLIED = np.array([[0, 1.0, 0, 0.7], [1, 0, 0, -0.2], [0, 0, -1, 0.1]])  # as nerfstudio turns a COLMAP world
NERFSTUDIO = {"applied_transform": APPLIED.tolist(), "applied_scale": 0.3}


def files_poses(path):
    """Camera-to-world [n, 4, 4] of a transforms.json by file_path, OpenCV axes, in the file's own world."""
    frames = json.loads(path.read_text())["frames"]
    return {each["file_path"]: np.array(each["transform_matrix"]) @ OPENGL_FROM_OPENCV for each in frames}


def assert_same_poses(poses, truth):
    """To 1e-5 of the cameras' spread."""
    spread = np.linalg.norm(truth[:, :3, 3] - truth[:, :3, 3].mean(0), axis=-1).max()
    np.testing.assert_allclose(poses[:, :3, 3], truth[:, :3, 3], atol=1e-5 * spread)
    np.testing.assert_allclose(poses[:, :3, :3], truth[:, :3, :3], atol=1e-5)


def assert_leads_back(scene, truth):
    """The scene, as it is read from its source, says how to get back to the poses [n, 4, 4], by name, that it has
    there."""
    frame = Frame("source", to_source(scene.scale, scene.attributes))
    poses = frame.pose_in_source(np.stack([each.camera_to_world for each in scene.frames]))
    assert_same_poses(poses, np.stack([truth[each.name] for each in scene.frames]))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The settings of a data set that was prepared from a file of nerfstudio's kind, and the file."""
    directory = tmp_path_factory.mktemp("prepared")
    path = write_transforms(directory / "source", arc(8), **NERFSTUDIO)
    source = TransformsSource(path.parent, (0, 0, 0))
    building.prepare(source, directory, "made", posed_scenes.StoreOptions(0, 3, 4))
    counts = {"min_frame_gap": 1, "max_frame_gap": 3, "min_context": 1, "max_context": 1, "num_target": 1}
    sampling = ViewSamplingConfig(rule="captures", **counts)
    names = {"name": "made", "dir": str(directory), "split": "train", "eval_split": "train"}
    return DataConfig(**names, near=0.0, far=0.0, view_sampling=sampling, num_threads=1, prefetch=1), path


def test_a_transform_that_was_undone_is_known(prepared):
    config, path = prepared
    example, _ = pipeline.evaluation_examples(config, image_size=8, num_scenes=3)
    world, frames = coordinates.of_evaluation_examples(config, 3)
    truth = files_poses(path)
    data = pipeline.open_dataset(config.dir, "made", "train")
    record = data.scene(0)
    for i, frame in enumerate(frames):
        assert frame.name == "source"
        # That the record keeps them in double precision is what makes this exact; an example's are single.
        np.testing.assert_allclose(world[i, :3], example.context.absolute_pose[i, 0], atol=1e-5)
        poses = frame.pose_in_source(record.camera_to_world)
        assert_same_poses(poses, np.stack([truth[name] for name in record.frame_names]))
        number = int(np.abs(record.camera_to_world - world[i]).max((1, 2)).argmin())
        np.testing.assert_allclose(frame.pose_in_source(world[i]), truth[record.frame_names[number]], atol=1e-6)


def test_a_data_set_of_before_knows_no_source(prepared):
    config, _ = prepared
    index = pathlib.Path(config.dir) / "made" / "dataset.json"
    content, text = json.loads(index.read_text()), index.read_text()
    del content["source_frames"]
    try:
        index.write_text(json.dumps(content))
        _, frames = coordinates.of_evaluation_examples(config, 1)
    finally:
        index.write_text(text)
    assert frames[0].name == "dataset" and frames[0].scale == 1


def test_a_scale_alone_and_a_mirrored_world(tmp_path):
    write_colmap(tmp_path / "colmap", arc(4))
    scene = ColmapSource(tmp_path / "colmap", (0, 0, 0)).read("train", "colmap")
    assert scene.scale != 1
    assert_leads_back(scene, {f"{i}.png": pose for i, pose in enumerate(arc(4))})
    mirror = np.diag([1.0, 1, -1, 1])
    path = write_transforms(tmp_path / "mirrored", mirror @ arc(4), applied_transform=mirror.tolist())
    scene = TransformsSource(path, (0, 0, 0)).read("train", "mirrored")
    assert to_source(scene.scale, scene.attributes) is None


@pytest.mark.skipif(not SHARED.is_dir(), reason="the captures of ../shared/data are not here")
def test_real_captures_lead_back_to_their_files():
    fox = TransformsSource(SHARED / "fox" / "transforms.json", (0, 0, 0))
    assert_leads_back(fox.read("train", "fox"), files_poses(SHARED / "fox" / "transforms.json"))
    sceaux = ColmapSource(SHARED / "sceaux_colmap", (0, 0, 0))
    (name,) = sceaux.splits()["train"]
    truth = {}
    for line in (SHARED / "sceaux_colmap" / "sparse_text" / "0" / "images.txt").read_text().splitlines():
        if len(columns := line.split()) == 10 and columns[0] != "#" and columns[9].lower().endswith("jpg"):
            pose = np.eye(4)
            pose[:3, :3] = Rotation.from_quat(np.array(columns[1:5], float), scalar_first=True).as_matrix()
            pose[:3, 3] = np.array(columns[5:8], float)
            truth[columns[9]] = np.linalg.inv(pose)
    assert_leads_back(sceaux.read("train", name), truth)


def test_photographs_lie_where_they_are_said_to():
    picture, camera = np.zeros((8, 8, 3), np.uint8), dfm_jax.Camera(np.eye(4), np.eye(3))
    bare = source_frame(picture, Placement(scale=2.5))
    assert (bare.name, bare.scale) == ("first_camera", 2.5)
    assert source_frame(picture, Placement(camera=camera)).name == "source"
    photo = dfm_jax.example_photo("toy")
    assert source_frame(photo, Placement()).name == "first_camera"
    moved = photo.replace(camera=dfm_jax.Camera(2 * np.eye(4)[None], photo.camera.intrinsics))
    assert source_frame(moved, Placement()).name == "source"
    for wrong in (0, -1.0, np.nan, "1"):
        with pytest.raises(UserError, match="scale, in source units"):
            source_frame(picture, Placement(scale=wrong))


def test_exported_cameras_of_a_prepared_capture_are_those_of_its_file(prepared, tmp_path):
    """From the data set to `transforms.json` and back: the same cameras, in the file's own world."""
    config, path = prepared
    sampler = dfm_jax.load("toy", steps=1, num_samples=1)
    example, _ = pipeline.evaluation_examples(config, image_size=24, num_scenes=1)
    scene = sampler.sample_example(example, *coordinates.of_evaluation_examples(config, 1))[0]
    told = scene.export(tmp_path / "out", "transforms", num_views=2, size=8)
    assert told["frame"] == "source" and told["scale"] == scene.frame.scale != 1
    exported = np.stack(list(files_poses(tmp_path / "out" / "transforms.json").values()))
    truth = np.stack(list(files_poses(path).values()))
    nearest = np.linalg.norm(truth[:, None, :3, 3] - exported[:, :3, 3], axis=-1).argmin(0)
    assert nearest[0] != nearest[1]
    spread = truth[:, :3, 3] - truth[:, :3, 3].mean(0)
    # What is asked for: a hundred thousandth of the cameras' spread.
    np.testing.assert_allclose(exported, truth[nearest], atol=1e-5 * np.linalg.norm(spread, axis=-1).max())


def test_frames_are_kept_with_scenes(tmp_path):
    sampler = dfm_jax.load("toy", steps=1)
    photo = dfm_jax.example_photo("toy")
    frame = Frame("source", np.diag([2.0, 2, 2, 1]) @ [[0, 1, 0, 3], [0, 0, 1, 4], [1, 0, 0, 5], [0, 0, 0, 1]])
    example = sampler.sample(photo, num_samples=1).sampled.example
    scenes = sampler.sampled_with(num_samples=1).sample_example(example, np.eye(4)[None], [frame])
    scenes.save(tmp_path / "scenes.npz")
    assert dfm_jax.load_scenes(tmp_path / "scenes.npz", sampler)[0].frame == frame
    arrays = dict(np.load(tmp_path / "scenes.npz"))
    about = json.loads(arrays["about"].tobytes())
    del about["frames"]  # as it was saved before
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(tmp_path / "before.npz", **arrays)
    assert dfm_jax.load_scenes(tmp_path / "before.npz", sampler)[0].frame.name == "dataset"
