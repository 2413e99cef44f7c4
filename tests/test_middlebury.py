"""Middlebury's `_par.txt`: conventions, and lines that are damaged."""

import numpy as np
import pytest

from dfm_jax.data.builders.middlebury import MiddleburySource
from dfm_jax.errors import UserError
from tests.captures_source import HEIGHT, WIDTH, K, arc, write_middlebury


def read(root):
    source = MiddleburySource(root, (0, 0, 0))
    (name,) = source.splits()["train"]
    return source.read("train", name)


def test_cameras_follow_the_conventions(tmp_path):
    write_middlebury(tmp_path)
    (tmp_path / "temple_ang.txt").write_text("0 0")
    scene = read(tmp_path)
    assert scene.name == "temple" and len(scene.frames) == 6 and not scene.rejected
    for frame, expected in zip(scene.frames, arc(), strict=True):
        np.testing.assert_allclose(frame.camera_to_world[:3, :3], expected[:3, :3], atol=1e-12)
        np.testing.assert_allclose(frame.camera_to_world[:3, 3], scene.scale * expected[:3, 3])
        np.testing.assert_allclose(frame.intrinsics, np.diag([1 / WIDTH, 1 / HEIGHT, 1]) @ K)
        assert frame.load() == (tmp_path / frame.name).read_bytes()
    assert (scene.near, scene.far) == pytest.approx((2, 6))


def test_a_folder_of_captures_is_a_scene_each(tmp_path):
    write_middlebury(tmp_path / "a", name="dino")
    write_middlebury(tmp_path / "b")
    assert MiddleburySource(tmp_path, (0, 0, 0)).splits() == {"train": ["a-dino", "b-temple"]}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no file \*_par\.txt"):
        MiddleburySource(tmp_path / "empty", (0, 0, 0)).splits()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2.png", "9.png", "missing"),
        ("2.png", "../2.png", "out of the source"),
        ("2.png", "2.png 1", "23 columns, not 22"),
        ("2.png", "2.png one", "23 columns"),
        (" 0.0 0.0 1.0 ", " 0.0 1.0 1.0 ", "upper triangular"),
        ("60.0 ", "nan ", "not finite"),
        ("60.0 ", "x ", "could not convert"),
    ],
)
def test_a_bad_line_is_listed_alone(tmp_path, old, new, reason):
    path = write_middlebury(tmp_path)
    lines = path.read_text().splitlines()
    lines[3] = lines[3].replace(old, new, 1)
    path.write_text("\n".join(lines))
    scene = read(tmp_path)
    assert len(scene.frames) == 5 and reason in scene.rejected[0][1]
