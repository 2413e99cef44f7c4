"""What counts as a usable camera or picture."""

import io

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data.pictures import pictures
from dfm_jax.data.preparing import camera_checks, scene_checks
from dfm_jax.data.preparing.quarantine import Quarantine, most_frequent_reason
from dfm_jax.errors import Rejected

INTRINSICS = np.array([[0.8, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]])


def broken(array, index, value):
    array = np.array(array, np.float64)
    array[index] = value
    return array


def test_a_rigid_pose_is_accepted():
    angle = 0.3
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    pose[:3, 3] = [1, -2, 100]
    camera_checks.check_camera(pose, INTRINSICS)


@pytest.mark.parametrize(
    ("pose", "intrinsics", "reason"),
    [
        (broken(np.eye(4), (0, 3), np.nan), INTRINSICS, "pose is not finite"),
        (broken(np.eye(4), (1, 1), np.inf), INTRINSICS, "pose is not finite"),
        (broken(np.eye(4), (1, 1), 1.01), INTRINSICS, "not orthonormal"),
        (broken(np.eye(4), (0, 1), 0.01), INTRINSICS, "not orthonormal"),
        (broken(np.eye(4), (2, 2), -1), INTRINSICS, "determinant -1"),
        (broken(np.eye(4), (3, 0), 1), INTRINSICS, "last row"),
        (np.eye(3), INTRINSICS, "shapes"),
        (np.eye(4), broken(INTRINSICS, (0, 2), np.nan), "intrinsics are not finite"),
        (np.eye(4), broken(INTRINSICS, (0, 0), 0), "focal length"),
        (np.eye(4), broken(INTRINSICS, (1, 1), -1), "focal length"),
    ],
)
def test_a_bad_camera_is_rejected_with_its_reason(pose, intrinsics, reason):
    with pytest.raises(Rejected, match=reason):
        camera_checks.check_camera(pose, intrinsics)


def jpeg(width=40, height=30):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def test_a_whole_picture_is_accepted():
    assert pictures.open_picture(jpeg()).image.size == (40, 30)


@pytest.mark.parametrize("encoded", [b"", b"not a picture", jpeg()[:60], jpeg()[:-200]])
def test_a_damaged_picture_is_rejected(encoded):
    with pytest.raises(Rejected, match="image does not decode") as rejected:
        pictures.open_picture(encoded)
    assert " at 0x" not in str(rejected.value)  # a place in memory, another one every time


def test_odd_sizes_are_those_unlike_the_most():
    assert scene_checks.odd_sizes([(4, 3), (8, 6), (4, 3), (4, 3), (3, 4)]) == [1, 4]
    assert scene_checks.odd_sizes([]) == []


def test_the_quarantine_has_an_entry_for_all_that_is_rejected():
    quarantine = Quarantine()
    quarantine.add_frame("train", "a", "3", "blurred")
    quarantine.add_scene("test", "b", "empty", counted_as="hollow")
    quarantine.add_scene("test", "c", "dark")
    assert quarantine.entries == [
        {"split": "train", "scene": "a", "frame": "3", "reason": "blurred"},
        {"split": "test", "scene": "b", "frame": None, "reason": "empty"},
        {"split": "test", "scene": "c", "frame": None, "reason": "dark"},
    ]
    assert quarantine.counts == {"hollow": 1}


def test_the_usual_reason_is_the_most_frequent_whatever_path_it_names():
    missing = [f"image is missing: looked for images/{i}.png" for i in range(3)]
    assert most_frequent_reason(["pose is not finite", *missing, "pose is not finite"]) == f" (mostly: {missing[0]})"
    assert most_frequent_reason([]) == ""
