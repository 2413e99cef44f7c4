"""Index files: what they may say, what is skipped with a reason, and what is an error."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from configs import toy as toy_config
from dfm_jax.config import DataConfig
from dfm_jax.config.reading import from_dict
from dfm_jax.data import make_toy
from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError
from dfm_jax.evaluation import evaluation_index, index_layouts

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> DataConfig:
    values = toy_config.get_config("tiny")
    values.data.update(dir=str(tmp_path_factory.mktemp("data")), toy_scenes=4, num_threads=0, prefetch=1)
    return make_toy.ensure_toy(from_dict(values).data, image_size=8)


@pytest.fixture(scope="module")
def data(config):
    return pipeline.open_dataset(config.dir, config.name, config.eval_split)


def index_file(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def resolve(tmp_path, data, *examples):
    entries, _ = evaluation_index.read(index_file(tmp_path / "index.json", {"examples": list(examples)}))
    return evaluation_index.resolve(entries, data)


def test_a_protocol_that_was_stored_says_the_same_when_it_is_read(config, data, tmp_path):
    views = evaluation_views.evaluation_views(config, num_scenes=5)
    evaluation_index.write(tmp_path / "index.json", views, data, "a test")
    entries, skipped = evaluation_index.read(tmp_path / "index.json")
    again = evaluation_index.resolve(entries, data)
    assert not skipped and not again.skipped
    for (scene, draw), (other, same) in zip(views, again.views, strict=True):
        assert scene == other
        np.testing.assert_array_equal(draw.context, same.context)
        np.testing.assert_array_equal(draw.target, same.target)


def test_the_views_are_those_that_the_file_names(config, data, tmp_path):
    first, last = data.names[0], data.names[-1]
    one = {"scene": last, "context": [3, "05"], "target": [1, 2, 7]}
    two = {"scene": first, "context": [0], "target": ["06"]}
    views = resolve(tmp_path, data, one, two).views
    example = evaluation_views.load_views(config, views, image_size=8)
    scene = data.scene(len(data) - 1)
    for kind, frames in (("context", (3, 5)), ("target", (1, 2, 7))):
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(getattr(example, kind).images[0, i], data.image(scene, frame, 8))
    # The second has fewer views: the rest is padding.
    assert example.context.valid.tolist() == [[True, True], [True, False]]
    assert example.target.valid.tolist() == [[True] * 3, [True, False, False]]


def test_a_star_stands_for_every_scene(data, tmp_path):
    found = resolve(tmp_path, data, {"scene": "*", "context": [0], "target": [6]})
    assert [number for number, _ in found.views] == list(range(len(data)))


def test_what_cannot_be_had_is_skipped_with_its_reason(data, tmp_path):
    name = data.names[0]
    found = resolve(
        tmp_path,
        data,
        {"scene": name, "context": [0], "target": [6]},
        {"scene": "nowhere", "context": [0], "target": [6]},
        {"scene": name, "context": [0], "target": [13]},
        {"scene": name, "context": ["front"], "target": [6]},
        {"scene": name, "context": [6, 6], "target": [6]},
        {"scene": name, "context": [0], "target": [6, 6]},
        {"scene": name, "context": [-1], "target": [6]},
    )
    assert len(found.views) == 1
    reasons = [skip.reason for skip in found.skipped]
    assert reasons[0].startswith("split 'test' of") and reasons[0].endswith("has no such scene")
    assert reasons[1:] == [
        "target frame 13 is not among its 13",
        "context frame 'front' is not among its 13",
        "context frame 6 is named twice",
        "target frame 6 is named twice",
        "context frame -1 is not among its 13",
    ]


def test_pixelsplats_files_are_read(tmp_path):
    content = {"a": {"context": [1, 9], "target": [4, 5]}, "b": None}
    entries, skipped = evaluation_index.read(index_file(tmp_path / "index.json", content))
    assert entries == [evaluation_index.Entry("a", (1, 9), (4, 5))]
    assert skipped == [evaluation_index.Skipped("b", "the index file has no views of it", index_layouts.NONE_LISTED)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ([], "must hold an object with 'examples'"),
        ({}, "has no examples"),
        ({"examples": []}, "has no examples"),
        ({"examples": {}}, "must be a list"),
        ({"a": 3}, "must hold 'examples', or context and target frames by scene"),
        ({"examples": [3]}, "example 0 .* must be an object with 'scene'"),
        ({"examples": [{"scene": "a", "context": [], "target": [1]}]}, "example 0 .* 'context' must be a list"),
        ({"examples": [{"scene": "a", "context": [0], "target": [True]}]}, "example 0 .* 'target' must be a list"),
        ({"examples": [{"scene": "a", "context": [0]}]}, "'target' must be a list of frames .* None"),
    ],
)
def test_a_file_of_another_form_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        evaluation_index.read(index_file(tmp_path / "index.json", content))


def test_no_file_and_nothing_left_are_clear_errors(data, tmp_path):
    with pytest.raises(UserError, match=r"there is no index file .*nowhere\.json"):
        evaluation_index.read(tmp_path / "nowhere.json")
    with pytest.raises(UserError, match=r"none of the 1 examples .*\n  nowhere: split 'test' of"):
        resolve(tmp_path, data, {"scene": "nowhere", "context": [0], "target": [1]})


def test_an_index_file_that_was_stored_for_other_data_is_noticed(config, data, tmp_path):
    """Its scenes may have the names of others: toy scenes all have the same."""
    stored = tmp_path / "protocol.json"
    evaluation_index.write(stored, evaluation_views.evaluation_views(config, num_scenes=2), data, "evaluated in x")
    assert evaluation_index.changed_data(stored, data) == ""
    building.prepare(procedural.ToySource(4, 8, seed=1), tmp_path, "toy", posed_scenes.StoreOptions(0, 3))
    others = pipeline.open_dataset(tmp_path, "toy", "test")
    assert others.names == data.names and "other files" in evaluation_index.changed_data(stored, others)
    content = json.loads(stored.read_text())
    assert evaluation_index.changed_data(index_file(stored, content | {"fingerprint": None}), others) == ""
    with pytest.raises(UserError, match=r"'fingerprint' of the index file .* is none: remove it"):
        evaluation_index.changed_data(index_file(stored, content | {"fingerprint": {"scenes": 2}}), others)


def test_an_empty_split_is_one_clear_error(config, tmp_path):
    index = pathlib.Path(config.dir) / config.name / "dataset.json"
    content = json.loads(index.read_text())
    content["splits"]["none"] = {"names": [], "num_frames": []}
    copy = tmp_path / config.name
    copy.mkdir()
    (copy / "dataset.json").write_text(json.dumps(content))
    empty = dataclasses.replace(config, dir=str(tmp_path), eval_split="none")
    with pytest.raises(UserError, match=r"split 'none' of .* has no scenes"):
        evaluation_views.evaluation_views(empty, num_scenes=1)
    with pytest.raises(UserError, match=r"split 'none' of .* has no scenes"):
        data = pipeline.open_dataset(tmp_path, config.name, "none")
        resolve(tmp_path, data, {"scene": "*", "context": [0], "target": [1]})


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "protocols").glob("*.json")), ids=lambda path: path.stem)
def test_the_files_that_are_shipped_are_read(path):
    entries, skipped = evaluation_index.read(path)
    assert entries and not skipped
