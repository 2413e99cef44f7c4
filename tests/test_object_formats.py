"""ShapeNet-SRN, Zero-1-to-3's renderings and Minens: splits, scale, and files that are damaged or not there."""

import numpy as np
import pytest

from dfm_jax.errors import Rejected, UserError
from tests.captures_source import arc, pose
from tests.format_sources import FRAMES, write_minens, write_srn, write_zero123
from tests.test_formats import convert, pixels, scenes, source


def test_objects_of_srn_lie_in_the_splits_of_their_folders(tmp_path):
    for place in ("cars_train/a", "cars_val/b", "cars_test/a", "chairs_train/chairs_2.0_train/a"):
        write_srn(tmp_path / place)
    found = source("srn", tmp_path)
    assert found.splits() == {"test": ["a"], "train": ["a", "a~2"], "validation": ["b"]}
    scene = found.read("train", "a")
    assert scene.attributes["category"] == "cars" and scene.scale == 1
    np.testing.assert_allclose(scene.frames[2].camera_to_world, arc()[2], atol=1e-8)
    # 3.132 stands for a number with more digits.
    assert (scene.near, scene.far) == pytest.approx((0.5 * 3.132, 1.5 * 3.132), rel=1e-3)
    assert source("srn", tmp_path / "cars_test").splits() == {"test": ["a"]}
    assert source("srn", tmp_path / "cars_test" / "a").splits() == {"train": ["a"]}


SRN_DAMAGES = {
    "rgb": (lambda root: (root / "rgb" / "000002.png").unlink(), "image is missing"),
    "no pose": (lambda root: (root / "pose" / "000002.txt").unlink(), "000002.txt is missing"),
    "torn": (lambda root: (root / "pose" / "000002.txt").write_text("1 0 0"), "has 3 numbers, not 16"),
    "words": (lambda root: (root / "pose" / "000002.txt").write_text("a " * 16), "could not convert"),
    "row": (lambda root: (root / "pose" / "000002.txt").write_text("1 " * 16), "last row"),
}


@pytest.mark.parametrize("name", SRN_DAMAGES)
def test_a_damaged_view_of_srn_is_listed_alone_and_leaves_a_hole(tmp_path, name):
    damage, reason = SRN_DAMAGES[name]
    write_srn(tmp_path)
    damage(tmp_path)
    (scene,) = scenes("srn", tmp_path)
    assert [frame.number for frame in scene.frames] == [0, 1, 3, 4, 5]
    assert len(scene.listed) == FRAMES and reason in scene.rejected[0][1]


@pytest.mark.parametrize("text", [None, "90 47", "f 48 36 0\n72 96", "90 48 36 0\n0 0"])
def test_views_without_intrinsics_are_refused_with_their_names(tmp_path, text):
    write_srn(tmp_path)
    (tmp_path / "intrinsics.txt").unlink() if text is None else (tmp_path / "intrinsics.txt").write_text(text)
    with pytest.raises(Rejected) as refused:
        scenes("srn", tmp_path)
    assert len(refused.value.frames) == FRAMES


def test_views_of_zero123_lie_on_white_or_what_is_asked_for(tmp_path):
    write_zero123(tmp_path / "object")
    for options, corner in ({}, 255), ({"background": "#102030"}, 16), ({"masks": "leave"}, 0):
        (scene,) = scenes("zero123", tmp_path, **options)
        assert scene.scale == 1 and pixels(scene.frames[0])[0, 0, 0] == corner
    with pytest.raises(UserError, match="leave out one of them"):
        source("zero123", tmp_path, background="white", masks="leave")


def test_cameras_of_zero123_may_have_a_fourth_row(tmp_path):
    for name in ("three", "four"):
        write_zero123(tmp_path / name)
    for path in (tmp_path / "four").glob("*.npy"):
        np.save(path, np.vstack([np.load(path), [0, 0, 0, 1]]))
    four, three = scenes("zero123", tmp_path)
    assert [frame.name for frame in four.frames] == [frame.name for frame in three.frames]
    for one, other in zip(four.frames, three.frames, strict=True):
        np.testing.assert_array_equal(one.camera_to_world, other.camera_to_world)


def test_damaged_views_of_zero123_are_listed(tmp_path, capsys):
    write_zero123(tmp_path / "source" / "object", arc(9))
    folder = tmp_path / "source" / "object"
    np.save(folder / "001.npy", np.eye(3))
    np.save(folder / "002.npy", np.array(["a", None], object), allow_pickle=True)
    (folder / "003.npy").write_bytes((folder / "003.npy").read_bytes()[:90])
    (folder / "004.npy").unlink()
    (folder / "005.png").unlink()
    summary, lines = convert(capsys, "zero123", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"]) == (4, 5)
    reasons = {line["frame"]: line["reason"] for line in lines}
    assert "3x4" in reasons["001.png"] and "002.npy cannot be read" in reasons["002.png"]
    assert "003.npy cannot be read" in reasons["003.png"] and "004.npy is missing" in reasons["004.png"]
    assert "image is missing" in reasons["005.png"]


def test_sets_of_minens_become_splits(tmp_path, capsys):
    write_minens(tmp_path / "source", objects=3)
    write_minens(tmp_path / "source", name="testing", mode="RGB", objects=2)
    write_minens(tmp_path / "source", name="ID_skin_OOD_pose_OOD_cond")
    summary, _ = convert(capsys, "minens", tmp_path / "source", tmp_path / "data")
    assert summary["splits"] == {"train": 3, "validation": 1, "test": 2} and summary["frames"] == 24
    scene = source("minens", tmp_path / "source").read("test", "00001")
    assert (scene.scale, scene.near, scene.far, scene.attributes["set"]) == (1, 3.5, 6.5, "testing")
    assert pixels(scene.frames[0])[0, 0, 0] == 128  # the picture's own
    np.testing.assert_allclose(scene.frames[0].camera_to_world, pose(-0.6, 5.0), atol=1e-9)


def test_a_bad_camera_of_minens_is_a_hole(tmp_path, capsys):
    write_minens(tmp_path / "source")
    cameras = np.load(tmp_path / "source" / "cameras_training.npy")
    cameras[0, 1, 0, 3] = 2
    np.save(tmp_path / "source" / "cameras_training.npy", cameras)
    summary, lines = convert(capsys, "minens", tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"], lines[0]["frame"]) == (3, 1, "1")


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("cameras_training.npy", None, "cameras_training.npy is missing"),
        ("cameras_training.npy", np.zeros((2, 4, 4, 4)), "not \\[1, 4, 4, 4\\]"),
        ("imgs_training.npy", np.zeros((1, 4, 48, 48, 4)), "float64"),
        ("imgs_training.npy", b"\x93NUMPY", "cannot be read"),
        ("imgs_training.npy", None, "no imgs_training.npy"),
    ],
)
def test_arrays_of_minens_that_do_not_go_together_are_one_error(tmp_path, file, content, said):
    write_minens(tmp_path)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content) if isinstance(content, bytes) else np.save(tmp_path / file, content)
    with pytest.raises(UserError, match=said):
        source("minens", tmp_path).splits()
