"""Sampling on four devices: scenes side by side, or the rays of one scene; the pictures are those of one device."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from dfm_jax.sampling import devices
from tests.programs import PATIENCE, environment

ROOT = pathlib.Path(__file__).resolve().parents[1]

FOUR_DEVICES = """
import dataclasses, json, sys
from functools import partial
import jax, numpy as np
from dfm_jax.config.reading import from_dict
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.sampling.preview import preview
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.videos import sample_scenes
from dfm_jax.sampling import devices
from dfm_jax.forward_models.build import make_model
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.sampling.trajectories import Trajectory
from tests.test_sample import tiny_config
from tests.tiny import random_params

make_mesh = devices.make_mesh
config = from_dict(tiny_config("nowhere", context_memory=0.0))
sample = config.sample
for fine, scenes, samples, *shape in json.loads(sys.argv[1]):
    marching = dataclasses.replace(config.model.ray_marching, num_fine=fine)
    model = make_model(dataclasses.replace(config, model=dataclasses.replace(config.model, ray_marching=marching)))
    params = random_params(model)
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    example = synthetic_example(config, scenes)
    camera = jax.tree.map(lambda c: np.repeat(np.asarray(c[0]), 5, axis=0), example.target.camera)
    camera = jax.tree.map(lambda c: c[:5], camera)
    paths = [Trajectory(camera, np.arange(5))] * scenes
    results = []
    for count in (1, 4):
        devices.make_mesh = partial(make_mesh, devices=jax.local_devices()[:count])
        mesh = devices.make_mesh(scenes * samples, config.image_size**2)
        assert count == 1 or mesh.devices.shape == tuple(shape), mesh
        videos = {}
        keep = lambda i, j, frames: videos.update({(i, j): frames})
        settings = dataclasses.replace(sample, num_samples=samples, num_steps=2, sampler="ddpm")
        sampler = DiffusionSampler(model, params, schedule, settings)
        drawn = sample_scenes(sampler, example, paths, 5, keep)
        sheet = preview(sampler, example, jax.random.key(1))
        results.append((dataclasses.astuple(drawn), videos, sheet))
    one, four = results
    assert len(one[1]) == scenes * samples
    assert np.ptp(one[0][0]) > 0.01, np.ptp(one[0][0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=2e-5), one[:2], four[:2])
    assert np.max(np.abs(one[2].astype(int) - four[2].astype(int))) <= 1
print("the same")
"""


# Importance samples; scenes, samples; devices along 'data' and 'rays'.
OTHERS = [(0, 1, 1, 1, 4), (4, 3, 2, 4, 1), (4, 1, 1, 1, 4), (4, 1, 2, 2, 2)]


@pytest.mark.parametrize("cases", [[(0, 1, 2, 2, 2)], pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_four_devices_draw_what_one_draws(cases):
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES, json.dumps(cases)],
        env=environment(devices=4),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "the same"


@pytest.mark.parametrize(
    ("scenes", "rays", "count", "shape"),
    [
        (8, 64, 4, (4, 1)),
        (3, 64, 4, (2, 2)),
        (1, 64, 4, (1, 4)),
        (1, 81, 4, (1, 3)),
        (6, 64, 8, (4, 2)),
        (1, 7, 1, (1, 1)),
    ],
)
def test_devices_go_to_scenes_first(scenes, rays, count, shape):
    chosen = devices.make_mesh(scenes, rays, [FakeDevice(i) for i in range(count)])
    assert chosen.devices.shape == shape


class FakeDevice:
    platform = device_kind = "fake"

    def __init__(self, number):
        self.id, self.process_index = number, 0


def test_one_device_is_left_alone():
    mesh = devices.make_mesh(5, 64, jax.local_devices()[:1])
    tree = {"a": np.ones(3)}
    assert devices.replicate(tree, mesh) is tree
    assert json.dumps(dict(mesh.shape)) == '{"data": 1, "rays": 1}'
