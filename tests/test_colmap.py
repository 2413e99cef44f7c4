"""COLMAP models: binary and text agree, every lens, where things may lie, and files that are damaged."""

import os
import pathlib
import shutil
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from dfm_jax.data import prepare
from dfm_jax.data.builders import colmap_model
from dfm_jax.data.builders.colmap import ColmapSource
from dfm_jax.data.loading import dataset
from dfm_jax.data.pictures.pictures import open_picture
from dfm_jax.data.preparing import bounds
from dfm_jax.errors import Rejected, UserError
from tests.captures_source import FOCAL, HEIGHT, POINTS, WIDTH, arc, photograph, write_colmap

BLACK = (0, 0, 0)
REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "sceaux_colmap"


def read(root):
    source = ColmapSource(root, BLACK)
    (name,) = source.splits()["train"]
    return source.read("train", name)


@pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])
def test_cameras_follow_the_conventions(tmp_path, text):
    write_colmap(tmp_path / "castle", text=text)
    scene = read(tmp_path)
    assert scene.name == "castle" and [frame.name for frame in scene.frames] == [f"{i}.png" for i in range(6)]
    for frame, expected in zip(scene.frames, arc(), strict=True):
        np.testing.assert_allclose(frame.camera_to_world[:3, :3], expected[:3, :3], atol=1e-9)
        np.testing.assert_allclose(frame.camera_to_world[:3, 3], scene.scale * expected[:3, 3])
        np.testing.assert_allclose(frame.intrinsics, [[FOCAL / WIDTH, 0, 0.5], [0, FOCAL / HEIGHT, 0.5], [0, 0, 1]])
        assert frame.load() == (tmp_path / "castle" / "images" / frame.name).read_bytes()
    expected = bounds.scene_bounds(arc(), [POINTS] * 6)
    assert scene.attributes["bounds"] == "points" and scene.scale == pytest.approx(4 / expected.depth)
    assert (scene.near, scene.far) == pytest.approx((scene.scale * expected.near, scene.scale * expected.far))


def assert_same_model(a, b):
    assert a.cameras == b.cameras and [image.name for image in a.images] == [image.name for image in b.images]
    for one, other in zip(a.images, b.images, strict=True):
        np.testing.assert_allclose(one.quaternion + one.translation, other.quaternion + other.translation, rtol=1e-12)
        np.testing.assert_array_equal(one.points, other.points)
    np.testing.assert_array_equal(a.point_ids, b.point_ids)
    np.testing.assert_allclose(a.points, b.points, rtol=1e-12)


def test_binary_and_text_are_the_same_model(tmp_path):
    folders = [write_colmap(tmp_path / str(text), text=text) for text in (False, True)]
    models = [colmap_model.read_model(folder) for folder in folders]
    assert_same_model(*models)
    np.testing.assert_array_equal(models[0].seen_by(models[0].images[2]), POINTS)


LENSES = [
    (0, "SIMPLE_PINHOLE", (FOCAL, 30.0, 25.0)),
    (2, "SIMPLE_RADIAL", (FOCAL, 30.0, 25.0, -0.1)),
    (3, "RADIAL", (FOCAL, 30.0, 25.0, -0.1, 0.02)),
    (4, "OPENCV", (FOCAL, 61.0, 30.0, 25.0, -0.1, 0.02, 0.001, 0.002)),
    (6, "FULL_OPENCV", (FOCAL, 61.0, 30.0, 25.0, -0.1, 0.02, 0.001, 0.002, 0.1, 0.2, 0.3, 0.4)),
    (5, "OPENCV_FISHEYE", (FOCAL, 61.0, 30.0, 25.0, 0.1, 0.02, 0.001, 0.002)),
    (8, "SIMPLE_RADIAL_FISHEYE", (FOCAL, 30.0, 25.0, 0.1)),
    (9, "RADIAL_FISHEYE", (FOCAL, 30.0, 25.0, 0.1, 0.02)),
    (14, "SIMPLE_FISHEYE", (FOCAL, 30.0, 25.0)),
]


@pytest.mark.parametrize("camera", LENSES, ids=[name for _, name, _ in LENSES])
def test_lenses_are_undone_about_their_own_centre(tmp_path, camera):
    write_colmap(tmp_path, arc(3), camera)
    for frame in read(tmp_path).frames:
        np.testing.assert_allclose(frame.intrinsics[:2, 2], [30 / WIDTH, 25 / HEIGHT])
        aspect = frame.intrinsics[1, 1] * HEIGHT / (frame.intrinsics[0, 0] * WIDTH)
        assert aspect == pytest.approx(61 / 60 if 61.0 in camera[2] else 1)
        # Whole pictures are kept or cut: the pinhole camera's focal length is near the lens's, not equal.
        assert frame.intrinsics[0, 0] * WIDTH == pytest.approx(FOCAL, rel=0.3)
        same = frame.load() == (tmp_path / "images" / frame.name).read_bytes()
        assert same == ("PINHOLE" in camera[1])


@pytest.mark.parametrize("camera", [(7, "FOV", (FOCAL, FOCAL, 32.0, 24.0, 0.9)), (17, "EQUIRECTANGULAR", (64.0, 48.0))])
def test_lenses_that_opencv_does_not_know_are_refused_by_name(tmp_path, camera):
    write_colmap(tmp_path, camera=camera)
    with pytest.raises(Rejected, match=f"{camera[1]} is not supported"):
        read(tmp_path)


@pytest.mark.parametrize("folder", ["input", "Images", "rgb", "resized_images", "photos"])
def test_folders_of_pictures_have_many_names(tmp_path, folder):
    write_colmap(tmp_path, arc(3), images=folder)
    scene = read(tmp_path)
    assert len(scene.frames) == 3 and scene.attributes["pictures"] == folder


PLACES = {"sparse": "sparse", "deep": "colmap/sparse/0", "text": "sparse_text/0", "beside": "."}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_models_and_pictures_are_found(tmp_path, place):
    write_colmap(tmp_path / "a", model=place, images="." if place == "." else "images")
    (name,) = ColmapSource(tmp_path, BLACK).splits()["train"]
    assert name.startswith("a") and len(read(tmp_path).frames) == 6


def test_the_models_folder_can_be_the_source(tmp_path):
    folder = write_colmap(tmp_path / "castle")
    assert read(folder).name == "castle" and len(read(folder).frames) == 6


def test_pictures_may_be_scaled_copies(tmp_path):
    write_colmap(tmp_path, camera=LENSES[1])
    whole = read(tmp_path)
    shutil.rmtree(tmp_path / "images")
    (tmp_path / "images_4").mkdir()
    for i, camera in enumerate(arc()):
        photograph(camera, size=(WIDTH // 4, HEIGHT // 4)).save(tmp_path / "images_4" / f"{i}.png")
    scaled = read(tmp_path)
    for one, other in zip(whole.frames, scaled.frames, strict=True):
        np.testing.assert_array_equal(one.intrinsics, other.intrinsics)
        assert open_picture(other.load()).image.size == (WIDTH // 4, HEIGHT // 4)


def test_of_several_models_the_largest_is_taken_and_damaged_ones_are_listed(tmp_path):
    write_colmap(tmp_path, arc(3), model="sparse/0")
    write_colmap(tmp_path, arc(5), model="sparse/1")
    write_colmap(tmp_path, arc(5), model="sparse/2", text=True)
    scene = read(tmp_path)
    assert len(scene.frames) == 5 and scene.attributes["model"] == os.path.join("sparse", "1")
    (tmp_path / "sparse" / "1" / "images.bin").write_bytes(b"\1")
    scene = read(tmp_path)
    assert len(scene.frames) == 5 and scene.attributes["model"] == os.path.join("sparse", "2")
    (warning,) = scene.warnings
    assert "model sparse/1" in warning and "images.bin cannot be read" in warning


def test_a_folder_of_captures_is_a_scene_each(tmp_path):
    for name in ("b", "a"):
        write_colmap(tmp_path / name)
    assert ColmapSource(tmp_path, BLACK).splits() == {"train": ["a", "b"]}


def test_without_points_the_cameras_tell_the_bounds(tmp_path):
    (write_colmap(tmp_path) / "points3D.bin").unlink()
    assert read(tmp_path).attributes["bounds"] == "focus"


def test_no_model_is_an_error(tmp_path):
    with pytest.raises(UserError, match="no COLMAP model"):
        ColmapSource(tmp_path, BLACK).splits()


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "9.png"])
def test_names_that_lead_elsewhere_are_listed(tmp_path, name):
    folder = write_colmap(tmp_path / "source", text=True)
    photograph(arc()[0]).save(tmp_path / "source" / "secret.png")
    path = folder / "images.txt"
    path.write_text(path.read_text().replace(" 0.png", f" {name}"))
    scene = read(tmp_path / "source")
    assert len(scene.frames) == 5 and scene.rejected[0][0] == name


def test_pictures_that_are_nowhere_are_one_reason(tmp_path):
    write_colmap(tmp_path)
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(Rejected, match="none of the model's 6 images was found"):
        read(tmp_path)


COUNTS = {"cameras.bin": 0, "images.bin": 0, "points3D.bin": 0, "points of an image": 8 + 64 + 6, "track": 8 + 43}


@pytest.mark.parametrize("where", COUNTS)
@pytest.mark.parametrize("count", [2**40, 2**64 - 1])
def test_absurd_counts_are_not_believed(tmp_path, where, count):
    folder = write_colmap(tmp_path)
    path = folder / {"points of an image": "images.bin", "track": "points3D.bin"}.get(where, where)
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, COUNTS[where], count)
    path.write_bytes(content)
    with pytest.raises(Rejected, match=f"{path.name} cannot be read: {count} entries are announced"):
        colmap_model.read_model(folder)


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
@hypothesis.given(data=st.data())
def test_any_damage_gives_a_scene_or_a_reason(tmp_path_factory, data):
    text = data.draw(st.booleans())
    root = tmp_path_factory.getbasetemp() / "damaged"
    shutil.rmtree(root, ignore_errors=True)
    folder = write_colmap(root, arc(3), LENSES[1], text=text)
    part = data.draw(st.sampled_from(["cameras", "images", "points3D"]))
    path = folder / f"{part}{'.txt' if text else '.bin'}"
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        scene = read(root)
        for frame in scene.frames:
            frame.load()
    except Rejected as reason:
        assert str(reason)
    else:
        assert 0 < scene.near < scene.far < np.inf


def test_absurd_sizes_of_a_text_model_are_a_reason(tmp_path):
    folder = write_colmap(tmp_path, text=True)
    content = (folder / "cameras.txt").read_text()
    assert f" {WIDTH} " in content
    (folder / "cameras.txt").write_text(content.replace(f" {WIDTH} ", f" {10**400} "))
    with pytest.raises(Rejected, match=r"cameras\.txt cannot be read"):
        read(tmp_path)


def test_every_cut_of_a_binary_file_is_noticed(tmp_path):
    folder = write_colmap(tmp_path, arc(2))
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        content = (folder / name).read_bytes()
        for end in range(0, len(content), 7):
            (folder / name).write_bytes(content[:end])
            with pytest.raises(Rejected, match=name):
                colmap_model.read_model(folder)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def real():
    if not REAL.is_dir():
        pytest.skip(f"no real capture at {REAL}")
    return REAL


def test_real_binary_and_text_are_the_same_model(real):
    assert_same_model(*(colmap_model.read_model(real / folder / "0") for folder in ("sparse", "sparse_text")))


def reprojection_errors(real, data):
    """Distances, in pixels of the photographs, between keypoints (undistorted) and their points in prepared cameras."""
    scene = data.scene(0)
    model = colmap_model.read_model(real / "sparse" / "0")
    lines = [line for line in (real / "sparse_text/0/images.txt").read_text().splitlines() if line[0] != "#"]
    (focal, _, _, k), errors = model.cameras[1].params, []
    for header, points in zip(lines[::2], lines[1::2], strict=True):
        frame = scene.frame_names.index(header.split()[-1])
        columns = np.array(points.split(), float).reshape(-1, 3)
        columns = columns[columns[:, 2] >= 0]
        bent = (columns[:, :2] - [128, 96]) / focal
        ray = bent.copy()
        for _ in range(50):
            ray = bent / (1 + k * (ray**2).sum(-1, keepdims=True))
        expected = (ray @ scene.intrinsics[frame][:2, :2].T + scene.intrinsics[frame][:2, 2]) * 192
        place = np.searchsorted(model.point_ids, columns[:, 2].astype(int))
        world = np.c_[scene.scale * model.points[place], np.ones(len(place))]
        in_camera = scene.intrinsics[frame] @ np.linalg.inv(scene.camera_to_world[frame])[:3] @ world.T
        errors.append(np.linalg.norm((in_camera[:2] / in_camera[2]).T * 192 - expected, axis=-1))
    return np.concatenate(errors)


def test_real_points_reproject_onto_their_keypoints(real, tmp_path):
    assert prepare.main(["--format=colmap", f"--source={real}", f"--data_dir={tmp_path}", "--name=sceaux"]) == 0
    data = dataset.open_dataset(tmp_path, "sceaux", "train")
    assert data.num_frames == (11,)
    errors = reprojection_errors(real, data)
    assert len(errors) > 10_000 and np.median(errors) < 0.2 and np.percentile(errors, 99) < 1
    assert data.scene(0).attributes["bounds"] == "points" and 0.5 < data.scene(0).near < 4 < data.scene(0).far < 20


def test_what_is_no_ordinary_file_is_not_read(tmp_path):
    folder = write_colmap(tmp_path)
    (folder / "images.bin").unlink()
    os.mkfifo(folder / "images.bin")
    with pytest.raises(Rejected, match=r"\.txt is missing"):
        read(tmp_path)


def test_names_that_are_no_text_are_stored_as_text(tmp_path):
    folder = write_colmap(tmp_path / "source")
    os.rename(tmp_path / "source" / "images" / "0.png", os.fsencode(tmp_path / "source" / "images") + b"/\xff.png")
    content = (folder / "images.bin").read_bytes()
    (folder / "images.bin").write_bytes(content.replace(b"0.png\0", b"\xff.png\0", 1))
    assert prepare.main(["--format=colmap", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}"]) == 0
    names = dataset.open_dataset(tmp_path, "colmap", "train").scene(0).frame_names
    assert sorted(names) == ["1.png", "2.png", "3.png", "4.png", "5.png", r"\udcff.png"]
