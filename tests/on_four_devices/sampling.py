"""Draws samples, videos and previews on one device and on four, and compares them; the cases are given as JSON, each
the number of importance samples, scenes, samples, and devices along 'data' and 'rays'."""

import dataclasses
import json
import sys
from functools import partial

import jax
import numpy as np

from dfm_jax.config.reading import from_dict
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.forward_models.build import make_model
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.sampling import devices
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.preview import preview
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.sampling.videos import sample_scenes
from tests.test_sample import tiny_config
from tests.tiny import random_params

FRAMES = 5

make_mesh = devices.make_mesh


def compare(config, fine, scenes, samples, *shape):
    marching = dataclasses.replace(config.model.ray_marching, num_fine=fine)
    model = make_model(dataclasses.replace(config, model=dataclasses.replace(config.model, ray_marching=marching)))
    params = random_params(model)
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    example = synthetic_example(config, scenes)
    camera = jax.tree.map(lambda c: np.repeat(np.asarray(c[0]), FRAMES, axis=0)[:FRAMES], example.target.camera)
    paths = [Trajectory(camera, np.arange(FRAMES))] * scenes
    sampler = DiffusionSampler(
        model, params, schedule, dataclasses.replace(config.sample, num_samples=samples, num_steps=2, sampler="ddpm")
    )
    results = []
    for count in (1, 4):
        devices.make_mesh = partial(make_mesh, devices=jax.local_devices()[:count])
        mesh = devices.make_mesh(scenes * samples, config.image_size**2)
        assert count == 1 or mesh.devices.shape == shape, mesh
        videos = {}
        keep = lambda i, j, frames, videos=videos: videos.update({(i, j): frames})
        drawn = sample_scenes(sampler, example, paths, FRAMES, keep)
        results.append((dataclasses.astuple(drawn), videos, preview(sampler, example, jax.random.key(1))))
    one, four = results
    assert len(one[1]) == scenes * samples
    assert np.ptp(one[0][0]) > 0.01, np.ptp(one[0][0])
    # Other programs: float32's rounding through sampling and rendering.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(b, a, atol=2e-5), one[:2], four[:2])
    assert np.max(np.abs(one[2].astype(int) - four[2].astype(int))) <= 1


def main():
    config = from_dict(tiny_config("nowhere", context_cache_gb=0.0))
    for case in json.loads(sys.argv[1]):
        compare(config, *case)
    print("the same")


if __name__ == "__main__":
    main()
