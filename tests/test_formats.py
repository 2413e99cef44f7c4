"""Formats with a camera a picture: where points are seen, odd inputs, and that nothing is lost."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from dfm_jax.data import formats, prepare
from dfm_jax.data.loading import source_frames
from tests import format_sources
from tests.captures_source import BALLS
from tests.format_sources import WRITERS

COLOURS = np.array([[255, 0, 0], [0, 128, 0], [0, 0, 255], [255, 255, 0]])  # of the discs, in order


def source(kind, root, **options):
    args = prepare._parse([f"--format={kind}", f"--source={root}", "--data_dir=unused"])
    for name, value in options.items():
        setattr(args, name, value)
    return formats.make_source(args)


def scenes(kind, root, **options):
    found = source(kind, root, **options)
    return [found.read(split, name) for split, names in found.splits().items() for name in names]


def pixels(frame):
    return np.asarray(Image.open(io.BytesIO(frame.load())).convert("RGB"), np.float64)


def seen_at(image):
    """Places [4, 2] of the discs in a picture, as shares of it; NaN where most of one is hidden or cut off."""
    height, width, _ = image.shape
    places = []
    for colour in COLOURS:
        rows, columns = np.nonzero(np.abs(image - colour).max(-1) < 60)
        whole = len(rows) > 0.75 * np.pi * (0.04 * width) ** 2
        places.append([(columns.mean() + 0.5) / width, (rows.mean() + 0.5) / height] if whole else [np.nan] * 2)
    return np.array(places)


def projected(frame, scene, world):
    """Where a frame's camera has the balls; `world` takes them to the source's."""
    to_scene = np.linalg.inv(source_frames.to_source(scene.scale, scene.attributes))
    points = np.linalg.inv(frame.camera_to_world) @ to_scene @ world @ np.c_[BALLS, np.ones(len(BALLS))].T
    return (frame.intrinsics @ points[:3] / points[2]).T[:, :2]


@pytest.mark.parametrize("kind", WRITERS)
def test_known_points_are_seen_where_every_camera_has_them(tmp_path, kind):
    WRITERS[kind](tmp_path / "a")
    (scene,) = scenes(kind, tmp_path)
    assert not scene.rejected and len(scene.frames) >= 4
    found = 0
    for number, frame in enumerate(scene.frames):
        seen, expected = seen_at(pixels(frame)), projected(frame, scene, format_sources.WORLDS.get(kind, np.eye(4)))
        assert np.nanmax(np.abs(seen - expected)) < 0.011, (frame.name, seen, expected)  # half a pixel of 48
        found += np.isfinite(seen[:, 0]).sum()
        assert frame.number == number
    assert found >= 2 * len(scene.frames)


def convert(capsys, kind, root, out, *options):
    code = prepare.main([f"--format={kind}", f"--source={root}", f"--data_dir={out}", "--num_workers=1", *options])
    assert code == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    with open(summary["quarantine"]) as file:
        return summary, [json.loads(line) for line in file]
