"""How far four devices are from one, in a training step and in samples, for each forward model named; prints JSON.

Of `NAME:training`, in a training step alone.
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import numpy as np
import optax

from dfm_jax.config import Config, MeshConfig
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.forward_models.build import make_model
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.sampling import devices
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.signals import sample_signals
from dfm_jax.training import sharding
from dfm_jax.training.setup import TrainSetup, make_train_setup
from tests.forward_model_cases import BATCH, config_of, random_params

NUM_SAMPLES = 2  # behind each of two contexts: one for each device


def trained(config: Config, setup: TrainSetup, state: Any, count: int) -> tuple[float, Any]:
    """Loss of a training step from a state on so many devices, and the gradients: those that Adam's first moment is
    made of."""
    mesh = sharding.make_mesh(MeshConfig(-1, 1), jax.devices()[:count])
    key, state = (sharding.replicate(tree, mesh) for tree in (jax.random.key(0), state))
    step = sharding.compile_train_step(setup.step, state, mesh, ())
    batch = sharding.shard_batch(jax.tree.map(np.asarray, synthetic_example(config, BATCH)), mesh)
    state, metrics = step(state, batch, key)
    return float(metrics["loss"]), jax.device_get(optax.tree.get(state.opt_state, "mu"))


def sampled(config: Config, count: int) -> np.ndarray:
    """Samples on so many devices."""
    model = make_model(config)
    settings = dataclasses.replace(config.sample, num_steps=min(2, config.sample.num_steps))
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    sampler = DiffusionSampler(model, random_params(model), schedule, settings)
    whole = devices.jax.local_devices
    devices.jax.local_devices = lambda: whole()[:count]
    try:
        return sample_signals(sampler, synthetic_example(config, 2), NUM_SAMPLES, jax.random.key(1)).x0
    finally:
        devices.jax.local_devices = whole


def largest(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def of_training(config: Config) -> dict[str, float]:
    setup = make_train_setup(config)
    state = jax.device_get(jax.jit(setup.init)(jax.random.key(0)))  # a step takes the arrays that it is given
    (loss, gradients), (same_loss, same_gradients) = (trained(config, setup, state, count) for count in (1, 4))
    return {
        "loss": abs(loss - same_loss) / abs(loss),
        "gradients": max(jax.tree.leaves(jax.tree.map(largest, gradients, same_gradients))),
        "largest_gradient": max(float(np.abs(x).max()) for x in jax.tree.leaves(gradients)),
    }


def of_samples(config: Config) -> dict[str, float]:
    one, four = (sampled(config, count) for count in (1, 4))
    return {"samples": largest(one, four), "spread": float(np.ptp(one))}


def differences(named: str) -> dict[str, float]:
    name, _, training = named.partition(":")
    config = config_of(name)
    return of_training(config) | ({} if training else of_samples(config))


if __name__ == "__main__":
    print(json.dumps({name: differences(name) for name in sys.argv[1:]}))
