"""Which frames are trained on, where a transforms.json says so."""

import json

import numpy as np
import pytest

from dfm_jax.data.builders import transforms_splits
from dfm_jax.data.loading import dataset
from dfm_jax.errors import Rejected
from tests import captures_source
from tests.test_capture_cameras import convert

FRAMES = [f"images/{i}.png" for i in range(8)]
TRAIN, VAL, TEST = FRAMES[:5], FRAMES[5:6], FRAMES[6:]


def lists(train=None, val=None, test=None):
    named = {"train_filenames": train, "val_filenames": val, "test_filenames": test}
    return {key: value for key, value in named.items() if value is not None}


@pytest.mark.parametrize("holdout", ["--holdout=2", "--holdout=0", "--image_size=16"])
def test_the_file_says_what_is_held_out(tmp_path, capsys, holdout):
    captures_source.write_transforms(tmp_path / "source" / "a", captures_source.arc(8), **lists(TRAIN, VAL, TEST))
    captures_source.write_transforms(tmp_path / "source" / "b", captures_source.arc(8))
    convert(capsys, "transforms", tmp_path / "source", tmp_path, "--name=d", holdout)
    data = dataset.open_dataset(tmp_path, "d", "train")
    assert np.flatnonzero(data.held_out(0)).tolist() == [5, 6, 7]
    rule = {"--holdout=2": [1, 3, 5, 7], "--holdout=0": [], "--image_size=16": [4]}[holdout]
    assert np.flatnonzero(data.held_out(1)).tolist() == rule
    assert data.num_training_frames.tolist() == [5, 8 - len(rule)]
    assert data.scene(0).attributes["file_splits"] == {"validation": VAL, "test": TEST}


def test_frames_of_no_split_are_listed(tmp_path, capsys):
    captures_source.write_transforms(
        tmp_path / "source", captures_source.arc(8), **lists(TRAIN[1:], VAL, [*TEST, "images/9.png"])
    )
    summary, (line,) = convert(capsys, "transforms", tmp_path / "source", tmp_path, "--name=d", "--holdout=0")
    assert summary["frames"] == 7 and line["frame"] == FRAMES[0] and "neither in train_filenames" in line["reason"]
    data = dataset.open_dataset(tmp_path, "d", "train")
    assert np.flatnonzero(data.held_out(0)).tolist() == [4, 5, 6]  # of those that are left
    assert any("images/9.png" in warning for warning in data.scene(0).attributes["warnings"])


OTHERWISE = {
    "slashes": lambda name: name.replace("/", "\\"),
    "dot": lambda name: f"./{name}",
    "absolute": lambda name: f"/home/someone/capture/{name}",
    "file alone": lambda name: name.removeprefix("images/"),
    "no suffix": lambda name: name.removesuffix(".png"),
    "another suffix": lambda name: name.replace(".png", ".JPG"),
    "folder of reduced copies": lambda name: f"../capture/{name}",
}


@pytest.mark.parametrize("way", OTHERWISE)
def test_names_may_be_written_otherwise(way):
    listed = lists(*(list(map(OTHERWISE[way], names)) for names in (TRAIN, VAL, TEST)))
    assert transforms_splits.read(listed, FRAMES) == transforms_splits.read(lists(TRAIN, VAL, TEST), FRAMES)


@pytest.mark.parametrize(
    ("listed", "held_out", "unused"),
    [
        (lists(TRAIN, VAL, TEST), [5, 6, 7], []),
        (lists(TRAIN), [5, 6, 7], []),
        (lists(TRAIN, val=VAL), [5], [6, 7]),
        (lists(test=TEST), [6, 7], []),
        (lists(val=VAL, test=TEST), [5, 6, 7], []),
        (lists(val=[]), [], []),
        (lists(FRAMES, test=TEST), [6, 7], []),
        (lists([], test=FRAMES), list(range(8)), []),
    ],
)
def test_frames_of_some_lists_and_of_none(listed, held_out, unused):
    splits = transforms_splits.read(listed, FRAMES)
    assert [i for i, name in enumerate(FRAMES) if splits.held_out.get(name)] == held_out
    assert [i for i, name in enumerate(FRAMES) if name in splits.unused] == unused
    assert splits.held_out.keys() | splits.unused.keys() == set(FRAMES)


def test_lists_that_are_no_splits_are_warned_of():
    splits = transforms_splits.read(lists(FRAMES, test=FRAMES), FRAMES)
    assert not splits.held_out and "none counts" in splits.warnings[0]
    (warning,) = transforms_splits.read(lists(FRAMES[:6], test=FRAMES[5:]), FRAMES).warnings
    assert "1 of train_filenames are also in another list" in warning and FRAMES[5] in warning
    two = ["a/0.png", "b/0.png"]
    splits = transforms_splits.read(lists(["0.png", "c/9.png"]), two)
    assert "2 names that are of no one frame: 0.png, c/9.png" in splits.warnings[0] and all(splits.held_out.values())
    assert transforms_splits.read({}, FRAMES) == transforms_splits.Splits({})


@pytest.mark.parametrize("listed", ["images/0.png", [1, 2], {"a": 1}, True])
def test_lists_of_anything_else_are_refused(listed):
    with pytest.raises(Rejected, match="no list of names"):
        transforms_splits.read({"val_filenames": listed}, FRAMES)


def test_data_sets_that_state_nothing_are_read_as_before(tmp_path, capsys):
    captures_source.write_transforms(tmp_path / "source", captures_source.arc(8))
    convert(capsys, "transforms", tmp_path / "source", tmp_path, "--name=d", "--holdout=4")
    index = dataset.read_index(tmp_path, "d")
    assert index["splits"]["train"].pop("held_out") == [None]
    new = dataset.open_dataset(tmp_path, "d", "train")
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(index))
    old = dataset.open_dataset(tmp_path, "d", "train")
    assert old.stated == new.stated and old.held_out(0).tolist() == new.held_out(0).tolist()
