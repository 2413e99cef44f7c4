"""Frames and quarantined frames together are what was there: in every format, also where a scene is refused."""

import json
import shutil

import numpy as np
import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders import photos
from dfm_jax.data.builders.source import Rejected
from tests import captures_source, co3d_source, realestate10k_source
from tests.captures_source import arc, pose, write_colmap, write_middlebury, write_transforms
from tests.realestate10k_source import write_clip

FRAMES = 6  # of each of two scenes, `good` and `hurt`


WRITERS = {
    "transforms": write_transforms,
    "colmap": write_colmap,
    "colmap text": lambda folder, poses: write_colmap(folder, poses, text=True),
    "middlebury": write_middlebury,
}


class Made:
    """A source of two scenes in some format, of which one can be hurt."""

    def __init__(self, source_format, root, write):
        self.format, self.root = source_format, root
        for name in ("good", "hurt"):
            write(root / name, arc(FRAMES))
        self.pictures = sorted((root / "hurt").rglob("*.png"))

    def replace_cameras(self, poses):
        shutil.rmtree(self.root / "hurt")
        WRITERS[self.format](self.root / "hurt", poses)


class MadeClips(Made):
    def __init__(self, source_format, root, write):
        self.format, self.root = source_format, root
        write_clip(root, "good", FRAMES)
        self.cameras, hurt = write_clip(root, "hurt", FRAMES, number=1)
        self.pictures = sorted(hurt.glob("*.jpg"))

    def replace_cameras(self, poses):
        for number, camera_to_world in enumerate(poses):
            columns = dict(enumerate(np.linalg.inv(camera_to_world)[:3].ravel().tolist(), start=7))
            line = realestate10k_source.camera_line(number, columns)
            realestate10k_source.replace_line(self.cameras, number + 1, line)


class MadeSequences(Made):
    def __init__(self, source_format, root, write):
        self.format, self.root = source_format, root
        self._write()

    def _write(self, damage=None):
        folder = co3d_source.write_category(self.root, "apple", ["good", "hurt"], num_frames=FRAMES, damage=damage)
        self.pictures = sorted((folder / "hurt" / "images").iterdir())

    def replace_cameras(self, poses):
        def damage(records):
            hurt = [record for record in records if record["sequence_name"] == "hurt"]
            for record, camera_to_world in zip(hurt, poses, strict=True):
                viewpoint = record["viewpoint"]
                viewpoint["R"] = (camera_to_world[:3, :3] @ np.diag([-1.0, -1, 1])).tolist()
                viewpoint["T"] = (-camera_to_world[:3, 3] @ np.array(viewpoint["R"])).tolist()

        self._write(damage)


MAKERS = {**dict.fromkeys(WRITERS, Made), "realestate10k": MadeClips, "co3d": MadeSequences}


def nothing(made):
    return 0


def one_picture_missing(made):
    made.pictures[2].unlink()


def one_picture_torn(made):
    made.pictures[2].write_bytes(made.pictures[2].read_bytes()[:50])


def too_few_pictures(made):
    for path in made.pictures[2:]:
        path.unlink()


def hardly_any_picture(made):
    for path in made.pictures[1:]:
        path.unlink()


def no_picture(made):
    for path in made.pictures:
        path.unlink()


def one_camera_scaled(made):
    poses = arc(FRAMES)
    poses[3, :3, :3] *= 2
    made.replace_cameras(poses)


def all_cameras_mirrored(made):
    made.replace_cameras(arc(FRAMES) @ np.diag([-1.0, 1, 1, 1]))


def all_cameras_at_one_place(made):
    made.replace_cameras(np.stack([arc(FRAMES)[0]] * FRAMES))


def one_camera_far_away(made):
    made.replace_cameras(np.stack([*arc(FRAMES - 1), pose(0.1, 1e5)]))


def one_picture_twice(made):
    shutil.copy(made.pictures[0], made.pictures[5])


DAMAGES = (
    nothing,
    one_picture_missing,
    one_picture_torn,
    too_few_pictures,
    hardly_any_picture,
    no_picture,
    one_camera_scaled,
    all_cameras_mirrored,
    all_cameras_at_one_place,
    one_camera_far_away,
    one_picture_twice,
)


def counted(summary):
    return summary["frames"] + summary["quarantined_frames"]


def quarantined(summary, scene="hurt"):
    with open(summary["quarantine"]) as file:
        return [line for line in map(json.loads, file) if scene in line["scene"] and line["frame"] is not None]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", MAKERS)
def test_frames_and_quarantined_frames_are_what_was_there(tmp_path, capsys, kind, damage):
    made = MAKERS[kind](kind, tmp_path / "source", WRITERS.get(kind))
    damage(made)
    options = [f"--source={tmp_path / 'source'}", f"--data_dir={tmp_path}", "--name=d", "--num_workers=1"]
    assert prepare.main([f"--format={kind.split()[0]}", *options]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert counted(summary) == 2 * FRAMES
    lines = quarantined(summary)
    assert len({line["frame"] for line in lines}) == len(lines) == summary["quarantined_frames"]
    missing = [line["reason"] for line in lines if "image is missing" in line["reason"]]
    assert len(missing) >= 6 - len(list(filter(lambda path: path.exists(), made.pictures)))
    assert all("looked for" in reason for reason in missing if not reason.startswith("its scene"))


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
    assert counted(json.loads(capsys.readouterr().out.splitlines()[-1])) == 3 * FRAMES
