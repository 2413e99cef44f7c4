"""Sampling along camera paths: which views, what each of them sees, and that paths lead anywhere."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import toy as toy_config
from dfm_jax.config.reading import from_dict
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.sampling import autoregressive
from dfm_jax.sampling.autoregressive import extend, pad_context, path_views
from dfm_jax.sampling.batches import sample_batch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.trajectories import Trajectory, key_cameras, recorded_key_cameras
from dfm_jax.structs import Camera
from tests.tiny import LOSS, SIZE, UNCHUNKED, random_params, tiny_example, tiny_model

MODEL = tiny_model(chunk_size=UNCHUNKED, num_fine=0, loss=dataclasses.replace(LOSS, coarse=0.0))
PARAMS = random_params(MODEL)
SCHEDULE = cosine_schedule(100)
SAMPLE = dataclasses.replace(from_dict(toy_config.get_config()).sample, sampler="ddpm", num_steps=2)
SAMPLER = DiffusionSampler(MODEL, PARAMS, SCHEDULE, SAMPLE)
KEY = jax.random.key(0)


def cameras(count: int, seed: int = 0) -> Camera:
    """Some cameras that look the same way from different places."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 3] = np.random.default_rng(seed).uniform(-0.2, 0.2, (count, 3))
    return Camera(poses, np.tile(np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]]), (count, 1, 1)))


@pytest.fixture(scope="module")
def drawn():
    """Two scenes with a sample of each, whose paths have 2 and 1 views beyond the first."""
    example = jax.tree.map(np.asarray, tiny_example(v=1))
    keys = path_views([cameras(2), cameras(1, seed=1)], example)
    numbers = jnp.arange(2), jnp.zeros(2, jnp.int32)
    batch = sample_batch(SAMPLER, example, KEY, *numbers)
    return example, keys, batch, extend(example, keys, KEY, SAMPLER, batch, *numbers), numbers


def test_every_view_along_the_path_is_in_the_last_scene(drawn):
    example, keys, batch, extended, *_ = drawn
    # The given view, target view 0 and the first key view as context, the last key view as the target.
    assert extended.scene.views.valid.tolist() == [[True, True, True, True], [True, True, False, True]]
    camera = extended.scene.views.camera.camera_to_world
    np.testing.assert_allclose(camera[:, 1], example.target.camera.camera_to_world[:, 0], atol=1e-6)
    np.testing.assert_allclose(camera[0, 2:], keys.camera.camera_to_world[0], atol=1e-6)
    np.testing.assert_allclose(camera[1, 3], keys.camera.camera_to_world[1, 0], atol=1e-6)
    assert extended.views.rgb.shape == batch.views.rgb.shape
    np.testing.assert_array_equal(extended.x0, batch.x0)


def test_a_scene_does_not_depend_on_how_many_views_other_scenes_have(drawn):
    example, keys, batch, extended, *_ = drawn
    second = jax.tree.map(lambda x: x[1:], (example, keys, batch))
    alone = jax.tree.map(lambda x: x[:, :1], second[1])
    again = extend(second[0], alone, KEY, SAMPLER, second[2], jnp.array([0]), jnp.array([0]))
    # Other batch sizes are other programs: float32's rounding, through two sampling steps and a rendering.
    np.testing.assert_allclose(again.views.rgb[0], extended.views.rgb[1], atol=1e-4)


def test_views_that_are_still_to_come_change_nothing(drawn):
    """The first of two views is what it would be if it were the only one."""
    example, keys, *_ = drawn
    first = jax.tree.map(lambda x: x[:1], pad_context(example, keys))
    x0 = jnp.zeros((1, SIZE, SIZE, 3))
    view = jax.tree.map(lambda x: jnp.asarray(x[:1, 0]), keys)
    step = partial(autoregressive._next_view, SAMPLER)
    inputs = x0, jnp.int32(1), jax.random.split(KEY, 1), jnp.int32(1)
    room, sample = step(first.replace(target=jax.tree.map(lambda x: x[:, :1], first.target)), view, *inputs)
    assert room.context.valid.tolist() == [[True, True, False]]
    tight = first.replace(context=jax.tree.map(lambda x: x[:, :2], first.context))
    tight = tight.replace(target=jax.tree.map(lambda x: x[:, :1], tight.target))
    # Other shapes are another program: float32's rounding, through two sampling steps.
    np.testing.assert_allclose(step(tight, view, *inputs)[1], sample, atol=1e-4)


def test_a_path_through_the_object_gives_finite_pictures(drawn):
    example, _, batch, _, numbers = drawn
    inside = cameras(2)
    inside.camera_to_world[:, 2, 3] = [1.0, 30.0]  # in the middle of the scene, and far behind it
    keys = path_views([inside, inside], example)
    extended = extend(example, keys, KEY, SAMPLER, batch, *numbers)
    assert all(bool(np.all(np.isfinite(x))) for x in jax.tree.leaves(extended.views))


def test_key_cameras_are_every_so_many_frames_of_the_path():
    path = Trajectory(cameras(5), np.array([0, 1, 2, 3, 4, 3, 2, 1]))
    np.testing.assert_array_equal(key_cameras(path, 3).camera_to_world, path.camera.camera_to_world[[3, 2]])
    assert len(key_cameras(path, 8).intrinsics) == 0
    recorded = cameras(10)
    found = recorded_key_cameras(recorded, 3, 3).camera_to_world
    np.testing.assert_array_equal(found, recorded.camera_to_world[[6, 9, 0]])


def test_absolute_poses_are_those_of_the_data_sets_world(drawn):
    example, keys, *_ = drawn
    first = np.vstack([example.context.absolute_pose[0, 0], [0, 0, 0, 1]])
    expected = first @ keys.camera.camera_to_world[0, 1]
    np.testing.assert_allclose(keys.absolute_pose[0, 1], expected[:3], atol=1e-5)


def test_no_view_at_all_is_none(drawn):
    assert path_views([cameras(0), cameras(0)], drawn[0]) is None
