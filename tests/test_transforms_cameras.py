"""Numbers of a transforms.json that are stated in several places, or in part."""

import numpy as np
import pytest

from tests.captures_source import FOCAL, HEIGHT, WIDTH, arc, change_frame, write_transforms
from tests.test_transforms_json import ANGLES, INTRINSICS, read


def test_what_a_frame_states_comes_before_what_the_file_does(tmp_path):
    wide = {"camera_angle_x": 2 * np.arctan(0.25)}
    whole = {"fl_x": FOCAL, "fl_y": 1.1 * FOCAL}
    for stated, focal in (
        (wide, (2 * WIDTH, 2.2 * WIDTH)),  # pixels that are as oblong as the file's
        ({**wide, "camera_angle_y": 2 * np.arctan(1)}, (2 * WIDTH, 0.5 * HEIGHT)),
        ({"fl_x": 50.0}, (50, 55)),
        ({"fl_x": 50.0, "fl_y": 40.0}, (50, 40)),
        ({"fl_y": 40.0}, (FOCAL, 40)),
        ({"fl_x": None, "fl_y": None}, (FOCAL, 1.1 * FOCAL)),
    ):
        change_frame(write_transforms(tmp_path, **whole), 1, **stated)
        frames = read(tmp_path).frames
        np.testing.assert_allclose(np.diag(frames[1].intrinsics)[:2] * [WIDTH, HEIGHT], focal)
        np.testing.assert_allclose(np.diag(frames[0].intrinsics)[:2] * [WIDTH, HEIGHT], (FOCAL, 1.1 * FOCAL))


@pytest.mark.parametrize("stated", [{"w": 2 * WIDTH, "h": None}, {"w": None, "h": 2 * HEIGHT}])
def test_one_side_tells_the_other(tmp_path, stated):
    write_transforms(tmp_path, **stated, fl_x=2 * FOCAL, fl_y=2 * FOCAL, cx=WIDTH, cy=HEIGHT)
    for frame in read(tmp_path).frames:
        np.testing.assert_allclose(frame.intrinsics, INTRINSICS)


def test_what_a_file_states_twice_and_not_alike_is_warned_of(tmp_path):
    write_transforms(tmp_path, **ANGLES)
    assert not read(tmp_path).warnings
    write_transforms(tmp_path, **ANGLES | {"camera_angle_y": 0.3})
    (warning,) = read(tmp_path).warnings
    assert "fl_y and h do not agree with camera_angle_y" in warning


def test_distortion_in_another_order_is_refused(tmp_path):
    for listed, usable in (([0.0] * 4, True), ([0.1, 0, 0, 0], False), ([0.01] * 2 + [0] * 4, True), ({}, True)):
        path = write_transforms(tmp_path)
        change_frame(path, 0, distortion_params=listed)
        assert len(read(tmp_path).frames) == 5 + usable


def test_frames_that_only_a_file_beside_lists_are_warned_of(tmp_path):
    for file in ("transforms.json", "transforms_train.json", "transforms_test.json"):
        write_transforms(tmp_path, file=file)
    assert not read(tmp_path).warnings and not read(tmp_path, "test").warnings
    write_transforms(tmp_path, arc(8))
    (warning,) = read(tmp_path).warnings
    assert "transforms.json is not read" in warning and "2 frames more: images/6.png, images/7.png" in warning
