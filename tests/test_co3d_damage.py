"""The CO3D importer on annotations that are damaged: a reason in the quarantine, or one error."""

import gzip
import json
import pathlib

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from dfm_jax.data.builders import co3d_annotations
from dfm_jax.errors import Rejected
from tests.co3d_source import HEIGHT, WIDTH, convert, frame_record, write_category, write_jgz, write_json


def change(**values):
    def damage(records):
        records[2].update(values)

    return damage


def change_viewpoint(**values):
    def damage(records):
        records[2]["viewpoint"].update(values)

    return damage


def without(key):
    def damage(records):
        del records[2][key]

    return damage


IMAGE = "apple/a/images/frame000003.jpg"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without("image"), "annotation lacks 'image'"),
        (without("frame_number"), "annotation lacks 'frame_number'"),
        (change(viewpoint=None), "no viewpoint"),
        (change(viewpoint=[1, 2]), "cannot be understood"),
        (change(frame_number="three"), "cannot be understood"),
        (change(image={"path": IMAGE}), "annotation lacks 'size'"),
        (change(image={"path": IMAGE, "size": [WIDTH, HEIGHT]}), "annotation says"),
        (change(image={"path": IMAGE, "size": [0, 18]}), "image size"),
        (change(image={"path": "apple/../../etc/passwd", "size": [HEIGHT, WIDTH]}), "does not lie below"),
        (change(image={"path": "/etc/passwd", "size": [HEIGHT, WIDTH]}), "does not lie below"),
        (change(image={"path": "apple/a/\0", "size": [HEIGHT, WIDTH]}), "does not lie below"),
        (change(image={"path": "apple/a/" + 400 * "x", "size": [HEIGHT, WIDTH]}), "is missing"),
        (change(image={"path": "apple/a/images/missing.jpg", "size": [HEIGHT, WIDTH]}), "is missing"),
        (change(mask={"path": "apple/../../mask.png"}), "does not lie below"),
        (change(depth={"path": "/depth.png"}), "does not lie below"),
        (change_viewpoint(R=[[1, 0, 0], [0, 1, 0]]), "R has shape"),
        (change_viewpoint(R=np.diag([1, 1, -1]).tolist()), "determinant -1"),
        (change_viewpoint(R=np.diag([1, 2, 1]).tolist()), "not orthonormal"),
        (change_viewpoint(T=[0, float("nan"), 1]), "not finite"),
        (change_viewpoint(T=[0, 10**400, 1]), "cannot be understood"),
        (change_viewpoint(focal_length=[0, 1]), "focal length"),
        (change_viewpoint(focal_length="wide"), "cannot be understood"),
        (change_viewpoint(intrinsics_format="screen"), "intrinsics_format 'screen'"),
        (lambda records: records.__setitem__(2, ["a", 2]), "names no sequence"),
    ],
)
def test_a_bad_frame_is_quarantined_alone(tmp_path, capsys, damage, reason):
    write_category(tmp_path / "source", "apple", "ab", damage=damage)
    code, counts, listing, _ = convert(capsys, tmp_path / "source", tmp_path / "data")
    assert code == 0 and counts == (2, 9, 0, 1)
    assert reason in listing[0]["reason"] and listing[0]["scene"] == "apple-a"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def deeply_nested(path):
    path.write_bytes(gzip.compress(b"[" * 100_000))


def not_gzipped(path):
    path.write_bytes(gzip.decompress(path.read_bytes()))


def an_object(path):
    write_jgz(path, {"frames": []})


@pytest.mark.parametrize("spoil", [truncate, deeply_nested, not_gzipped, an_object, pathlib.Path.unlink])
@pytest.mark.parametrize("file", ["frame_annotations.jgz", "sequence_annotations.jgz"])
def test_a_category_without_annotations_is_quarantined(tmp_path, capsys, file, spoil):
    write_category(tmp_path / "source", "apple", "a")
    spoil(write_category(tmp_path / "source", "vase", "b") / file)
    code, counts, listing, _ = convert(capsys, tmp_path / "source", tmp_path / "data")
    assert code == 0 and counts == (1, 5, 1, 0)
    assert listing[0]["scene"].startswith("vase") and f"vase/{file}" in listing[0]["reason"]


@pytest.mark.parametrize("contents", [[1, 2], {"train": 3}, {"train": [["a"]]}, {"train": [["a", "0", "x"]]}])
def test_held_out_sequences_do_not_become_training_data_with_a_broken_set_list(tmp_path, capsys, contents):
    write_json(write_category(tmp_path / "source", "apple", "a") / "set_lists.json", contents)
    code, _, listing, errors = convert(capsys, tmp_path / "source", tmp_path / "data")
    assert code == 1 and "set_lists.json" in listing[0]["reason"] and errors.count("error: ") == 1


@pytest.mark.parametrize("records", [[], [7], [{"sequence_name": ["a"]}], [{"category": "apple"}]])
def test_sequences_without_names_are_quarantined(tmp_path, capsys, records):
    write_jgz(write_category(tmp_path / "source", "apple", "a") / "sequence_annotations.jgz", records)
    code, _, listing, _ = convert(capsys, tmp_path / "source", tmp_path / "data")
    assert code == 1 and "sequence_annotations.jgz" in listing[0]["reason"]


SCALARS = strategies.sampled_from([None, True, -1, 0, 3, 1e400, float("nan"), 10**400, "", "..", "a/b/c", "x" * 500])
VALUES = strategies.recursive(SCALARS, lambda inner: strategies.lists(inner, max_size=4), max_leaves=6)


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(strategies.data())
def test_records_of_any_contents_are_parsed_or_rejected(data):
    record = frame_record("apple", "a", 1, depth=True)
    for _ in range(data.draw(strategies.integers(1, 3))):
        inner = record
        while isinstance(inner[key := data.draw(strategies.sampled_from(sorted(inner)))], dict) and data.draw(
            strategies.booleans()
        ):
            inner = inner[key]
        inner[key] = data.draw(VALUES)
    try:
        parsed = co3d_annotations.parse_frame(json.loads(json.dumps(record)))
    except Rejected:
        return
    assert (
        parsed.camera_to_world.shape == (4, 4) and parsed.intrinsics.shape == (3, 3) and ".." not in parsed.image.parts
    )
