"""Videos without cameras, as a data set of frames in their order."""

import json

import numpy as np
import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders.videos import VideosSource
from dfm_jax.data.loading import dataset
from dfm_jax.errors import Rejected, UserError
from tests.test_realestate10k_video import FPS, number_of, write_video

NUM_FRAMES = 12


def test_frames_of_videos_come_in_order_and_evenly_spread(tmp_path, capsys):
    write_video(tmp_path / "source" / "walk.mp4", range(NUM_FRAMES))
    options = ["--format=video", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}"]
    assert prepare.main(options) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["scenes"], summary["frames"], summary["warned_scenes"]) == (1, NUM_FRAMES, 1)
    data = dataset.open_dataset(tmp_path, "video", "train")
    scene = data.scene(0)
    assert scene.name == "walk"
    assert [number_of(data.image(scene, i, 32)) for i in range(NUM_FRAMES)] == list(range(NUM_FRAMES))
    np.testing.assert_allclose(np.diff(scene.timestamps), 1 / FPS, atol=2e-3)  # clocks of containers tick milliseconds
    np.testing.assert_array_equal(scene.camera_to_world, np.tile(np.eye(4), (NUM_FRAMES, 1, 1)))
    few = VideosSource(tmp_path / "source" / "walk.mp4", 3).read("train", "walk").frames
    assert [round(frame.timestamp * FPS) for frame in few] in ([0, 5, 11], [0, 6, 11])


def test_what_is_no_video_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match=r"no video \(\.mp4, .*\) in --source="):
        VideosSource(tmp_path, None).splits()
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    with pytest.raises(Rejected, match=r"video torn\.mp4 cannot be read"):
        VideosSource(tmp_path, None).read("train", "torn")
