"""Workdirs in a bucket."""

import pathlib

import numpy as np

from dfm_jax.runs import checkpoint_files, metric_writers, workdirs


def test_a_bucket_is_no_local_folder():
    assert str(checkpoint_files.directory_of("gs://bucket/run")) == "gs://bucket/run/checkpoints"
    assert workdirs.is_remote("gs://bucket/run") and not workdirs.is_remote("/runs/toy")
    assert workdirs.path_of("runs/toy") == pathlib.Path("runs/toy").absolute()
    assert workdirs.local_folder("gs://bucket/runs/toy") == pathlib.Path("toy")
    assert workdirs.local_folder("runs/toy") == pathlib.Path("runs/toy")


def test_numbers_and_pictures_go_where_files_are_written_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(metric_writers, "is_remote", lambda _: True)
    for start_step in (0, 1):  # a run in two parts
        writer = metric_writers.FolderWriter(tmp_path, start_step)
        for step in (1, 2) if start_step == 0 else (2, 3):
            writer.write_scalars(step, {"loss": float(start_step)})
        assert [line["step"] for line in metric_writers.read_metrics(tmp_path)] == [1, 2, 3][: 2 + start_step]
        writer.write_images(1, {"samples": np.zeros((2, 2, 3), np.uint8)})
        writer.close()
    assert [line["loss"] for line in metric_writers.read_metrics(tmp_path)] == [0, 1, 1]
    assert (tmp_path / "images" / "samples" / "00000001.png").stat().st_size > 0
