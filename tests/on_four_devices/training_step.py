"""One step of training on one device and on meshes of four; prints, as JSON, what became of the state on each."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dfm_jax.config import MeshConfig
from dfm_jax.runs.train_state import create
from dfm_jax.training import sharding
from dfm_jax.training.step import train_step

# Devices, and devices along 'data' and 'fsdp'.
MESHES = ((1, (1, 1)), (4, (4, 1)), (4, (2, 2)), (4, (1, 4)))
# Adam with an ordinary `eps` turns a gradient's rounding about zero into a whole step, one way or the other.
OPTIMIZER = optax.adam(1e-2, eps=1e-2)


def loss(params, example, key, frozen):
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(example["index"])
    hidden = jnp.tanh(jnp.einsum("bc,cd->bd", example["x"], params["in"]["kernel"]))
    error = jnp.einsum("bd,d->b", hidden, params["out"]["bias"]) - example["y"] + noise
    return jnp.mean(error**2) + jnp.sum(hidden * frozen["w"]) / hidden.shape[0], {}


def init(key):
    params = {"in": {"kernel": jax.random.normal(key, (64, 1024))}, "out": {"bias": jnp.ones(1024)}}
    return create(params, OPTIMIZER)


def step(state, example, key, frozen, ema_on_host):
    settings = {"accumulate": 2, "ema_decay": 0.9, "ema_every": 1, "ema_on_host": ema_on_host}
    return train_step(state, example, key, tx=OPTIMIZER, loss=partial(loss, frozen=frozen), **settings)


def after_one_step(devices, mesh_config, ema_memory):
    mesh = sharding.make_mesh(MeshConfig(*mesh_config), jax.devices()[:devices])
    state = sharding.initialize(init, jax.random.key(0), mesh, ema_memory)
    frozen = sharding.replicate({"w": np.full((1, 1024), 1e-2, np.float32)}, mesh)
    placed_step = partial(step, ema_on_host=ema_memory == "host")
    compiled = sharding.compile_train_step(placed_step, state, mesh, (frozen,))
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    example = {"x": x, "y": np.arange(8, dtype=np.float32), "index": np.arange(8)}
    before = state
    state, metrics = compiled(state, sharding.shard_batch(example, mesh), jax.random.key(1), frozen)
    assert not frozen["w"].is_deleted() and frozen["w"].is_fully_replicated
    assert before.params["in"]["kernel"].is_deleted(), "the state was not donated"
    kernel, ema = state.params["in"]["kernel"], state.ema["in"]["kernel"]
    return {
        "loss": float(metrics["loss"]),
        "local": list(kernel.addressable_shards[0].data.shape),
        "local_moment": list(state.opt_state[0].mu["in"]["kernel"].addressable_shards[0].data.shape),
        "kernel": np.asarray(kernel).ravel()[::997].tolist(),
        "ema": np.asarray(ema).ravel()[::997].tolist(),
        "ema_memory": ema.sharding.memory_kind,
        "local_ema": list(ema.addressable_shards[0].data.shape),
        "fetched": sharding.to_device_memory(state.ema)["in"]["kernel"].sharding.memory_kind,
    }


def main():
    cases = [*((*mesh, "device") for mesh in MESHES), (*MESHES[2], "host")]
    print(json.dumps([after_one_step(*case) for case in cases]))


if __name__ == "__main__":
    main()
