"""transforms.json: every way to state a camera, pictures of every kind, and files that are damaged or mean harm."""

import json
import os

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from dfm_jax.data import prepare
from dfm_jax.data.builders.transforms_json import TransformsSource
from dfm_jax.data.loading import dataset
from dfm_jax.data.pictures.pictures import open_picture
from dfm_jax.data.preparing.undistort import Lens, distort
from dfm_jax.errors import Rejected, UserError
from tests.captures_source import (
    BALLS,
    COLOURS,
    FOCAL,
    HEIGHT,
    RADIUS,
    WIDTH,
    arc,
    change_frame,
    photograph,
    write_transforms,
)

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
INTRINSICS = np.array([[FOCAL / WIDTH, 0, 0.5], [0, FOCAL / HEIGHT, 0.5], [0, 0, 1]])


def read(root, split="train", background=BLACK):
    source = TransformsSource(root, background)
    (name,) = source.splits()[split]
    return source.read(split, name)


def reasons(scene):
    return [reason for _, reason in scene.rejected]


def pixels(frame):
    return np.asarray(open_picture(frame.load()).image, float)


def assert_sees_the_balls(frame, scale, tolerance=0.3):
    """The frame's camera projects each ball onto the middle of its disc."""
    picture = pixels(frame)
    height, width = picture.shape[:2]
    in_camera = np.linalg.inv(frame.camera_to_world)[:3] @ np.c_[scale * BALLS, np.ones(len(BALLS))].T
    projected = frame.intrinsics @ in_camera
    expected = (projected[:2] / projected[2]).T * [width, height]
    y, x = np.mgrid[:height, :width] + 0.5
    nearest = COLOURS.index("yellow")  # drawn last: nothing covers it
    colour = np.array([255, 255, 0])
    weight = np.clip(1 - np.abs(picture - colour).mean(-1) / 60, 0, 1)
    centroid = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
    # Pixels: the middle of a disc that is drawn in whole pixels.
    np.testing.assert_allclose(centroid, expected[nearest], atol=tolerance)


def test_cameras_follow_the_conventions(tmp_path):
    write_transforms(tmp_path)
    scene = read(tmp_path)
    assert [frame.name for frame in scene.frames] == [f"images/{i}.png" for i in range(6)]
    for frame, expected in zip(scene.frames, arc(), strict=True):
        np.testing.assert_allclose(frame.camera_to_world[:3, :3], expected[:3, :3], atol=1e-12)
        np.testing.assert_allclose(frame.camera_to_world[:3, 3], scene.scale * expected[:3, 3])
        np.testing.assert_allclose(frame.intrinsics, INTRINSICS)
        assert_sees_the_balls(frame, scene.scale)
    assert scene.scale == pytest.approx(4 / (RADIUS * np.sqrt(1.09)))
    assert scene.near < 4 < scene.far and scene.attributes == {"file": "transforms.json", "bounds": "focus"}


ANGLES = {"camera_angle_x": 2 * np.arctan(WIDTH / 2 / FOCAL), "camera_angle_y": 2 * np.arctan(HEIGHT / 2 / FOCAL)}


@pytest.mark.parametrize(
    "changes",
    [
        {"fl_y": None},
        {"cx": None, "cy": None},
        {"w": None, "h": None},
        {"fl_x": None, "fl_y": None, **ANGLES},
        {"fl_x": None, "fl_y": None, "camera_angle_x": ANGLES["camera_angle_x"]},
        {"fl_x": None, "fl_y": None, "cx": None, "cy": None, "w": None, "h": None, **ANGLES},
        {"camera_angle_x": 0.1},
        {"camera_model": "OPENCV", "k1": 0, "k2": 0.0, "p1": 0},
        {"fl_x": 2 * FOCAL, "fl_y": 2 * FOCAL, "cx": WIDTH, "cy": HEIGHT, "w": 2 * WIDTH, "h": 2 * HEIGHT},
    ],
)
def test_the_same_camera_stated_otherwise(tmp_path, changes):
    write_transforms(tmp_path, **changes)
    for frame in read(tmp_path).frames:
        np.testing.assert_allclose(frame.intrinsics, INTRINSICS, atol=1e-12)
        assert frame.load() == (tmp_path / frame.name).read_bytes()


def test_a_frames_own_intrinsics_come_first(tmp_path):
    change_frame(write_transforms(tmp_path), 2, fl_x=2 * FOCAL, cx=20)
    frames = read(tmp_path).frames
    np.testing.assert_allclose(frames[2].intrinsics[0], [2 * FOCAL / WIDTH, 0, 20 / WIDTH])
    np.testing.assert_allclose(frames[3].intrinsics, INTRINSICS)


def bent(camera, lens):
    """The photograph of a camera as the lens shows it: each of its pixels looked up on a sharper one."""
    sharp = np.asarray(photograph(camera, size=(4 * WIDTH, 4 * HEIGHT)))
    y, x = (np.mgrid[: 2 * HEIGHT, : 2 * WIDTH] + 0.5) / 2
    grid = np.stack([x / WIDTH, y / HEIGHT], -1)
    wanted = (grid - lens.centre) / lens.focal
    ray = wanted.copy()
    for _ in range(25):  # the inverse, as a fixed point
        ray += 0.7 * (wanted - distort(ray, lens))
    column, row = (4 * (FOCAL * ray + [WIDTH / 2, HEIGHT / 2])).astype(int).transpose(2, 0, 1)
    seen = sharp[row.clip(0, 4 * HEIGHT - 1), column.clip(0, 4 * WIDTH - 1)]
    return Image.fromarray(seen)


@pytest.mark.parametrize(
    ("changes", "lens"),
    [
        ({"k1": -0.2, "k2": 0.03, "p1": 0.002, "p2": -0.001}, (-0.2, 0.03, 0.002, -0.001)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.25}, (0.25,)),
        ({"camera_model": "FULL_OPENCV", "k1": -0.2, "k4": 0.05}, (-0.2, 0, 0, 0, 0, 0.05, 0, 0)),
        ({"is_fisheye": True, "k1": 0.05, "k2": -0.01}, (0.05, -0.01, 0, 0)),
        ({"camera_model": "OPENCV_FISHEYE", "k3": 0.02}, (0, 0, 0.02, 0)),
    ],
)
def test_distortion_is_undone(tmp_path, changes, lens):
    write_transforms(tmp_path, **changes)
    fisheye = "is_fisheye" in changes or "FISHEYE" in changes.get("camera_model", "")
    shape = Lens((FOCAL / WIDTH, FOCAL / HEIGHT), (0.5, 0.5), distortion=lens, fisheye=fisheye)
    for i in (1, 4):
        bent(arc()[i], shape).save(tmp_path / "images" / f"{i}.png")
    scene = read(tmp_path)
    for i in (1, 4):
        assert_sees_the_balls(scene.frames[i], scene.scale, tolerance=0.4)  # of 128 pixels


def test_what_nerfstudio_applied_is_undone(tmp_path):
    turn = np.array([[0, 1.0, 0, 0.3], [1, 0, 0, -0.1], [0, 0, -1, 0.2], [0, 0, 0, 1]])
    moved = turn @ arc()
    moved[:, :3, 3] *= 0.5
    write_transforms(tmp_path, moved, applied_transform=turn[:3].tolist(), applied_scale=0.5)
    scene = read(tmp_path)
    np.testing.assert_allclose(scene.frames[1].camera_to_world[:3, :3], arc()[1, :3, :3], atol=1e-12)
    np.testing.assert_allclose(scene.frames[1].camera_to_world[:3, 3], 0.5 * scene.scale * arc()[1, :3, 3])


def test_paths_may_lack_their_suffix_and_start_at_the_file(tmp_path):
    path = write_transforms(tmp_path / "a", file="transforms_train.json", pictures="train")
    for i in range(6):
        change_frame(path, i, file_path=f"./train/{i}")
    assert [frame.name for frame in read(tmp_path).frames] == [f"train/{i}" for i in range(6)]


def test_frames_are_in_the_natural_order_of_their_names(tmp_path):
    path = write_transforms(tmp_path, arc(12))
    content = json.loads(path.read_text())
    content["frames"].reverse()
    path.write_text(json.dumps(content))
    assert [frame.name for frame in read(tmp_path).frames] == [f"images/{i}.png" for i in range(12)]


@pytest.mark.parametrize("background", [BLACK, WHITE])
def test_transparency_is_laid_on_the_background(tmp_path, background):
    write_transforms(tmp_path)
    for i, camera in enumerate(arc()):
        photograph(camera, "RGBA").save(tmp_path / "images" / f"{i}.png")
    scene = read(tmp_path, background=background)
    picture = pixels(scene.frames[2])
    assert (picture[0, 0] == background).all() and picture.std() > 10
    assert (scene.near, scene.far) == pytest.approx((2, 6))  # an object without surroundings
    assert_sees_the_balls(scene.frames[2], scene.scale)


def test_pictures_turned_by_their_exif_data_are_seen_as_their_camera_does(tmp_path):
    write_transforms(tmp_path)
    turned = photograph(arc()[0]).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise
    turned.save(tmp_path / "images" / "0.png", exif=exif)
    scene = read(tmp_path)
    assert_sees_the_balls(scene.frames[0], scene.scale)


def test_blender_splits_share_one_scale(tmp_path):
    write_transforms(tmp_path / "lego", file="transforms_train.json", pictures="train")
    write_transforms(tmp_path / "lego", arc(4)[:3] * 1.0, file="transforms_test.json", pictures="test")
    source = TransformsSource(tmp_path, BLACK)
    assert source.splits() == {"train": ["lego"], "test": ["lego"]}
    train, test = (source.read(split, "lego") for split in ("train", "test"))
    assert (train.scale, train.near, train.far) == (test.scale, test.near, test.far)
    assert len(train.frames) == 6 and len(test.frames) == 3
    change_frame(tmp_path / "lego" / "transforms_test.json", 0, transform_matrix=[[float("nan")] * 4] * 4)
    assert np.isfinite(source.read("train", "lego").scale) and len(source.read("test", "lego").frames) == 2


def test_a_folder_of_captures_is_a_scene_each_and_circles_are_passed_over(tmp_path):
    for name in ("b", "a/c", "a/d"):
        write_transforms(tmp_path / name)
    os.symlink(tmp_path, tmp_path / "a" / "again")
    source = TransformsSource(tmp_path, BLACK)
    assert source.splits() == {"train": ["a-c", "a-d", "b"]}
    assert len(source.read("train", "a-c").frames) == 6


def test_the_file_itself_can_be_the_source(tmp_path):
    path = write_transforms(tmp_path / "mine", file="cameras.json")
    assert TransformsSource(path, BLACK).splits() == {"train": ["mine"]} and len(read(path).frames) == 6


def test_no_such_source_is_an_error(tmp_path):
    with pytest.raises(UserError, match="not a folder"):
        TransformsSource(tmp_path / "nothing", BLACK).splits()
    with pytest.raises(UserError, match=r"transforms\.json"):
        TransformsSource(tmp_path, BLACK).splits()


def test_missing_and_forbidden_pictures_are_listed(tmp_path):
    path = write_transforms(tmp_path / "source", arc(8))
    for name in ("secret.png", "source.png"):
        photograph(arc()[0]).save(tmp_path / name)
    names = ["images/none.png", ".", "../secret.png", str(tmp_path / "secret.png"), "images/0\0.png", "x" * 5000]
    for number, name in enumerate(names):
        change_frame(path, number, file_path=name)
    scene = read(tmp_path / "source")
    assert len(scene.frames) == 2
    led_out, missing = "image path leads out of the source", "image is missing"
    assert [reason.split(":")[0] for reason in reasons(scene)] == [missing, *[led_out] * 3, *[missing] * 2]
    assert reasons(scene)[0] == "image is missing: looked for source/images/none.png"


def test_a_file_may_name_pictures_beside_its_own_folder(tmp_path):
    path = write_transforms(tmp_path)
    (tmp_path / "cameras").mkdir()
    path.rename(tmp_path / "cameras" / "transforms.json")
    for i in range(6):
        change_frame(tmp_path / "cameras" / "transforms.json", i, file_path=f"../images/{i}.png")
    assert len(read(tmp_path).frames) == 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"transform_matrix": [[1, 0, 0, 0]]}, "transform_matrix is no 4x4 matrix"),
        ({"transform_matrix": None}, "transform_matrix is no 4x4 matrix"),
        ({"transform_matrix": np.diag([1.0, 2, 1, 1]).tolist()}, "not orthonormal"),
        ({"transform_matrix": np.diag([1.0, -1, 1, 1]).tolist()}, "reflection"),
        ({"transform_matrix": [[float("nan")] * 4] * 4}, "not finite"),
        ({"transform_matrix": [["a"] * 4] * 4}, "transform_matrix is no number"),
        ({"file_path": 7}, "no file_path"),
        ({"file_path": "images/0.png"}, "listed twice"),
        ({"fl_x": "wide"}, "fl_x is no number"),
        ({"fl_x": 10**400}, "fl_x is no number"),
        ({"fl_x": -3}, "focal length is not positive"),
        ({"w": 0}, "camera is for 0x48"),
        ({"k1": 1e300}, "leaves nothing to see"),
        ({"k4": 0.1}, "no fisheye"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR is not supported"),
        ({"camera_model": ["x"]}, "not supported"),
    ],
)
def test_a_bad_frame_is_listed_alone(tmp_path, changes, reason):
    change_frame(write_transforms(tmp_path), 3, **changes)
    scene = read(tmp_path)
    assert len(scene.frames) == 5 and reason in " ".join(reasons(scene))


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (WIDTH, HEIGHT + 20)])
def test_a_picture_of_another_shape_than_its_camera_is_rejected(tmp_path, size):
    write_transforms(tmp_path)
    photograph(arc()[0], size=size).save(tmp_path / "images" / "0.png")
    with pytest.raises(Rejected, match="no scaled copy of the 64x48"):
        read(tmp_path).frames[0].load()


def test_a_picture_of_absurd_size_is_rejected(tmp_path, monkeypatch):
    write_transforms(tmp_path, w=None, h=None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Rejected, match=r"larger than .* million pixels, which is not read: scale it down"):
        read(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"frames": 3}', '{"frames": []}', '{"frames": [3, null]}', "[" * 100_000, "\xff\xfe", '{"a": NaN'],
)
def test_a_damaged_file_is_one_reason(tmp_path, text, capsys):
    (tmp_path / "transforms.json").write_bytes(text.encode("latin-1"))
    assert prepare.main(["--format=transforms", f"--source={tmp_path}", f"--data_dir={tmp_path / 'data'}"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: no scene could be used") and not (tmp_path / "data" / "transforms").exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), lambda v: st.lists(v, max_size=5)
)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_change_of_a_file_gives_a_scene_or_a_reason(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    path = write_transforms(root, arc(3), k1=0.1, applied_scale=1.0, applied_transform=np.eye(4).tolist())
    content = json.loads(path.read_text())
    place = data.draw(st.sampled_from([content, content["frames"][1], content["frames"]]))
    key = data.draw(st.sampled_from(range(3) if isinstance(place, list) else sorted(place)))
    place[key] = data.draw(VALUES)
    text = json.dumps(content)
    path.write_text(text[: data.draw(st.sampled_from([len(text), len(text) // 2]))])
    try:
        scene = read(root)
        for frame in scene.frames:
            frame.load()
    except Rejected as reason:
        assert str(reason)
    else:
        assert 0 < scene.near < scene.far < np.inf


def test_a_prepared_capture_holds_frames_out(tmp_path, capsys):
    write_transforms(tmp_path / "fox", arc(9))
    options = ["--format=transforms", f"--source={tmp_path / 'fox'}", f"--data_dir={tmp_path / 'data'}"]
    assert prepare.main(options) == 0
    data = dataset.open_dataset(tmp_path / "data", "transforms", "train")
    assert data.names == ("fox",) and np.flatnonzero(data.held_out(0)).tolist() == [4]
    assert prepare.main([*options, "--overwrite", "--holdout=3"]) == 0
    data = dataset.open_dataset(tmp_path / "data", "transforms", "train")
    assert np.flatnonzero(data.held_out(0)).tolist() == [1, 4, 7] and data.num_training_frames.tolist() == [6]
    assert data.scene(0).near < 4 < data.scene(0).far
    capsys.readouterr()
    for option, message in (("--holdout=1", "holdout=1 would"), ("--background=no", "no colour"), ("--seed=1", "toy")):
        assert prepare.main([*options, option]) == 1 and message in capsys.readouterr().err


def test_splits_of_their_own_need_no_holdout(tmp_path):
    write_transforms(tmp_path / "lego", file="transforms_train.json", pictures="train")
    write_transforms(tmp_path / "lego", file="transforms_test.json", pictures="test")
    assert prepare.main(["--format=transforms", f"--source={tmp_path}", f"--data_dir={tmp_path / 'data'}"]) == 0
    assert dataset.open_dataset(tmp_path / "data", "transforms", "train").holdout == 0


def test_photographs_held_upright_and_flat_go_together(tmp_path):
    path = write_transforms(tmp_path / "source")
    upright = Image.open(tmp_path / "source" / "images" / "2.png").resize((HEIGHT, WIDTH))
    upright.save(tmp_path / "source" / "images" / "2.png")
    change_frame(path, 2, w=HEIGHT, h=WIDTH, cx=HEIGHT / 2, cy=WIDTH / 2, file_path="images\\2.png")
    assert prepare.main(["--format=transforms", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}"]) == 0
    data = dataset.open_dataset(tmp_path, "transforms", "train")
    assert data.num_frames == (6,) and data.scene(0).frame_names[2] == "images/2.png"
    np.testing.assert_allclose(data.scene(0).intrinsics[:, 0, 0], FOCAL / HEIGHT)  # of the middle square
