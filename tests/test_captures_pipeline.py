"""Captures in training and evaluation: what is held out is never trained on, and every scene has its own bounds."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

from dfm_jax.config import DataConfig, ViewSamplingConfig
from dfm_jax.data.builders import transforms_json
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError
from tests.captures_source import arc, pose, write_transforms

SIZE = 8
HELD_OUT = {2, 6}  # of 8 frames, and of 7, with a holdout of 4


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two captures, of 8 and 7 photographs; the second's cameras stand twice as far away."""
    directory = tmp_path_factory.mktemp("captures")
    write_transforms(directory / "source" / "a", arc(8))
    write_transforms(directory / "source" / "b", [pose(angle, 6.0) for angle in np.linspace(-0.6, 0.6, 7)])
    for name, holdout in (("held", 4), ("whole", 0)):
        source = transforms_json.TransformsSource(directory / "source", (0, 0, 0))
        building.prepare(source, directory, name, posed_scenes.StoreOptions(0, 3, holdout))
    names = [f"images/{i}.png" for i in range(8)]
    write_transforms(directory / "source" / "a", arc(8), train_filenames=names[:5], test_filenames=names[5:])
    building.prepare(source, directory, "stated", posed_scenes.StoreOptions(0, 3, 4))
    sampling = ViewSamplingConfig(
        rule="captures",
        min_frame_gap=1,
        max_frame_gap=3,
        min_context=1,
        max_context=2,
        num_target=2,
    )
    return DataConfig(
        name="held",
        dir=str(directory),
        split="train",
        eval_split="train",
        near=0.0,
        far=0.0,
        view_sampling=sampling,
        num_threads=1,
        prefetch=1,
    )


def frames_of(config, views, row, name):
    """Frame numbers of an example's valid views, found by their poses."""
    poses = stored_poses(config.dir, config.name, name)
    return [int(np.flatnonzero((poses == seen).all((1, 2)))[0]) for seen in views.absolute_pose[row][views.valid[row]]]


@functools.cache
def stored_poses(directory, name, scene):
    data = pipeline.open_dataset(directory, name, "train")
    return data.scene(data.names.index(scene)).camera_to_world[:, :3].astype(np.float32)


def trained_frames(config):
    batches = pipeline.training_batches(config, image_size=SIZE, batch_size=4, seed=3)
    seen = {"a": set(), "b": set()}
    names = pipeline.scene_names(config, batch_size=48, seed=3, step=0)
    for step, batch in enumerate(itertools.islice(batches, 12)):
        for row, name in enumerate(names[4 * step : 4 * step + 4]):
            seen[name] |= {*frames_of(config, batch.context, row, name), *frames_of(config, batch.target, row, name)}
    batches.close()
    return seen


def test_training_sees_every_frame_but_those_held_out(config):
    assert trained_frames(config) == {"a": set(range(8)) - HELD_OUT, "b": set(range(7)) - HELD_OUT}
    assert trained_frames(dataclasses.replace(config, name="whole")) == {"a": set(range(8)), "b": set(range(7))}


def test_what_a_source_holds_out_is_compared_and_never_trained_on(config):
    config = dataclasses.replace(config, name="stated")
    assert trained_frames(config) == {"a": set(range(5)), "b": set(range(7)) - HELD_OUT}
    views = evaluation_views.evaluation_views(config, num_scenes=5)
    names = pipeline.open_dataset(config.dir, "stated", "train").names
    compared = {(names[scene], int(draw.target[0])) for scene, draw in views}
    assert compared == {("a", 5), ("a", 6), ("a", 7), ("b", 2), ("b", 6)}
    assert all(set(draw.context) <= set(range(5)) for scene, draw in views if names[scene] == "a")


def test_evaluation_compares_what_is_held_out_with_views_that_were_trained_on(config):
    example, names = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=4)
    assert sorted(names) == ["a", "a", "b", "b"]
    targets = {(name, frames_of(config, example.target, row, name)[0]) for row, name in enumerate(names)}
    assert targets == {(name, frame) for name in "ab" for frame in HELD_OUT}
    for row, name in enumerate(names):
        context, target = (frames_of(config, views, row, name) for views in (example.context, example.target))
        assert not HELD_OUT & set(context) and len(context) == 1 and set(target) == HELD_OUT
    again, _ = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=4)
    np.testing.assert_array_equal(example.target.images, again.target.images)


def test_more_examples_than_held_out_frames_are_seen_from_other_places(config):
    example, names = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=12)
    pairs = [
        (name, frames_of(config, example.context, row, name)[0], frames_of(config, example.target, row, name)[0])
        for row, name in enumerate(names)
    ]
    assert len(set(pairs)) == 12 and len({(name, target) for name, _, target in pairs}) == 4


def test_without_held_out_frames_any_view_is_compared(config):
    whole = dataclasses.replace(config, name="whole")
    example, names = pipeline.evaluation_examples(whole, image_size=SIZE, num_scenes=15)
    targets = {(name, frames_of(whole, example.target, row, name)[0]) for row, name in enumerate(names)}
    assert len(targets) == 15


def test_bounds_are_each_scenes_own_unless_the_config_has_some(config):
    example, names = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=2)
    data = pipeline.open_dataset(config.dir, "held", "train")
    for row, name in enumerate(names):
        scene = data.scene(data.names.index(name))
        assert (example.near[row], example.far[row]) == (np.float32(scene.near), np.float32(scene.far))
    np.testing.assert_allclose(example.near[0], example.near[1], rtol=0.05)  # both are scaled alike
    set_ones, _ = pipeline.evaluation_examples(
        dataclasses.replace(config, near=1.0, far=9.0), image_size=SIZE, num_scenes=2
    )
    assert (set_ones.near == 1).all() and (set_ones.far == 9).all()


def test_no_bounds_anywhere_is_an_error(config, monkeypatch):
    scene = SceneDataset.scene
    unknown = lambda self, number: dataclasses.replace(scene(self, number), near=np.nan, far=np.nan)
    monkeypatch.setattr(SceneDataset, "scene", unknown)
    with pytest.raises(UserError, match=r"near and config.data.far are 0, but scene a .* has no bounds"):
        pipeline.training_batches(config, image_size=SIZE, batch_size=2, seed=0)


def test_scenes_need_enough_frames_beside_those_held_out(config):
    sampling = dataclasses.replace(config.view_sampling, max_context=5, min_context=5)
    with pytest.raises(UserError, match=r"the longest has 6 that are not held out"):
        pipeline.training_batches(
            dataclasses.replace(config, view_sampling=sampling), image_size=SIZE, batch_size=2, seed=0
        )
