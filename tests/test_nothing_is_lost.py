"""Frames and quarantined frames together are what was there: in every format, also where a scene is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data import prepare
from dfm_jax.data.builders import photos
from dfm_jax.data.loading import dataset
from dfm_jax.errors import Rejected
from tests import captures_source, co3d_source, format_sources, realestate10k_source
from tests.captures_source import arc, pose, write_colmap, write_middlebury, write_transforms
from tests.realestate10k_source import write_clip

FRAMES = 6  # of a scene


def _captures(write):
    def write_all(root, scenes):
        for name, poses in scenes.items():
            write(root / name, poses)
        return {
            name: sorted([*(root / name).rglob("*.png"), *(root / name).rglob("*.[jJ][pP][gG]")]) for name in scenes
        }

    return write_all


def _clips(root, scenes):
    pictures = {}
    for number, (name, poses) in enumerate(scenes.items()):
        cameras, folder = write_clip(root, name, FRAMES, number=number)
        pictures[name] = sorted(folder.glob("*.jpg"))
        for frame, camera_to_world in enumerate(poses):
            columns = dict(enumerate(np.linalg.inv(camera_to_world)[:3].ravel().tolist(), start=7))
            realestate10k_source.replace_line(cameras, frame + 1, realestate10k_source.camera_line(frame, columns))
    return pictures


def _sequences(root, scenes):
    def place(records):
        poses = {name: iter(poses) for name, poses in scenes.items()}
        for record in records:
            camera_to_world, viewpoint = next(poses[record["sequence_name"]]), record["viewpoint"]
            viewpoint["R"] = (camera_to_world[:3, :3] @ np.diag([-1.0, -1, 1])).tolist()
            viewpoint["T"] = (-camera_to_world[:3, 3] @ np.array(viewpoint["R"])).tolist()

    folder = co3d_source.write_category(root, "apple", list(scenes), num_frames=FRAMES, damage=place)
    return {name: sorted((folder / name / "images").iterdir()) for name in scenes}


WRITERS = {
    "transforms": _captures(write_transforms),
    "colmap": _captures(write_colmap),
    "middlebury": _captures(write_middlebury),
    "realestate10k": _clips,
    "co3d": _sequences,
}
# Without `llff`, whose scenes are refused where a picture is missing: there, cameras have no names.
OF_VIEWS = ("dl3dv", "mvsnet", "opensfm", "polycam", "record3d", "scannetpp", "srn", "zero123")
WRITERS |= {kind: _captures(format_sources.WRITERS[kind]) for kind in OF_VIEWS}


def with_camera_3(change):
    poses = arc(FRAMES)
    poses[3] = change(poses[3])
    return poses


CAMERAS = {
    "scaled": with_camera_3(lambda camera: camera @ np.diag([2.0, 2, 2, 1])),
    "mirrored": arc(FRAMES) @ np.diag([-1.0, 1, 1, 1]),
    "one-mirrored": with_camera_3(lambda camera: camera @ np.diag([-1.0, 1, 1, 1])),
    "one-place": np.stack([arc(FRAMES)[0]] * FRAMES),
    "far-away": with_camera_3(lambda camera: pose(0.1, 1e5)),
    "not-finite": with_camera_3(lambda camera: camera * np.nan),
}


def remove(first, last=FRAMES):
    return lambda pictures: [path.unlink() for path in pictures[first:last]]


PICTURES = {
    "whole": lambda pictures: None,
    "one-missing": remove(2, 3),
    "two-left": remove(2),
    "one-left": remove(1),
    "none-left": remove(0),
    "torn": lambda pictures: pictures[2].write_bytes(pictures[2].read_bytes()[:50]),
    "twice": lambda pictures: shutil.copy(pictures[0], pictures[5]),
    "black": lambda pictures: Image.new("RGB", Image.open(pictures[1]).size).save(pictures[1]),
}


def scene_of(name):
    return name.removeprefix("apple-").removesuffix("-temple")


@pytest.mark.parametrize("kind", WRITERS)
def test_frames_and_quarantined_frames_are_what_was_there(tmp_path, capsys, kind):
    poses = CAMERAS | dict.fromkeys(PICTURES, arc(FRAMES))
    pictures = WRITERS[kind](tmp_path / "source", poses)
    for name, damage in PICTURES.items():
        damage(pictures[name])
    options = [f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}", "--name=d", "--num_workers=1"]
    assert prepare.main([f"--format={kind}", *options]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    data = dataset.open_dataset(tmp_path, "d", "train")
    kept = {scene_of(name): number for name, number in zip(data.names, data.num_frames, strict=True)}
    with open(summary["quarantine"]) as file:
        lines = [line for line in map(json.loads, file) if line["frame"] is not None]
    assert summary["quarantined_frames"] == len(lines) and summary["frames"] == sum(kept.values())
    for name in poses:
        of_scene = {line["frame"]: line["reason"] for line in lines if scene_of(line["scene"]) == name}
        assert kept.get(name, 0) + len(of_scene) == FRAMES, (name, of_scene)
        missing = sum("image is missing: looked for" in reason for reason in of_scene.values())
        assert missing >= sum(not path.exists() for path in pictures[name])


def test_pictures_without_cameras_are_listed_where_no_cameras_are_found(tmp_path, monkeypatch):
    captures_source.write_photographs(tmp_path / "source", arc(FRAMES))

    def fail(*_):
        raise Rejected("structure-from-motion registered 2 of 6 pictures")

    (tmp_path / "source" / "0.png").write_bytes(b"torn")

    monkeypatch.setattr(photos.sfm, "reconstruct", fail)
    source = photos.PhotosSource(tmp_path / "source", tmp_path / "work", (0, 0, 0), 10)
    with pytest.raises(Rejected) as refused:
        source.read("train", "source")
    reasons = dict(refused.value.frames)
    assert len(reasons) == len(refused.value.frames) == FRAMES
    assert "does not decode" in reasons["0.png"] and "registered 2 of 6" in reasons["1.png"]


def test_records_of_sequences_that_are_not_listed_are_quarantined(tmp_path, capsys):
    def damage(records):
        records[0]["sequence_name"] = "unheard of"
        del records[1]["sequence_name"]

    co3d_source.write_category(tmp_path / "source", "apple", ["a", "b"], scores={"b": 1.0}, damage=damage)
    for options, frames in ([], 8), (["--best=1"], 5):  # of the second, the first sequence is none
        options = ["--overwrite", *options]
        _, counts, reasons, _ = co3d_source.convert(capsys, tmp_path / "source", tmp_path / "data", *options)
        assert len(reasons) == 2 and counts[1] == frames
        assert any("unheard of" in line["reason"] for line in reasons)


def test_a_splits_refusal_lists_frames(tmp_path, capsys):
    write_transforms(tmp_path / "source" / "good", arc(FRAMES))
    write_transforms(tmp_path / "source" / "hurt", arc(FRAMES), test_filenames=7)
    write_transforms(tmp_path / "source" / "hurt as well", arc(FRAMES), applied_scale=0)
    prepare.main(["--format=transforms", f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}", "--name=d"])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["frames"] + summary["quarantined_frames"] == 3 * FRAMES
