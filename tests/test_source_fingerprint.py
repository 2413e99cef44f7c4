"""A source that was changed is another one; one that was only converted is not."""

import os

import pytest

from dfm_jax.data.preparing.source_fingerprint import source_fingerprint


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "source"
    (root / "clip").mkdir(parents=True)
    (root / "clip" / "0.jpg").write_bytes(b"picture")
    (root / "cameras.txt").write_text("camera")
    (root / "nowhere.txt").symlink_to(root / "missing")
    (root / "circle").symlink_to(root)
    return root


def add_a_picture(root):
    (root / "clip" / "1.jpg").write_bytes(b"picture")


def remove_a_picture(root):
    (root / "clip" / "0.jpg").unlink()


def rename_a_picture(root):
    (root / "clip" / "0.jpg").rename(root / "clip" / "2.jpg")


def edit_a_file(root):
    (root / "cameras.txt").write_text("cameras")


def touch_a_file(root):
    os.utime(root / "cameras.txt", ns=(1, 1))


@pytest.mark.parametrize("change", [add_a_picture, remove_a_picture, rename_a_picture, edit_a_file, touch_a_file])
def test_a_change_is_noticed(source, tmp_path, change):
    before = source_fingerprint(source, tmp_path / "data")
    os.utime(source / "clip", ns=(0, 0))  # whose clock may be too coarse to tell what happens within one test
    assert before != (before := source_fingerprint(source, tmp_path / "data"))
    change(source)
    assert before != source_fingerprint(source, tmp_path / "data")


@pytest.mark.parametrize("inside", [".", "data"])
def test_writing_the_data_set_into_the_source_is_no_change(source, inside):
    data_dir = source / inside
    data_dir.mkdir(exist_ok=True)
    before = source_fingerprint(source, data_dir)
    (data_dir / ".name.incomplete").mkdir()
    (data_dir / ".name.incomplete" / "made_from.json").write_text("{}")
    (data_dir / "name.quarantine.jsonl").write_text("")
    assert before == source_fingerprint(source, data_dir)
    add_a_picture(source)
    assert before != source_fingerprint(source, data_dir)


def test_a_video_is_a_source(tmp_path):
    video = tmp_path / "walk.mp4"
    video.write_bytes(b"frames")
    before = source_fingerprint(video, tmp_path / "data")
    video.write_bytes(b"more frames")
    assert before != source_fingerprint(video, tmp_path / "data")
