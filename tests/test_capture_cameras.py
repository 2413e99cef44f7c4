"""Cameras of captures, in every format: few that are nowhere near, and models that lie side by side."""

import json
import shutil

import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders.colmap import ColmapSource
from tests.captures_source import (
    FOCAL,
    HEIGHT,
    WIDTH,
    arc,
    photograph,
    pose,
    write_colmap,
    write_middlebury,
    write_photographs,
    write_transforms,
)

WRITERS = {"transforms": write_transforms, "colmap": write_colmap, "middlebury": write_middlebury}


def convert(capsys, source_format, source, data_dir, *options):
    """The summary and the lines of the quarantine."""
    options = [f"--source={source}", f"--data_dir={data_dir}", "--num_workers=1", "--overwrite", *options]
    code = prepare.main([f"--format={source_format}", *options])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    with open(summary["quarantine"]) as file:
        lines = [json.loads(line) for line in file]
    assert code == 0
    return summary, lines


@pytest.mark.parametrize("source_format", WRITERS)
def test_a_camera_far_away_is_quarantined_by_name(tmp_path, capsys, source_format):
    poses = arc(8)
    poses[3] = pose(0.1, radius=500.0)
    WRITERS[source_format](tmp_path / "source", poses)
    summary, (line,) = convert(capsys, source_format, tmp_path / "source", tmp_path / "data")
    assert (summary["frames"], summary["quarantined_frames"], summary["warned_scenes"]) == (7, 1, 1)
    assert "3.png" in line["frame"] and "times as far" in line["reason"]


RAW = (2, "SIMPLE_RADIAL", (FOCAL, WIDTH / 2, HEIGHT / 2, -0.1))


def write_splatting(root, raw, undistorted, size=(WIDTH, HEIGHT)):
    """What 3D Gaussian splatting leaves: two models of so many images, and their folders of pictures, those of `images`
    of another size."""
    write_colmap(root, arc(raw), RAW, model="distorted/sparse/0", images="input")
    write_colmap(root, arc(undistorted), model="sparse/0", images="images")
    write_photographs(root / "images", arc(undistorted), size=size)
    return root


def pairing(root, capsys=None):
    source = ColmapSource(root, (0, 0, 0))
    (name,) = source.splits()["train"]
    scene = source.read("train", name)
    return scene.attributes["model"], scene.attributes["pictures"], scene


@pytest.mark.parametrize("counts", [(6, 4), (4, 6), (5, 5)])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (WIDTH - 4, HEIGHT - 3), (WIDTH - 4, HEIGHT)], ids=str)
def test_a_lens_is_never_laid_on_the_pictures_of_another(tmp_path, counts, size):
    write_splatting(tmp_path, *counts, size)
    pairs = {("distorted/sparse/0", "input"), ("sparse/0", "images")}
    assert pairing(tmp_path)[:2] in pairs
    for folder, expected in (("images", ("distorted/sparse/0", "input")), ("input", ("sparse/0", "images"))):
        shutil.move(tmp_path / folder, tmp_path / "away")
        assert pairing(tmp_path)[:2] == expected
        shutil.move(tmp_path / "away", tmp_path / folder)


def test_the_model_with_the_most_images_whose_pictures_are_there_is_taken_and_said(tmp_path, capsys):
    write_splatting(tmp_path, 4, 3)
    write_colmap(tmp_path, arc(7), RAW, model="distorted/sparse/1", images="input")
    model, pictures, scene = pairing(tmp_path)
    assert (model, pictures, len(scene.frames)) == ("distorted/sparse/1", "input", 7)
    assert scene.attributes["other_models"] == {"distorted/sparse/0": 4, "sparse/0": 3}
    said = capsys.readouterr().err
    assert "distorted/sparse/1 (7 images) is taken" in said and "sparse/0 (3 images)" in said
    (tmp_path / "input" / "9.png").write_bytes((tmp_path / "input" / "0.png").read_bytes())
    assert [name for name, _ in pairing(tmp_path)[2].rejected] == ["9.png"]
    for number in range(1, 7):
        (tmp_path / "input" / f"{number}.png").unlink()
    assert pairing(tmp_path)[:2] == ("sparse/0", "images")


def test_each_model_gets_the_folder_of_its_size(tmp_path):
    """Of two models of scaled copies without a custom for their names."""
    write_colmap(tmp_path, arc(5), model="sparse/0")
    write_photographs(tmp_path / "images", arc(5), size=(2 * WIDTH, 2 * HEIGHT))
    write_photographs(tmp_path / "images_small", arc(5))
    assert pairing(tmp_path)[:2] == ("sparse/0", "images_small")


def test_a_few_pictures_left_in_another_folder_do_not_decide(tmp_path):
    write_colmap(tmp_path, arc(8), RAW, model="sparse/0", images="images")
    (tmp_path / "input").mkdir()
    photograph(arc(8)[3]).save(tmp_path / "input" / "3.png")
    assert pairing(tmp_path)[:2] == ("sparse/0", "images")


def test_pictures_that_a_model_lacks_are_listed(tmp_path, capsys):
    write_colmap(tmp_path / "source", arc(8))
    write_colmap(tmp_path / "source", arc(5))
    (tmp_path / "source" / "images" / "more").mkdir()
    photograph(arc(8)[3]).save(tmp_path / "source" / "images" / "more" / "x.png")
    summary, lines = convert(capsys, "colmap", tmp_path / "source", tmp_path / "data")
    assert summary["frames"] == 5 and {line["frame"] for line in lines} == {"5.png", "6.png", "7.png", "more/x.png"}
    assert all("not in model sparse/0" in line["reason"] for line in lines)


@pytest.mark.parametrize("damage", ["images.bin", "points3D.bin"])
def test_pictures_of_a_damaged_model_are_listed(tmp_path, capsys, damage):
    write_colmap(tmp_path / "source" / "a")
    (write_colmap(tmp_path / "source" / "b", arc(4)) / damage).write_bytes(b"\1")
    summary, lines = convert(capsys, "colmap", tmp_path / "source", tmp_path / "data")
    assert summary["frames"] == 6 and summary["quarantined_frames"] == 4
    assert all(f"{damage} cannot be read" in line["reason"] for line in lines)


def test_a_split_of_nothing_but_far_cameras_is_refused_with_its_frames(tmp_path, capsys):
    write_transforms(tmp_path / "source", arc(12), file="transforms_train.json")
    far = [pose(angle, 500.0) for angle in (0.1, 0.2)]
    write_transforms(tmp_path / "source", far, file="transforms_test.json", pictures="test")
    summary, lines = convert(capsys, "transforms", tmp_path / "source", tmp_path / "data")
    assert summary["splits"] == {"train": 1} and (summary["frames"], summary["quarantined_frames"]) == (12, 2)
    assert "only 0 of 2 frames" in lines[-1]["reason"]
