"""Pictures, and what is read off toy samples that are made by hand."""

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from dfm_jax.data.loading import toy_scenes
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.errors import UserError
from dfm_jax.evaluation.calibration.toy_modes import read_hidden_colours
from dfm_jax.structs import Camera, Example, Views
from dfm_jax.visualization import pictures

SIZE = 16


def test_uint8_is_rounded_and_clipped():
    np.testing.assert_array_equal(
        pictures.to_uint8(np.array([-1.0, 0.0, 0.499 / 255, 0.501 / 255, 1.0, 7.0])), [0, 0, 0, 1, 255, 255]
    )
    same = np.arange(6, dtype=np.uint8)
    np.testing.assert_array_equal(pictures.to_uint8(same), same)


def test_enlarging_repeats_whole_pixels():
    image = np.random.default_rng(0).random((2, 5, 7, 3))
    large = pictures.enlarge(image, min_side=12)
    assert large.shape == (2, 15, 21, 3)
    np.testing.assert_array_equal(large[:, 1::3, 1::3], image)
    np.testing.assert_array_equal(pictures.enlarge(image, min_side=5), image)


def test_near_is_brighter_than_far():
    colours = pictures.colour_depth(np.array([[0.5, 1.0, 2.0, 4.0, 8.0, 9.0]]), near=1.0, far=8.0)
    brightness = colours.sum(-1)[0]
    assert np.all(np.diff(brightness)[1:-1] < 0)
    assert brightness[0] == brightness[1] and brightness[-1] == brightness[-2]  # beyond the bounds


def test_uncertainty_glows_only_where_samples_differ():
    mean = np.full((4, 4, 3), 0.5)
    variance = np.zeros((4, 4, 3))
    variance[0, 0] = 0.2
    picture = pictures.colour_uncertainty(variance, mean)
    assert np.ptp(picture[1, 1]) < 1e-6  # grey
    assert picture[0, 0].sum() > picture[1, 1].sum() + 0.3
    assert pictures.colour_variance(variance)[0, 0].sum() > pictures.colour_variance(variance)[1, 1].sum() + 1


def test_grid_places_every_cell():
    colours = [np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = pictures.grid([[colours[0], None], [colours[1], colours[2]]], ["a", "b"], ["x", "y"], side=32)
    for value in (10, 20, 30):
        rows, columns = np.where(np.all(sheet == value, axis=-1))
        assert len(rows) == 32 * 32 and np.ptp(rows) == np.ptp(columns) == 31
    assert pictures.grid([[colours[0]]], ["a"], side=32).shape[1] < 32 + 32  # no room for labels that are not there


# A stand-in for the data set: one scene, whose truth is green.
ATTRIBUTES = {
    "half_sizes": [0.7, 0.65],
    "height": 1.2,
    "yaw": 0.05,
    "visible_colour": [0.3, 0.8, 0.9],
    "floor_colour": [0.5, 0.5, 0.5],
    "hidden": 1,
}


class OneScene(SceneDataset):
    """A split whose only scene is not read from a file."""

    def scene(self, index):
        return SimpleNamespace(attributes=ATTRIBUTES)


ONE_SCENE = OneScene(Path("nowhere"), "test", ("only",), (1,), holdout=0, holes=None, stated=(None,))


def look(hidden: int) -> np.ndarray:
    pose = toy_scenes.orbit_pose(np.array(np.pi + 0.4))
    return toy_scenes.render_view(ATTRIBUTES | {"hidden": hidden}, pose, toy_scenes.intrinsics(), SIZE)[0]


def back_view() -> Example:
    pose = toy_scenes.orbit_pose(np.array([[np.pi + 0.4]]))
    camera = Camera(np.eye(4)[None, None], toy_scenes.intrinsics()[None, None])
    views = Views(np.zeros((1, 1, SIZE, SIZE, 3)), camera, pose[:, :, :3], np.ones((1, 1), bool))
    return Example(views, views, np.ones(1), np.ones(1), np.zeros(1, int))


def test_hidden_colours_are_read_off():
    red, green, blue = (look(i) for i in range(3))
    half = np.where((np.arange(SIZE) < SIZE // 2)[:, None], red, blue)  # two tones: not decided
    samples = np.stack([red + 0.05, green, green - 0.03, blue, half])[None]
    mixture = 0.5 * red + 0.3 * green + 0.2 * blue
    hidden = read_hidden_colours(ONE_SCENE, ["only"], back_view(), samples, mixture[None])
    assert hidden.seen == (("red", "green", "green", "blue", ""),)
    assert sum(hidden.counts) == 5 and hidden.counts[1] == 2
    assert hidden.purity == pytest.approx(0.8) and hidden.estimate_purity == 0.0
    assert hidden.total_variation == pytest.approx(0.5 * np.abs(np.array(hidden.counts) / 5 - [0.5, 0.3, 0.2]).sum())
    json.dumps(hidden.__dict__)


READ = "#!/bin/sh\ncat > /dev/null\n"
FFMPEGS = {
    "was built without x264": (READ + "echo 'Unknown encoder libx264' >&2; exit 1", "Unknown encoder"),
    "writes nothing": (READ, "exit code 0"),
    "is no program": ("neither text nor program", "does not run"),
    "is missing": (None, "does not run"),
}


@pytest.mark.parametrize("what", FFMPEGS)
def test_an_ffmpeg_that_cannot_is_one_clear_error(what, tmp_path, monkeypatch):
    program, said = FFMPEGS[what]
    path = tmp_path / "ffmpeg"
    if program is not None:
        path.write_text(program)
        path.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(path))
    with pytest.raises(UserError, match=said) as error:
        pictures.check_video_encoder(tmp_path)
    assert "IMAGEIO_FFMPEG_EXE" in str(error.value) and "\n" not in str(error.value)


def test_the_ffmpeg_that_comes_along_encodes_and_the_try_leaves_nothing(tmp_path):
    pictures.check_video_encoder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_blamed_on_ffmpeg(tmp_path, monkeypatch):
    (tmp_path / "ffmpeg").write_text(READ + "echo 'write_frame(): No space left on device' >&2; exit 1")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))
    with pytest.raises(OSError, match="No space left") as error:
        pictures.check_video_encoder(tmp_path)
    assert error.value.errno == errno.ENOSPC
