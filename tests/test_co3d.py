"""The CO3D importer: conventions, scale, splits, and real records where they are at hand."""

import json
import pathlib
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data import prepare
from dfm_jax.data.builders import co3d_annotations, co3d_scale
from dfm_jax.data.builders.co3d import CO3DSource
from dfm_jax.data.loading import dataset
from dfm_jax.errors import Rejected, UserError
from tests import plane_sweep
from tests.co3d_source import HEIGHT, WIDTH, convert, frame_record, listed, write_category, write_jgz, write_json

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def shared(folder):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"no real data at {SHARED / folder}")
    return SHARED / folder


# --- conventions


def pytorch3d_pixel(viewpoint, point, width, height):
    """Where a world point appears, by the definition of NDC: 0 in the middle, growing to the left and up."""
    x, y, z = point @ np.array(viewpoint["R"]) + viewpoint["T"]
    ndc = np.array(viewpoint["focal_length"]) * [x / z, y / z] + viewpoint["principal_point"]
    isotropic = viewpoint.get("intrinsics_format") == "ndc_isotropic"
    half = min(width, height) / 2 if isotropic else np.array([width, height]) / 2
    return np.array([width, height]) / 2 - half * ndc


@pytest.mark.parametrize("version", [1, 2])
def test_cameras_project_as_pytorch3d_does(version):
    record = frame_record("apple", "a", 3, version=version)
    parsed = co3d_annotations.parse_frame(record)
    point = np.array([0.4, -0.3, 0.2])
    projected = parsed.intrinsics @ (np.linalg.inv(parsed.camera_to_world) @ [*point, 1])[:3]
    assert projected[2] > 0
    pixel = projected[:2] / projected[2] * [WIDTH, HEIGHT]
    np.testing.assert_allclose(pixel, pytorch3d_pixel(record["viewpoint"], point, WIDTH, HEIGHT), atol=1e-9)


def test_real_records_are_understood():
    records = json.loads((shared("co3d_real_records") / "records.json").read_text())
    for version in ("v1_frame", "v2_frame"):
        for record in records[version]:
            parsed = co3d_annotations.parse_frame(record)
            point = np.array([0.1, 0.2, 1.0])
            projected = parsed.intrinsics @ (np.linalg.inv(parsed.camera_to_world) @ [*point, 1])[:3]
            pixel = projected[:2] / projected[2] * parsed.size
            # Pixels: a thousandth of what is seen; the records' rotations have float32's digits.
            np.testing.assert_allclose(pixel, pytorch3d_pixel(record["viewpoint"], point, *parsed.size), atol=1e-4)
            focal = parsed.intrinsics.diagonal()[:2] * parsed.size
            assert focal[0] == pytest.approx(focal[1], rel=1e-6)  # pixels are square
            assert str(parsed.image) in record["image"]["path"] and parsed.depth and parsed.mask


def test_real_sequence_records_and_set_lists_are_understood(tmp_path):
    records = json.loads((shared("co3d_real_records") / "records.json").read_text())
    folder = tmp_path / "car"
    write_json(folder / "set_lists.json", records["v1_set_lists"])
    write_jgz(folder / "frame_annotations.jgz", records["v1_frame"])
    write_jgz(folder / "sequence_annotations.jgz", records["v1_sequence"])
    assert CO3DSource(tmp_path).splits() == {"train": ["car-106_12650_23736", "car-79_8257_17428"]}
    assert CO3DSource(tmp_path, best=1).splits() == {"train": ["car-106_12650_23736"]}  # 1.5 against 0.07


# --- scale


def test_scale_is_the_published_one_where_there_are_depths(tmp_path, capsys):
    write_category(tmp_path / "source", "apple", ["a"], num_frames=3, depth=True)
    assert convert(capsys, tmp_path / "source", tmp_path / "data")[:2] == (0, (1, 3, 0, 0))
    scene = dataset.open_dataset(tmp_path / "data", "co3d", "train").scene(0)
    median_depths = 0.5 * np.array([6, 7, 8])  # times scale_adjustment
    assert scene.scale == pytest.approx(10 / median_depths.mean())
    assert scene.attributes["scale_from"] == "median foreground depth of 3 frames"
    distances = np.linalg.norm(scene.camera_to_world[:, :3, 3], axis=1)
    np.testing.assert_allclose(distances, 4 * scene.scale)


def test_one_absurd_depth_does_not_set_the_scale():
    depths = [6.0, 7, 8, 9, 10, 11, 12, 5000]
    annotations = [SimpleNamespace(depth=depth) for depth in depths]
    with mock.patch.object(co3d_scale, "foreground_depth", lambda folder, annotation: annotation.depth):
        assert co3d_scale.scale(None, annotations)[0] == pytest.approx(10 / 9)


def test_scale_is_the_distance_of_the_focus_where_there_are_no_depths(tmp_path):
    write_category(tmp_path, "apple", ["a"], distance=3.0)
    scene = CO3DSource(tmp_path).read("train", "apple-a")
    assert scene.scale == pytest.approx(10 / 3) and "focus" in scene.attributes["scale_from"]
    distances = [np.linalg.norm(frame.camera_to_world[:3, 3]) for frame in scene.frames]
    np.testing.assert_allclose(distances, 10)


def test_a_camera_that_looks_elsewhere_does_not_change_the_scale(tmp_path):
    def stray(records):
        records[1]["viewpoint"]["T"] = [900.0, 20.0, 3.0]

    write_category(tmp_path, "apple", ["a"], num_frames=9, distance=3.0, damage=stray)
    assert CO3DSource(tmp_path).read("train", "apple-a").scale == pytest.approx(10 / 3)


@pytest.mark.parametrize("spoil", ["depths", "masks"])
def test_useless_depths_are_passed_over(tmp_path, spoil):
    folder = write_category(tmp_path, "apple", ["a"], num_frames=4, depth=True)
    first, second, third, _ = sorted((folder / "a" / spoil).iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-40])
    third.write_bytes((folder / "a" / "images" / "frame000001.jpg").read_bytes()[:20])
    scene = CO3DSource(tmp_path).read("train", "apple-a")
    assert scene.scale == pytest.approx(10 / 4.5) and scene.attributes["scale_from"].endswith("of 1 frames")


@pytest.mark.parametrize("axes", ["parallel", "meet behind", "one place", "none"])
def test_focus_needs_axes_that_meet(axes):
    poses = np.stack([co3d_annotations.parse_frame(frame_record("a", "a", i)).camera_to_world for i in range(4)])
    if axes == "parallel":
        poses[:, :3, :3] = poses[0, :3, :3]
    elif axes == "meet behind":
        poses[:, :3, 2] *= -1
    elif axes == "one place":
        poses[:, :3, 3] = [1, 2, 3]
    with pytest.raises(Rejected, match="scale is unknown"):
        co3d_scale.focus_distance(poses[: 0 if axes == "none" else None])


# --- splits and selection


def test_frames_are_in_order_and_named_by_their_files(tmp_path):
    write_category(tmp_path, "apple", ["a", "b"], damage=lambda records: records.reverse())
    scene = CO3DSource(tmp_path).read("train", "apple-b")
    assert [frame.name for frame in scene.frames] == [f"frame{i:06d}.jpg" for i in range(1, 6)]
    assert [frame.timestamp for frame in scene.frames] == pytest.approx([0.1 * i for i in range(5)])


def test_set_lists_of_version_1_part_the_sequences(tmp_path):
    folder = write_category(tmp_path, "car", "abcd", version=1)
    write_json(
        folder / "set_lists.json",
        {
            "train_known": listed("car", "a", [0, 2]),
            "train_unseen": listed("car", "a", [1]),
            "test_known": listed("car", "b", [0]) + listed("car", "c", [1]),
            "test_unseen": listed("car", "b", [3]),
        },
    )
    source = CO3DSource(tmp_path)
    assert source.splits() == {"train": ["car-a", "car-d"], "test": ["car-b", "car-c"]}
    assert source.read("train", "car-a").attributes["set_lists"] == {
        "all": {"train_known": ["frame000001.jpg", "frame000003.jpg"], "train_unseen": ["frame000002.jpg"]}
    }


def test_set_lists_of_version_2_part_the_sequences(tmp_path):
    folder = write_category(tmp_path, "apple", "abcd")
    lists = {
        "fewview_train": {"train": listed("apple", "a", [0]), "val": listed("apple", "a", [1])},
        "fewview_dev": {
            "train": listed("apple", "ab", []) + listed("apple", "b", [0]),
            "val": listed("apple", "b", [1]),
        },
        "fewview_test": {"train": listed("apple", "a", [0]), "test": listed("apple", "c", [1])},
        "manyview_dev_0": {"train": listed("apple", "b", [0]), "test": listed("apple", "b", [2])},
    }
    for subset, contents in lists.items():
        write_json(folder / "set_lists" / f"set_lists_{subset}.json", contents)
    source = CO3DSource(tmp_path)
    assert source.splits() == {"train": ["apple-a", "apple-d"], "validation": ["apple-b"], "test": ["apple-c"]}
    (folder / "set_lists" / "set_lists_fewview_train.json").unlink()  # then it is the keys that tell
    assert CO3DSource(tmp_path).splits()["train"] == ["apple-a", "apple-b", "apple-d"]


def test_evaluation_batches_are_kept_by_the_names_of_their_frames(tmp_path):
    folder = write_category(tmp_path, "apple", "ab")
    batches = [
        listed("apple", "a", [3, 0]),
        listed("apple", "a", [4, 99]),  # of which one has no annotation
        listed("apple", "a", [1]) + listed("apple", "b", [1]),
        listed("apple", "b", [2, 1]),
    ]
    write_json(folder / "eval_batches" / "eval_batches_fewview_dev.json", batches)
    source = CO3DSource(tmp_path)
    names = [["frame000004.jpg", "frame000001.jpg"]], [["frame000003.jpg", "frame000002.jpg"]]
    for scene, expected in zip(("apple-a", "apple-b"), names, strict=True):
        assert source.read("train", scene).attributes["eval_batches"] == {"fewview_dev": expected}


def test_the_best_of_each_category_are_kept(tmp_path):
    write_category(tmp_path, "apple", "abcd", scores={"a": 0.2, "b": None, "c": 1.5, "d": -0.1})
    write_category(tmp_path, "vase", "xy", scores={"x": None, "y": float("nan")})
    source = CO3DSource(tmp_path, best=2)
    assert source.splits() == {"train": ["apple-a", "apple-c", "vase-x", "vase-y"]}
    assert source.read("train", "apple-c").attributes["viewpoint_quality_score"] == 1.5
    assert source.read("train", "vase-y").attributes["viewpoint_quality_score"] is None


def test_categories_can_be_chosen_and_one_can_be_the_source(tmp_path):
    for category in ("apple", "ball", "vase"):
        write_category(tmp_path, category, ["a"])
    assert CO3DSource(tmp_path, categories=["vase", "apple"]).splits() == {"train": ["apple-a", "vase-a"]}
    source = CO3DSource(tmp_path / "ball")
    assert source.splits() == {"train": ["ball-a"]} and source.read("train", "ball-a").frames[0].load()
    with pytest.raises(UserError, match=r"--categories=cake not found .* apple, ball, vase"):
        CO3DSource(tmp_path, categories=["vase", "cake"]).splits()


# --- real data


@pytest.fixture(scope="module")
def apple(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    source = shared("co3d_apple_real_cameras")
    assert prepare.main(["--format=co3d", f"--source={source}", f"--data_dir={directory}"]) == 0
    return dataset.open_dataset(directory, "co3d", "train")


def test_real_cameras_are_those_that_were_published(apple):
    scene = apple.scene(0)
    published = np.load(SHARED / "co3d_apple_real_cameras" / "gt_cameras.npz")
    assert scene.num_frames == 10
    for pose, intrinsics, r, t, focal in zip(
        scene.camera_to_world, scene.intrinsics, published["gtR"], published["gtT"], published["gtFL"], strict=True
    ):
        world_to_camera = np.linalg.inv(pose)
        flip = np.diag([-1, -1, 1])
        np.testing.assert_allclose(world_to_camera[:3, :3], flip @ r.T, atol=1e-5)
        # The published translations are float32, and so is what is stored.
        np.testing.assert_allclose(world_to_camera[:3, 3], flip @ t * scene.scale, rtol=1e-4)
        # Square, as wide as the picture's shorter side: NDC reach from -1 to 1 over it.
        np.testing.assert_allclose(intrinsics, [[focal[0] / 2, 0, 0.5], [0, focal[1] / 2, 0.5], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("pair", [(1, 2), (2, 3), (4, 5), (8, 9)])
def test_real_pictures_agree_with_their_cameras(apple, pair):
    """One frame warped into the next along the best depths fits worse with any other reading of the cameras."""
    scene = apple.scene(0)
    this, other = (apple.image(scene, frame, plane_sweep.SIZE) for frame in pair)
    motion = np.linalg.inv(scene.camera_to_world[pair[1]]) @ scene.camera_to_world[pair[0]]
    reflection = np.diag([-1.0, 1.0, 1.0, 1.0])
    readings = [motion, np.linalg.inv(motion), reflection @ motion @ reflection, np.eye(4)]
    error, *others = [plane_sweep.error(this, other, scene.intrinsics[0], pose) for pose in readings]
    assert min(others) > 1.3 * error


def test_real_pictures_without_cameras_are_refused(tmp_path, capsys):
    code, counts, listing, errors = convert(capsys, shared("co3d_images_masks"), tmp_path)
    assert code == 1 and counts is None and len(listing) == 2
    assert "there are no cameras" in errors and not dataset.exists(tmp_path, "co3d")


def test_masks_are_left_beside_the_pictures(tmp_path):
    """What the annotations' masks say, of the picture as it is stored; the pictures stay as they are."""
    folder = write_category(tmp_path, "apple", ["a"], num_frames=4, depth=True)
    (folder / "a" / "masks" / "frame000001.png").unlink()
    scene = CO3DSource(tmp_path).read("train", "apple-a")
    for i, frame in enumerate(scene.frames, start=1):
        assert frame.load() == (folder / "a" / "images" / f"frame{i:06d}.jpg").read_bytes()
        if i == 1:
            with pytest.raises(Rejected, match="mask: image is missing"):
                frame.load_mask()
        else:
            stored = np.asarray(Image.open(folder / "a" / "masks" / f"frame{i:06d}.png").convert("L"))
            assert stored.min() < 128 < stored.max()
            np.testing.assert_array_equal(np.asarray(frame.load_mask()), stored)
