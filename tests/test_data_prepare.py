"""Conversion: everything usable is stored, everything else is listed with its reason, and nothing half."""

import json
from pathlib import Path

import numpy as np
import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import dataset
from dfm_jax.data.preparing import building
from tests.realestate10k_source import camera_line, picture, replace_line, timestamp, write_clip


def run(capsys, *options):
    """Exit code, standard output's last line (parsed where it is JSON) and standard error of the command."""
    code = prepare.main(list(options))
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    return code, json.loads(lines[-1]) if lines else None, captured.err


def convert(capsys, tmp_path, *options):
    return run(
        capsys, "--format=realestate10k", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path / 'data'}", *options
    )


def quarantined(summary):
    with open(summary["quarantine"]) as file:
        return [json.loads(line) for line in file]


def stored(tmp_path, scene, split="train"):
    """Pictures of a scene by the names of its frames, in order."""
    data = dataset.open_dataset(tmp_path / "data", "realestate10k", split)
    record = data.scene(scene)
    return {name: data.image(record, i, 18) for i, name in enumerate(record.frame_names)}


def assert_shows(image, number):
    """The middle of the picture of that number; two different ones differ by 0.3 on average."""
    square = np.asarray(picture(number).crop((7, 0, 25, 18)), np.float32) / 255
    assert np.abs(image - square).mean() < 0.04


def test_a_clean_source_is_stored_completely(tmp_path, capsys):
    for number, (name, split) in enumerate([("a", "train"), ("b", "train"), ("c", "test")]):
        write_clip(tmp_path / "source", name, 5 + number, split, number)
    code, summary, _ = convert(capsys, tmp_path)
    counts = {"scenes": 3, "frames": 18, "quarantined_scenes": 0, "quarantined_frames": 0}
    assert code == 0 and summary.items() >= counts.items()
    assert summary["splits"] == {"train": 2, "test": 1} and quarantined(summary) == []
    train = dataset.open_dataset(tmp_path / "data", "realestate10k", "train")
    assert train.names == ("a", "b") and train.num_frames == (5, 6)
    for number, scene in enumerate(map(train.scene, range(2))):  # frames belong to their scenes, in order
        for frame in range(scene.num_frames):
            assert_shows(train.image(scene, frame, 18), 100 * number + frame)
            assert scene.frame_names[frame] == str(timestamp(frame))


# Ways to damage one frame of a clip


def unreadable_image(cameras, folder):
    (folder / f"{timestamp(3)}.jpg").write_bytes(b"this is no picture")


def truncated_image(cameras, folder):
    path = folder / f"{timestamp(3)}.jpg"
    path.write_bytes(path.read_bytes()[:-60])


def missing_image(cameras, folder):
    (folder / f"{timestamp(3)}.jpg").unlink()


def image_of_another_size(cameras, folder):
    picture(0, (20, 18)).save(folder / f"{timestamp(3)}.jpg")


def too_few_columns(cameras, folder):
    replace_line(cameras, 4, " ".join(camera_line(3).split()[:12]))


def a_word_among_the_numbers(cameras, folder):
    replace_line(cameras, 4, camera_line(3, {8: "left"}))


def nan_pose(cameras, folder):
    replace_line(cameras, 4, camera_line(3, {10: "nan"}))


def skewed_rotation(cameras, folder):
    replace_line(cameras, 4, camera_line(3, {7: 1.2}))


def no_focal_length(cameras, folder):
    replace_line(cameras, 4, camera_line(3, {1: 0.0}))


def lens_distortion(cameras, folder):
    replace_line(cameras, 4, camera_line(3, {5: 0.1}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (unreadable_image, "image does not decode"),
        (truncated_image, "image does not decode"),
        (missing_image, "is missing"),
        (image_of_another_size, "20x18 pixels"),
        (too_few_columns, "12 columns, not 19"),
        (a_word_among_the_numbers, "could not convert"),
        (nan_pose, "pose is not finite"),
        (skewed_rotation, "not orthonormal"),
        (no_focal_length, "focal length"),
        (lens_distortion, "distortion"),
    ],
)
def test_a_bad_frame_is_quarantined_alone(tmp_path, capsys, damage, reason):
    damage(*write_clip(tmp_path / "source", "a", 8))
    write_clip(tmp_path / "source", "b", 8, number=1)
    code, summary, errors = convert(capsys, tmp_path)
    counts = {"scenes": 2, "frames": 15, "quarantined_scenes": 0, "quarantined_frames": 1}
    assert code == 0 and summary.items() >= counts.items()
    (entry,) = quarantined(summary)
    assert entry["scene"] == "a" and entry["split"] == "train" and reason in entry["reason"]
    assert entry["frame"] in (str(timestamp(3)), "line 5")
    assert summary["quarantine"] in errors
    hurt, whole = stored(tmp_path, 0), stored(tmp_path, 1)
    assert list(hurt) == [str(timestamp(i)) for i in range(8) if i != 3]
    assert list(whole) == [str(timestamp(i)) for i in range(8)]
    for number, pictures in enumerate((hurt, whole)):
        assert_shows(pictures[str(timestamp(5))], 100 * number + 5)


def no_folder(cameras, folder):
    folder.rename(folder.parent.parent / "elsewhere")


def too_few_frames(cameras, folder):
    cameras.write_text("\n".join(cameras.read_text().splitlines()[:3]))


def no_frames_at_all(cameras, folder):
    cameras.write_text(cameras.read_text().splitlines()[0])


def no_text_at_all(cameras, folder):
    cameras.write_bytes(b"\xff\xfe\x00\x80")


@pytest.mark.parametrize(
    ("damage", "reason", "frames"),
    [
        (no_folder, "no folder of frames named hurt", 0),
        (too_few_frames, "too few frames: 2 of 2 usable, 3 needed", 2),
        (no_frames_at_all, "lists no frame", 0),
        (no_text_at_all, "cannot be read", 0),
    ],
)
def test_a_bad_scene_is_quarantined_alone(tmp_path, capsys, damage, reason, frames):
    write_clip(tmp_path / "source", "good", 8)
    damage(*write_clip(tmp_path / "source", "hurt", 8, number=1))
    code, summary, _ = convert(capsys, tmp_path)
    counts = {"scenes": 1, "frames": 8, "quarantined_scenes": 1, "quarantined_frames": frames}
    assert code == 0 and summary.items() >= counts.items()
    *of_frames, entry = quarantined(summary)
    assert entry["scene"] == "hurt" and entry["frame"] is None and reason in entry["reason"]
    assert all(reason in line["reason"] for line in of_frames)


def test_a_scene_that_loses_too_many_frames_is_quarantined_with_them(tmp_path, capsys):
    write_clip(tmp_path / "source", "good", 8)
    _, folder = write_clip(tmp_path / "source", "hurt", 4, number=1)
    for frame in (0, 2):
        (folder / f"{timestamp(frame)}.jpg").unlink()
    _, summary, _ = convert(capsys, tmp_path)
    counts = {"scenes": 1, "frames": 8, "quarantined_scenes": 1, "quarantined_frames": 4}
    assert summary.items() >= counts.items()
    assert "2 of 4 usable" in quarantined(summary)[-1]["reason"]


def test_min_frames_is_an_option(tmp_path, capsys):
    write_clip(tmp_path / "source", "long", 8)
    write_clip(tmp_path / "source", "short", 5, number=1)
    _, summary, _ = convert(capsys, tmp_path, "--min_frames=6")
    assert (summary["scenes"], summary["quarantined_scenes"]) == (1, 1)


def test_image_size_reduces_what_is_stored(tmp_path, capsys):
    write_clip(tmp_path / "source", "a")
    convert(capsys, tmp_path, "--image_size=12", "--name=small")
    data = dataset.open_dataset(tmp_path / "data", "small", "train")
    scene = data.scene(0)
    assert data.stored_size(scene) == 12
    expected = np.asarray(picture(2).crop((7, 0, 25, 18)).resize((12, 12)), np.float32) / 255
    assert np.abs(data.image(scene, 2, 12) - expected).mean() < 0.04


def test_a_source_that_does_not_exist_is_one_error(tmp_path, capsys):
    code, summary, errors = convert(capsys, tmp_path)
    assert code == 1 and summary is None
    assert errors == f"error: --source={tmp_path / 'source'} is not a folder\n"


def test_a_source_without_camera_files_is_one_error(tmp_path, capsys):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "readme.txt").write_text("nothing here")
    code, summary, errors = convert(capsys, tmp_path)
    assert code == 1 and summary is None
    assert errors.startswith("error: no RealEstate10K camera files") and errors.count("\n") == 1


def test_a_source_without_a_usable_scene_is_one_error_and_its_reasons_are_kept(tmp_path, capsys):
    no_folder(*write_clip(tmp_path / "source", "hurt"))
    code, summary, errors = convert(capsys, tmp_path)
    assert code == 1 and summary is None
    assert "error: no scene could be used: 1 scenes and 0 frames were rejected" in errors
    assert "no folder of frames" in errors
    assert not dataset.exists(tmp_path / "data", "realestate10k")
    assert "no folder" in (tmp_path / "data" / "realestate10k.quarantine.jsonl").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format=toy", "--data_dir=D", "--source=S"], "makes its own scenes"),
        (["--format=realestate10k", "--data_dir=D"], "needs --source"),
        (["--format=realestate10k", "--data_dir=D", "--source=S", "--seed=0"], "belongs to --format=shapes or toy"),
        (["--format=kitti", "--data_dir=D"], "choose from"),
        (["--format=photos", "--data_dir=D", "--source=S", "--best=3"], "--best belongs to --format=co3d"),
        (["--format=co3d", "--data_dir=D", "--source=S", "--best=0"], "--best must be at least 1"),
        (["--format=toy"], "--data_dir"),
        (["--format=toy", "--data_dir=D", "--num_scenes=0"], "--num_scenes must be at least 1"),
        (["--format=toy", "--data_dir=D", "--image_size=big"], "invalid int value"),
        (["--format=toy", "--data_dir=D", "--num_workers=0"], "--num_workers must be at least 1"),
        (["--format=toy", "--data_dir=D", "--beam_options=--x=1"], "--beam_options belongs to --runner"),
        (["--format=toy", "--data_dir=D", "--runner=R", "--num_workers=2"], "--num_workers is for this machine"),
        (["--format=toy", "--data_dir=D", "--name=a/b"], "neither hidden nor a path"),
        (["--format=toy", "--data_dir=D", "--name=.."], "neither hidden nor a path"),
        (["--format=toy", "--data_dir=D", "--frames=3"], "--frames=3"),
    ],
)
def test_wrong_options_are_one_error(tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, summary, errors = run(capsys, *options)
    assert code == 1 and summary is None
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_data_dir_that_cannot_be_made_is_one_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _, errors = run(capsys, "--format=toy", f"--data_dir={tmp_path / 'file' / 'data'}", "--num_scenes=1")
    assert code == 1 and errors.startswith("error: cannot write to ")


def toy(tmp_path, *options):
    return ["--format=toy", f"--data_dir={tmp_path}", "--num_scenes=3", "--image_size=4", *options]


def test_an_existing_data_set_is_replaced_only_when_told(tmp_path, capsys):
    assert run(capsys, *toy(tmp_path))[0] == 0
    before = dataset.open_dataset(tmp_path, "toy", "train").scene(0).attributes
    code, _, errors = run(capsys, *toy(tmp_path, "--seed=5"))
    assert code == 1 and "exists already; give --overwrite" in errors
    assert dataset.open_dataset(tmp_path, "toy", "train").scene(0).attributes == before
    assert run(capsys, *toy(tmp_path, "--seed=5", "--overwrite"))[0] == 0
    assert dataset.open_dataset(tmp_path, "toy", "train").scene(0).attributes != before


def test_killed_between_two_renames_the_data_set_of_before_is_there_again(tmp_path, capsys, monkeypatch):
    assert run(capsys, *toy(tmp_path))[0] == 0
    rename = Path.rename

    def killed(path, target):
        if path.name != "toy":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "rename", killed)
        patch.setattr(building.shutil, "rmtree", lambda *_, **__: None)  # a killed program tidies nothing
        prepare.main(toy(tmp_path, "--seed=5", "--overwrite"))
    assert not dataset.exists(tmp_path, "toy")
    assert "exists already; give --overwrite" in run(capsys, *toy(tmp_path, "--seed=6"))[2]
    assert dataset.exists(tmp_path, "toy")


def test_a_source_without_use_replaces_neither_data_set_nor_quarantine_file(tmp_path, capsys):
    no_folder(*write_clip(tmp_path / "source", "hurt"))
    listed = tmp_path / "data" / "toy.quarantine.jsonl"
    assert run(capsys, *toy(tmp_path / "data"))[0] == 0
    source = f"--source={tmp_path / 'source'}"
    command = ["--format=realestate10k", source, f"--data_dir={tmp_path / 'data'}", "--name=toy", "--overwrite"]
    code, _, errors = run(capsys, *command)
    reasons = tmp_path / "data" / "toy.failed.jsonl"
    assert code == 1 and f"All reasons: {reasons}" in errors and "no folder of frames" in reasons.read_text()
    assert listed.read_text() == "" and len(dataset.open_dataset(tmp_path / "data", "toy", "train")) > 0


def test_a_folder_that_is_no_data_set_is_never_replaced(tmp_path, capsys):
    """Such as a source that bears the data set's name."""
    cameras, _ = write_clip(tmp_path / "realestate10k", "a")
    source = f"--source={tmp_path / 'realestate10k'}"
    code, _, errors = run(capsys, "--format=realestate10k", source, f"--data_dir={tmp_path}", "--overwrite")
    assert code == 1 and "is no data set, so it will not be replaced" in errors
    assert cameras.is_file()


def test_a_split_without_a_usable_scene_is_left_out(tmp_path, capsys):
    write_clip(tmp_path / "source", "good", split="test")
    no_folder(*write_clip(tmp_path / "source", "hurt"))
    code, summary, _ = convert(capsys, tmp_path)
    assert code == 0 and summary["splits"] == {"test": 1}
    assert len(stored(tmp_path, 0, "test")) == 8


def test_a_failed_preparation_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(self, split, name):
        raise RuntimeError("the importer has a bug")

    monkeypatch.setattr(procedural.ToySource, "read", fail)
    with pytest.raises(RuntimeError, match="has a bug"):
        prepare.main(toy(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [".toy.lock"]
