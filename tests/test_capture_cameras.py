"""Cameras of captures, in every format: few that are nowhere near, and models that lie side by side."""

import json

import pytest

from dfm_jax.data import prepare
from tests.captures_source import arc, pose, write_colmap, write_middlebury, write_transforms

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
