"""Frames keep the number that they have in their source: what is left out leaves a hole, and shifts nothing."""

import dataclasses
import itertools
import json
import logging
import pathlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from dfm_jax.config import DataConfig, ViewSamplingConfig
from dfm_jax.data.builders.realestate10k import RealEstate10KSource
from dfm_jax.data.inspecting import inspect_page, inspect_scene
from dfm_jax.data.loading import dataset, evaluation_views, pipeline
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError
from dfm_jax.evaluation import evaluation_index
from dfm_jax.studies.compared_evaluations import Evaluated, check_same_views
from tests.realestate10k_source import timestamp, write_clip

REAL = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "realestate10k"
BLACK, FRAMES = (0, 0, 0), 6
OPTIONS = posed_scenes.StoreOptions(image_size=0, min_frames=3)
SUBSETS = [removed for k in range(4) for removed in itertools.combinations(range(FRAMES), k)]
VIEWS = ViewSamplingConfig("realestate10k", 2, 3, 1, 1, num_target=2)


def config_of(directory, **changes):
    config = DataConfig(
        name="clips",
        dir=str(directory),
        split="train",
        eval_split="train",
        near=1,
        far=9,
        view_sampling=VIEWS,
        num_threads=0,
        prefetch=1,
    )
    return dataclasses.replace(config, **changes)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A clip of six frames for each set of up to three of them, without their pictures."""
    directory = tmp_path_factory.mktemp("clips")
    for removed in SUBSETS:
        _, folder = write_clip(directory / "source", "".join(map(str, removed)) or "whole", FRAMES)
        for frame in removed:
            (folder / f"{timestamp(frame)}.jpg").unlink()
    building.prepare(RealEstate10KSource(directory / "source"), directory, "clips", OPTIONS)
    return dataset.open_dataset(directory, "clips", "train")


def removed_of(name):
    return set() if name == "whole" else set(map(int, name))


def index_file(folder, content):
    path = folder / "index.json"
    path.write_text(json.dumps(content))
    return path


# --- index files


def test_no_set_of_missing_pictures_changes_which_one_an_index_entry_gives(clips):
    assert len(clips) == len(SUBSETS)
    for a in range(FRAMES):
        b = (a + 1) % FRAMES
        found = evaluation_index.resolve([evaluation_index.Entry("*", (a,), (b,))], clips)
        assert {clips.names[number] for number, _ in found.views} == {
            name for name in clips.names if not {a, b} & removed_of(name)
        }
        for number, draw in found.views:
            names = clips.scene(number).frame_names
            assert (names[draw.context[0]], names[draw.target[0]]) == (str(timestamp(a)), str(timestamp(b)))
        for skip in found.skipped:
            kind, frame = ("context", a) if a in removed_of(skip.scene) else ("target", b)
            name = timestamp(frame)
            assert skip.reason.startswith(f"{kind} frame {frame} ({name}) was quarantined: ")
            assert "image is missing" in skip.reason and str(name) in skip.reason
        assert len(found.views) + len(found.skipped) == len(clips)


def test_a_hole_that_is_asked_for_by_name_has_its_reason_too(clips):
    found = evaluation_index.resolve([evaluation_index.Entry("*", (str(timestamp(2)),), (0,))], clips)
    of_24 = next(skip for skip in found.skipped if skip.scene == "24")
    assert of_24.reason.startswith(f"context frame 2 ({timestamp(2)}) was quarantined: ")
    beyond = evaluation_index.resolve(
        [evaluation_index.Entry("*", (1,), (6,)), evaluation_index.Entry("*", (0,), (1,))], clips
    )
    assert "target frame 6 is not among its 6" in {skip.reason for skip in beyond.skipped}


def test_what_an_evaluation_stores_means_the_same_of_a_source_that_lost_other_pictures(clips, tmp_path):
    views = [
        (number, draw)
        for number, draw in evaluation_views.evaluation_views(config_of(clips.path.parent), num_scenes=20)
    ]
    evaluation_index.write(tmp_path / "index.json", views, clips, "evaluated in a run")
    again = evaluation_index.resolve(evaluation_index.read(tmp_path / "index.json")[0], clips)
    for (number, draw), (other, same) in zip(views, again.views, strict=True):
        assert number == other
        np.testing.assert_array_equal(np.append(draw.context, draw.target), np.append(same.context, same.target))
    stored = json.loads((tmp_path / "index.json").read_text())
    assert stored["frames"] == evaluation_index.NUMBERS
    for example, (number, draw) in zip(stored["examples"], views, strict=True):
        names = clips.scene(number).frame_names
        assert [str(timestamp(i)) for i in example["target"]] == [names[i] for i in draw.target]


def test_positions_that_earlier_versions_stored_are_not_taken_for_numbers(clips, tmp_path):
    stored = {"about": "evaluated in run", "data": "clips", "split": "train"}
    whole = {**stored, "examples": [{"scene": "whole", "context": [0], "target": [4]}]}
    ((number, draw),) = evaluation_index.resolve(evaluation_index.read(index_file(tmp_path, whole))[0], clips).views
    assert clips.names[number] == "whole" and draw.target.tolist() == [4]
    damaged = {**stored, "examples": [{"scene": "1", "context": [0], "target": [4]}]}
    with pytest.raises(UserError, match=r"scene 1 has lost 1 of its 6 frames.*evaluate without it"):
        evaluation_index.resolve(evaluation_index.read(index_file(tmp_path, damaged))[0], clips)
    said = {**damaged, "about": "", "frames": evaluation_index.POSITIONS}
    with pytest.raises(UserError, match="scene 1 has lost"):
        evaluation_index.resolve(evaluation_index.read(index_file(tmp_path, said))[0], clips)
    ours = {**damaged, "about": "written by hand"}
    ((_, draw),) = evaluation_index.resolve(evaluation_index.read(index_file(tmp_path, ours))[0], clips).views
    assert draw.target.tolist() == [3]
    with pytest.raises(UserError, match=r"'frames' of the index file .* must be 'numbers in the source' or"):
        evaluation_index.read(index_file(tmp_path, {**damaged, "frames": "seconds"}))


def test_evaluations_that_count_differently_are_compared_by_their_images():
    def evaluated(target, counts, truth=(1, 2)):
        views = [{"scene": name, "context": [0], "target": [target]} for name in "ab"]
        images = lambda i: {"truth": np.full(3, truth[i]), "context": np.zeros(3)}
        return Evaluated({}, views, counts, SimpleNamespace(folder=pathlib.Path("run"), images=images))

    run = evaluated(3, evaluation_index.NUMBERS)
    check_same_views({"a": run, "b": evaluated(2, evaluation_index.POSITIONS)})
    for other in (evaluated(2, evaluation_index.POSITIONS, truth=(1, 3)), evaluated(2, evaluation_index.NUMBERS)):
        with pytest.raises(UserError, match="were not evaluated on the same views"):
            check_same_views({"a": run, "b": other})


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not here")
def test_the_reported_clip(tmp_path):
    shutil.copytree(REAL, tmp_path / "source", ignore=shutil.ignore_patterns("videos"))
    source = RealEstate10KSource(tmp_path / "source")
    index = [evaluation_index.Entry("0c11dbe781b1c11c", (0,), (8,))]
    for name in ("whole", "damaged"):
        building.prepare(source, tmp_path, name, OPTIONS)
        data = dataset.open_dataset(tmp_path, name, "test")
        ((number, draw),) = evaluation_index.resolve(index, data).views
        assert data.scene(number).frame_names[draw.target[0]] == "92125367"
        next(tmp_path.glob("source/**/0c11dbe781b1c11c/90423667.jpg")).unlink(
            missing_ok=True
        ) if name == "whole" else None
    assert data.num_frames[number] == 15


# --- gaps and held-out frames


def test_training_and_evaluation_count_gaps_in_frames_of_the_source(clips):
    config = config_of(clips.path.parent)
    batches = pipeline.training_batches(config, image_size=8, batch_size=8, seed=1)
    gaps, frames = set(), {name: clips.scene(i) for i, name in enumerate(clips.names)}
    shown_scenes = pipeline.scene_names(config, batch_size=160, seed=1, step=0)
    for step, batch in enumerate(itertools.islice(batches, 20)):
        for row, name in enumerate(shown_scenes[8 * step : 8 * step + 8]):
            shown = [views.absolute_pose[row, 0] for views in (batch.context, batch.target)]
            stored = frames[name].camera_to_world[:, :3].astype(np.float32)
            context, target = (int(np.flatnonzero((stored == pose).all((1, 2)))[0]) for pose in shown)
            gaps.add(abs(int(frames[name].frame_names[context]) - int(frames[name].frame_names[target])))
    batches.close()
    assert gaps == {2 * 33_367, 3 * 33_367}
    usable = evaluation_views.evaluation_views(config, num_scenes=len(SUBSETS), fewer=True)
    possible = [name for name in clips.names if possible_gaps(set(range(FRAMES)) - removed_of(name), (2, 3))]
    assert sorted(clips.names[number] for number, _ in usable) == sorted(possible)
    for number, draw in usable:
        scene = clips.scene(number)
        assert abs(scene.numbers[draw.context[0]] - scene.numbers[draw.target[0]]) in (2, 3)


def possible_gaps(there, gaps):
    return {b - a for a in there for b in there} & set(gaps)


def test_holes_do_not_change_which_other_frames_are_held_out(clips):
    data = dataclasses.replace(clips, holdout=3)
    for scene, name in enumerate(data.names):
        held_out = data.scene(scene).numbers[data.held_out(scene)]
        assert set(held_out) == {1, 4} - removed_of(name)
    assert data.num_training_frames.tolist() == [len(set(range(6)) - removed_of(name) - {1, 4}) for name in data.names]


def test_inspect_shows_numbers_where_they_are_not_positions(clips):
    report = inspect_scene.look_at(clips, clips.names.index("1"))
    labels = [frame["label"] for frame in report.viewer["frames"]]
    assert labels == ["frame 0", *(f"frame {i} of the source (stored as {i - 1})" for i in range(2, 6))]
    page = inspect_page.render("clips", {}, [report], {})
    assert f"<td>1</td><td>{timestamp(1)}</td>" in page and "<b>1</b>frames of the source" in page


# --- data sets that were prepared before


@pytest.fixture(scope="module")
def old(clips, tmp_path_factory):
    """The same clips, as a data set of a version that did not keep numbers."""
    directory, monkeypatch = tmp_path_factory.mktemp("old"), pytest.MonkeyPatch()
    features, record = posed_scenes.scene_features(), posed_scenes.scene_record
    new = ("frame_numbers", "holes")
    kept = type(features)({key: feature for key, feature in features.items() if key not in new})
    monkeypatch.setattr(posed_scenes, "scene_features", lambda: kept)
    without = lambda *args, **named: {k: v for k, v in record(*args, **named).items() if k not in new}
    monkeypatch.setattr(posed_scenes, "scene_record", without)
    building.prepare(RealEstate10KSource(clips.path.parent / "source"), directory, "clips", OPTIONS)
    monkeypatch.undo()
    index = directory / "clips" / dataset.INDEX_FILE
    content = json.loads(index.read_text())
    for split in content["splits"].values():
        del split["holes"]
    index.write_text(json.dumps(content))
    return dataset.open_dataset(directory, "clips", "train")


@pytest.fixture
def nothing_said():
    dataset.warn_of_unknown_numbers.cache_clear()


@pytest.mark.usefixtures("nothing_said")
def test_data_sets_without_numbers_are_read_and_say_so_once(old, clips, tmp_path, caplog):
    entries = [evaluation_index.Entry("1", (0,), (3,)), evaluation_index.Entry("whole", (0,), (3,))]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            names = {
                old.names[i]: old.scene(i).frame_names[draw.target[0]]
                for i, draw in evaluation_index.resolve(entries, old).views
            }
    assert names == {"1": str(timestamp(4)), "whole": str(timestamp(3))}  # positions, as ever
    assert caplog.text.count("was prepared before frames kept their numbers") == 1
    assert "prepare it again with --overwrite" in caplog.text
    views = [(old.names.index("1"), draw) for _, draw in evaluation_index.resolve(entries, old).views]
    evaluation_index.write(tmp_path / "index.json", views[:1], old, "evaluated in run")
    stored, _ = evaluation_index.read(tmp_path / "index.json")
    ((_, draw),) = evaluation_index.resolve(stored, old).views
    assert draw.target.tolist() == [3]
    with pytest.raises(UserError, match="scene 1 has lost 1 of its 6 frames"):  # of data that knows its holes
        evaluation_index.resolve(stored, clips)


@pytest.mark.usefixtures("nothing_said")
@pytest.mark.parametrize(("rule", "says"), [("realestate10k", True), ("co3d", True), ("captures", False)])
def test_gaps_of_data_sets_without_numbers_count_what_is_there_and_say_so(old, rule, says, caplog):
    views = dataclasses.replace(VIEWS, rule=rule)
    with caplog.at_level(logging.WARNING):
        drawn = evaluation_views.evaluation_views(
            config_of(old.path.parent, view_sampling=views), num_scenes=99, fewer=True
        )
    assert ("was prepared before frames kept their numbers" in caplog.text) == says
    if rule == "realestate10k":
        assert all(abs(int(draw.context[0]) - int(draw.target[0])) == 2 for _, draw in drawn)
