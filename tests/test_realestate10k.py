"""The RealEstate10K importer: conventions, where it finds things, and real clips where they are at hand."""

import itertools
import os
import pathlib

import numpy as np
import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.loading import dataset
from tests import plane_sweep
from tests.realestate10k_source import URL, camera_line, timestamp, write_clip

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "realestate10k"


def test_cameras_follow_the_conventions(tmp_path):
    write_clip(tmp_path, "a", 4)
    scene = RealEstate10KSource(tmp_path).read("train", "a")
    assert scene.attributes == {"url": URL} and [frame.name for frame in scene.frames] == [
        str(timestamp(i)) for i in range(4)
    ]
    columns = np.array([float(column) for column in camera_line(2).split()])
    frame, point = scene.frames[2], np.array([0.3, -0.2, 4.0])
    in_camera = columns[7:].reshape(3, 4) @ [*point, 1]
    np.testing.assert_allclose(frame.camera_to_world @ [*in_camera, 1], [*point, 1], atol=1e-9)
    np.testing.assert_allclose(frame.intrinsics, [[0.5, 0, 0.5], [0, 0.9, 0.5], [0, 0, 1]])
    assert frame.timestamp == pytest.approx(timestamp(2) * 1e-6)


def test_frames_are_in_the_order_of_time(tmp_path):
    cameras, _ = write_clip(tmp_path, "a", 4)
    cameras.write_text("\n".join([URL, *(camera_line(i) for i in (2, 0, 3, 1))]))
    frames = RealEstate10KSource(tmp_path).read("train", "a").frames
    assert [frame.name for frame in frames] == [str(timestamp(i)) for i in range(4)]


def test_splits_are_named_by_folders(tmp_path):
    for split, clip in (("train", "b"), ("train", "a"), ("test", "c"), ("val", "d"), ("videos", "e")):
        write_clip(tmp_path, clip, 3, split)
    assert RealEstate10KSource(tmp_path).splits() == {"train": ["a", "b", "e"], "test": ["c"], "validation": ["d"]}
    assert RealEstate10KSource(tmp_path / "RealEstate10K" / "test").splits() == {"test": ["c"]}


def test_clips_of_one_name_are_kept_apart(tmp_path):
    write_clip(tmp_path, "a", 3, "train")
    write_clip(tmp_path, "a", 4, "test")
    write_clip(tmp_path / "more", "a", 5, "train")
    source = RealEstate10KSource(tmp_path)
    assert source.splits() == {"train": ["a", "more-RealEstate10K-train-a"], "test": ["a"]}
    assert len(source.read("test", "a").frames) == 4 and source.read("test", "a").frames[0].load()


def test_other_text_files_and_links_in_circles_are_passed_over(tmp_path):
    write_clip(tmp_path, "a", 3)
    (tmp_path / "LICENSE.txt").write_text("All rights reserved.")
    os.symlink(tmp_path, tmp_path / "frames" / "train" / "again")
    assert RealEstate10KSource(tmp_path).splits() == {"train": ["a"]}


def test_frame_names_may_be_padded_or_png(tmp_path):
    _, folder = write_clip(tmp_path, "a", 3)
    (folder / f"{timestamp(0)}.jpg").rename(folder / f"{timestamp(0):012d}.JPG")
    (folder / f"{timestamp(1)}.jpg").rename(folder / f"{timestamp(1)}.png")
    assert all(frame.load() for frame in RealEstate10KSource(tmp_path).read("train", "a").frames)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    if not REAL.is_dir():
        pytest.skip(f"no real clips at {REAL}")
    directory = tmp_path_factory.mktemp("data")
    assert prepare.main(["--format=realestate10k", f"--source={REAL}", f"--data_dir={directory}"]) == 0
    return dataset.open_dataset(directory, "realestate10k", "test")


def test_real_clips_are_stored_completely(real):
    assert len(real) == 6 and real.num_frames == (16,) * 6
    for scene in map(real.scene, range(6)):
        assert real.stored_size(scene) == 144
        # Square pixels: once the picture is square, so is its field of view.
        np.testing.assert_allclose(scene.intrinsics[:, 0, 0], scene.intrinsics[:, 1, 1], rtol=1e-4)
        assert real.image(scene, 5, 64).std() > 0.05


def test_real_pictures_agree_with_their_cameras(real):
    """One frame warped into another along the best depths fits worse with any other reading of the cameras."""
    reflection = np.diag([-1.0, 1.0, 1.0, 1.0])
    errors = []
    for scene in map(real.scene, range(6)):
        this, other = (real.image(scene, frame, plane_sweep.SIZE) for frame in (5, 7))
        motion = np.linalg.inv(scene.camera_to_world[7]) @ scene.camera_to_world[5]
        intrinsics = scene.intrinsics[5]
        uncropped = intrinsics.copy()  # as if the intrinsics had not followed the crop
        uncropped[0, 0] *= 144 / 256
        readings = [
            (intrinsics, motion),
            (intrinsics, np.linalg.inv(motion)),
            (intrinsics, reflection @ motion @ reflection),
            (uncropped, motion),
            (intrinsics, np.eye(4)),
        ]
        errors.append([plane_sweep.error(this, other, k, pose) for k, pose in readings])
    for clip, reading in itertools.product(range(6), range(1, 5)):
        assert errors[clip][0] < errors[clip][reading], f"clip {clip}, reading {reading}: {errors[clip]}"
    assert np.median(np.array(errors)[:, 1:] / np.array(errors)[:, :1]) > 2
