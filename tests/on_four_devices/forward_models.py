"""A training step and samples of each forward model named, on four devices; written into a folder, for each a file of
arrays:

python -m tests.on_four_devices.forward_models FOLDER NAME...

Of `NAME:training`, a training step alone.
"""

import dataclasses
import functools
import pathlib
import sys

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from dfm_jax.config import MeshConfig
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.signals import sample_signals
from dfm_jax.training import sharding
from tests.forward_model_cases import BATCH, case_of, setup_of

NUM_SAMPLES = 2  # behind each of two contexts: one for each device


@functools.cache
def trained(name: str) -> dict[str, np.ndarray]:
    """Losses of a training step on all devices, and the gradients: those that Adam's first moment is made of."""
    case = case_of(name)
    setup, mesh = setup_of(name), sharding.make_mesh(MeshConfig(-1, 1))
    state = sharding.initialize(setup.init, jax.random.key(0), mesh)
    step = sharding.compile_train_step(setup.step, state, mesh)
    batch = sharding.shard_batch(jax.tree.map(np.asarray, synthetic_example(case.config, BATCH)), mesh)
    state, metrics = step(state, batch, sharding.replicate(jax.random.key(0), mesh))
    metrics, moments = jax.device_get((metrics, optax.tree.get(state.opt_state, "mu")))
    gradients = {f"gradient {path}": x for path, x in flatten_dict(moments, sep=".").items()}
    return {"loss": metrics["loss"], "target": metrics["target"]} | gradients


def sampled(name: str) -> dict[str, np.ndarray]:
    """Samples on all devices."""
    case = case_of(name)
    settings = dataclasses.replace(case.config.sample, num_steps=min(2, case.config.sample.num_steps))
    schedule = cosine_schedule(case.config.diffusion.num_timesteps)
    sampler = DiffusionSampler(case.model, case.params, schedule, settings)
    return {"samples": sample_signals(sampler, synthetic_example(case.config, 2), NUM_SAMPLES, jax.random.key(1)).x0}


def computed(named: str) -> dict[str, np.ndarray]:
    name, _, training = named.partition(":")
    return trained(name) | ({} if training else sampled(name))


if __name__ == "__main__":
    assert jax.device_count() == 4
    for named in sys.argv[2:]:
        np.savez(pathlib.Path(sys.argv[1]) / f"{named}.npz", **computed(named))
