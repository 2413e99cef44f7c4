"""Batches by step: the same for any number of threads, processes and hosts, and after any restart."""

import dataclasses
import itertools
import logging
import pickle

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from dfm_jax.config import DataConfig, ViewSamplingConfig
from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError

SIZE = 8
NUM_SCENES = 20


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Toy scenes, 2 or 3 context views (the rule for orbits fits them too), mirrored and scaled at random."""
    directory = tmp_path_factory.mktemp("data")
    options = posed_scenes.StoreOptions(image_size=0, min_frames=3)
    building.prepare(procedural.ToySource(NUM_SCENES, 2 * SIZE, seed=1), directory, "toy", options)
    sampling = ViewSamplingConfig(
        rule="co3d",
        min_frame_gap=3,
        max_frame_gap=5,
        min_context=2,
        max_context=3,
        num_target=2,
        flip_probability=0.5,
        scale_jitter=0.2,
    )
    return DataConfig(
        name="toy",
        dir=str(directory),
        split="train",
        eval_split="test",
        near=2.6,
        far=5.5,
        toy_scenes=NUM_SCENES,
        view_sampling=sampling,
        num_threads=2,
        prefetch=2,
    )


def with_sampling(config, **changes):
    return dataclasses.replace(config, view_sampling=dataclasses.replace(config.view_sampling, **changes))


def read(config, count, **options):
    batches = pipeline.training_batches(config, **({"image_size": SIZE, "batch_size": 4, "seed": 7} | options))
    read = list(itertools.islice(batches, count))
    batches.close()
    return read


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_shapes_types_and_ranges(config):
    (batch,) = read(config, 1)
    for views, count in ((batch.context, 3), (batch.target, 2)):
        assert views.images.shape == (4, count, SIZE, SIZE, 3) and views.images.dtype == np.float32
        assert views.camera.camera_to_world.shape == (4, count, 4, 4)
        assert views.camera.intrinsics.shape == (4, count, 3, 3)
        assert views.absolute_pose.shape == (4, count, 3, 4)
        assert views.valid.shape == (4, count) and views.valid.dtype == bool
        assert views.images.min() >= 0 and 0.5 < views.images.max() <= 1
    assert batch.index.dtype == np.int32 and batch.near.dtype == np.float32
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))


@pytest.mark.parametrize("num_threads", [0, 1, 4])
def test_reading_threads_change_nothing(config, num_threads):
    assert_same(read(config, 6), read(dataclasses.replace(config, num_threads=num_threads), 6))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_reading_processes_change_nothing(config, num_workers):
    assert_same(read(config, 6)[2:], read(dataclasses.replace(config, num_workers=num_workers), 4, start_step=2))


def test_a_batch_depends_on_its_step_alone(config):
    whole = read(config, 14)  # more than two passes through the data
    for start in (0, 5, 13):
        assert_same(whole[start], read(config, 1, start_step=start)[0])


def test_the_shares_of_two_hosts_are_the_batch_of_one(config):
    whole = read(config, 3)
    shares = [read(config, 3, process_index=i, process_count=2) for i in range(2)]
    for step in range(3):
        joined = jax.tree.map(lambda *x: np.concatenate(x), shares[0][step], shares[1][step])
        assert_same(whole[step], joined)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_examples_do_not_depend_on_the_batch_size(config, batch_size):
    fours, others = read(config, 2), read(config, 8 // batch_size, batch_size=batch_size)
    assert_same(jax.tree.map(lambda *x: np.concatenate(x), *fours), jax.tree.map(lambda *x: np.concatenate(x), *others))


def test_another_seed_gives_other_batches(config):
    assert not np.array_equal(read(config, 1)[0].context.images, read(config, 1, seed=8)[0].context.images)


def test_index_counts_examples_and_every_pass_sees_every_scene_once(config):
    assert np.concatenate([batch.index for batch in read(config, 3, start_step=2)]).tolist() == list(range(8, 20))
    passes = [pipeline.scene_names(config, batch_size=NUM_SCENES, seed=7, step=step) for step in range(2)]
    assert len(set(passes[0])) == len(set(passes[1])) == NUM_SCENES
    assert passes[0] != passes[1]


def test_a_scene_is_seen_differently_in_every_pass(config):
    names = pipeline.scene_names(config, batch_size=2 * NUM_SCENES, seed=7, step=0)
    (batch,) = read(config, 1, batch_size=2 * NUM_SCENES)
    again = [names.index(name, NUM_SCENES) for name in names[:NUM_SCENES]]
    pairs = zip(batch.target.images[:NUM_SCENES], batch.target.images[again], strict=True)
    assert sum(np.array_equal(first, second) for first, second in pairs) < NUM_SCENES / 4


def test_scene_names_are_those_of_the_batch(config):
    plain = with_sampling(config, flip_probability=0.0, scale_jitter=0.0)
    (batch,) = read(plain, 1, start_step=3)
    data = pipeline.open_dataset(config.dir, "toy", "train")
    for i, name in enumerate(pipeline.scene_names(plain, batch_size=4, seed=7, step=3)):
        scene = data.scene(data.names.index(name))
        poses = scene.camera_to_world[:, :3].astype(np.float32)
        (frame,) = np.flatnonzero((poses == batch.target.absolute_pose[i, 0]).all((1, 2)))
        np.testing.assert_array_equal(data.image(scene, frame, SIZE), batch.target.images[i, 0])


def test_poses_are_relative_to_the_first_context_view(config):
    for batch in read(config, 2):
        absolute = np.concatenate([batch.context.absolute_pose, batch.target.absolute_pose], axis=1)
        absolute = np.concatenate([absolute, np.broadcast_to([0, 0, 0, 1], (*absolute.shape[:2], 1, 4))], axis=2)
        relative = [views.camera.camera_to_world for views in (batch.context, batch.target)]
        expected = np.linalg.inv(absolute[:, :1]) @ absolute
        np.testing.assert_allclose(np.concatenate(relative, axis=1), expected, atol=1e-5)


def test_absent_context_views_are_masked_black_and_finite(config):
    batches = read(config, 5)
    valid = np.concatenate([batch.context.valid for batch in batches])
    assert valid[:, :2].all() and 0 < valid[:, 2].sum() < len(valid)
    for batch in batches:
        assert batch.target.valid.all()
        assert np.all(batch.context.images[~batch.context.valid] == 0)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(batch))


def test_a_mirrored_example_is_the_mirror_image_of_the_plain_one(config):
    (plain,) = read(with_sampling(config, flip_probability=0.0), 1)
    (mirrored,) = read(with_sampling(config, flip_probability=1.0), 1)
    np.testing.assert_array_equal(mirrored.target.images, plain.target.images[..., ::-1, :])
    reflection = np.diag([-1, 1, 1, 1])
    camera, reference = mirrored.target.camera, plain.target.camera
    np.testing.assert_allclose(camera.camera_to_world, reflection @ reference.camera_to_world @ reflection, atol=1e-6)
    np.testing.assert_allclose(camera.intrinsics[..., 0, 2], 1 - reference.intrinsics[..., 0, 2], atol=1e-6)


def test_rolled_examples_have_the_same_pictures_and_rays_of_other_cameras(config):
    plain = with_sampling(config, flip_probability=0.0, scale_jitter=0.0)
    (before,), (after,) = read(plain, 1), read(with_sampling(plain, roll=60.0), 1)
    angles = []
    for views, rolled in ((before.context, after.context), (before.target, after.target)):
        np.testing.assert_array_equal(rolled.images, views.images)
        backwards = np.linalg.inv(views.camera.intrinsics) @ rolled.camera.intrinsics
        rays = [v.absolute_pose[..., :3] @ np.linalg.inv(v.camera.intrinsics) for v in (views, rolled)]
        np.testing.assert_allclose(*rays, atol=1e-5)
        angles.append(np.rad2deg(np.arccos(backwards[..., 0, 0]))[views.valid])
    angles = np.concatenate(angles)
    assert len(set(angles.round(3))) == len(angles) and 20 < angles.max() < 60


def test_about_half_of_the_examples_are_mirrored(config):
    plain = read(with_sampling(config, flip_probability=0.0), 25)
    some = read(config, 25)
    mirrored = [
        np.array_equal(a.target.images[i], b.target.images[i, :, :, ::-1])
        for a, b in zip(plain, some, strict=True)
        for i in range(4)
    ]
    assert 30 < sum(mirrored) < 70


def test_scaling_moves_cameras_and_bounds_alike(config):
    (plain,) = read(with_sampling(config, scale_jitter=0.0), 1)
    (scaled,) = read(config, 1)
    factor = scaled.near / np.float32(2.6)
    assert np.all((factor >= 0.8) & (factor <= 1.2)) and np.ptp(factor) > 0.01
    np.testing.assert_allclose(scaled.far, 5.5 * factor, rtol=1e-6)
    np.testing.assert_allclose(
        scaled.target.camera.camera_to_world[..., :3, 3],
        factor[:, None, None] * plain.target.camera.camera_to_world[..., :3, 3],
        rtol=1e-5,
        atol=1e-5,
    )
    np.testing.assert_array_equal(scaled.target.images, plain.target.images)


def test_evaluation_examples_are_different_scenes_always_the_same_and_unchanged(config):
    example, names = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=6)
    again, _ = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=6)
    assert_same(example, again)
    assert len(set(names)) == 6 and all(name.startswith("test-") for name in names)
    assert example.context.valid.tolist() == [[True, True, False]] * 6  # the fewest context views
    np.testing.assert_array_equal(example.near, np.full(6, 2.6, np.float32))
    data = pipeline.open_dataset(config.dir, "toy", "test")
    for i, name in enumerate(names):
        scene = data.scene(data.names.index(name))
        poses = scene.camera_to_world[:, :3].astype(np.float32)
        found = [
            int(np.flatnonzero((poses == pose).all((1, 2)))[0])
            for pose in (example.context.absolute_pose[i, 0], example.target.absolute_pose[i, 0])
        ]
        assert (found[1] - found[0]) % 13 in (4, 13 - 4)  # the middle of the gap
    other, _ = pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=6, seed=1)
    assert not np.array_equal(other.context.images, example.context.images)


def test_datasets_travel_to_other_processes(config):
    data = pipeline.open_dataset(config.dir, "toy", "train")
    scene = data.scene(5)
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy.image(copy.scene(5), 3, SIZE), data.image(scene, 3, SIZE))
    assert scene.name == data.names[5] and scene.num_frames == data.num_frames[5]
    with pytest.raises(IndexError, match="has 13 frames"):
        data.image(scene, 13, SIZE)


def test_the_files_are_plain_tfds(config):
    data = pipeline.open_dataset(config.dir, "toy", "train")
    frames = tfds.builder_from_directory(data.path / "frames" / "1.0.0").as_data_source("train")
    scene = data.scene(3)
    record = frames[scene.first_frame + 2]
    assert (record["scene"].decode(), record["frame"]) == (scene.name, 2) and len(frames) == 13 * NUM_SCENES
    np.testing.assert_array_equal(record["image"], np.rint(255 * data.image(scene, 2, 2 * SIZE)))


def test_a_missing_data_set_is_an_error_that_says_how_to_make_it(config, tmp_path):
    with pytest.raises(UserError, match=r"no data set 'toy' in .*dfm_jax.data.prepare --format"):
        read(dataclasses.replace(config, dir=str(tmp_path)), 1)


def test_a_missing_split_is_an_error_that_lists_the_others(config):
    with pytest.raises(UserError, match=r"no split 'validation' \(it has: train, test\)"):
        read(dataclasses.replace(config, split="validation"), 1)


def test_a_rule_that_no_scene_is_long_enough_for_is_an_error(config):
    with pytest.raises(UserError, match=r"no scene .* has the 14 frames .* longest has 13"):
        read(with_sampling(config, min_frame_gap=7, max_frame_gap=9), 1)


def test_scenes_too_short_for_the_rule_are_left_out_and_counted(config, monkeypatch, caplog):
    whole = pipeline.open_dataset

    def with_two_short_scenes(*args):
        data = whole(*args)
        return dataclasses.replace(data, num_frames=(4, 5, 6, *data.num_frames[3:]))

    monkeypatch.setattr(pipeline, "open_dataset", with_two_short_scenes)
    with caplog.at_level(logging.INFO):
        batches = [pipeline.scene_names(config, batch_size=18, seed=7, step=i) for i in range(3)]
    assert "2 of 20 scenes have fewer than 6 frames" in caplog.text
    assert all(len(set(names)) == 18 and not {"train-000000", "train-000001"} & set(names) for names in batches)


def test_more_evaluation_scenes_than_there_are_is_an_error(config):
    with pytest.raises(UserError, match=r"17 scenes are asked for, but split 'test' .* has 16 .* lower config.sample"):
        pipeline.evaluation_examples(config, image_size=SIZE, num_scenes=17)
    with pytest.raises(UserError, match=r"lower --results$"):
        evaluation_views.evaluation_views(config, num_scenes=17, option="--results")


def test_a_batch_that_hosts_cannot_share_is_an_error(config):
    with pytest.raises(UserError, match="batch_size=4 is not a multiple of the 3 processes"):
        read(config, 1, process_count=3)
