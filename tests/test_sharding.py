"""Rules for splitting the state, and the same training on one and on four devices."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dfm_jax.config import MeshConfig
from dfm_jax.errors import UserError
from dfm_jax.training import sharding
from tests.programs import PATIENCE, environment

FOUR_DEVICES = """
import json, sys
from functools import partial
import jax, jax.numpy as jnp, numpy as np, optax
from dfm_jax.config import MeshConfig
from dfm_jax.training import sharding
from dfm_jax.runs.train_state import create
from dfm_jax.training.step import train_step

def loss(params, example, key, frozen):
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(example["index"])
    hidden = jnp.tanh(jnp.einsum("bc,cd->bd", example["x"], params["in"]["kernel"]))
    error = jnp.einsum("bd,d->b", hidden, params["out"]["bias"]) - example["y"] + noise
    return jnp.mean(error**2) + jnp.sum(hidden * frozen["w"]) / hidden.shape[0], {}

def init(key, tx):
    return create({"in": {"kernel": jax.random.normal(key, (64, 1024))}, "out": {"bias": jnp.ones(1024)}}, tx)

# Adam with an ordinary `eps` turns a gradient's rounding about zero into a whole step, one way or the other.
tx = optax.adam(1e-2, eps=1e-2)
rng = np.random.default_rng(0)
example = {"x": rng.normal(size=(8, 64)).astype(np.float32), "y": np.arange(8, dtype=np.float32), "index": np.arange(8)}
def step(state, example, key, frozen, ema_on_host):
    settings = {"accumulate": 2, "ema_decay": 0.9, "ema_every": 1, "ema_on_host": ema_on_host}
    return train_step(state, example, key, tx=tx, loss=partial(loss, frozen=frozen), **settings)

results = []
meshes = ((1, (1, 1)), (4, (4, 1)), (4, (2, 2)), (4, (1, 4)))
for (devices, mesh_config), ema_memory in [*((mesh, "device") for mesh in meshes), (meshes[2], "host")]:
    mesh = sharding.make_mesh(MeshConfig(*mesh_config), jax.devices()[:devices])
    state = sharding.initialize(partial(init, tx=tx), jax.random.key(0), mesh, ema_memory)
    frozen = sharding.replicate({"w": np.full((1, 1024), 1e-2, np.float32)}, mesh)
    placed_step = partial(step, ema_on_host=ema_memory == "host")
    compiled = sharding.compile_train_step(placed_step, state, mesh, (frozen,))
    before = state
    state, metrics = compiled(state, sharding.shard_batch(example, mesh), jax.random.key(1), frozen)
    assert not frozen["w"].is_deleted() and frozen["w"].is_fully_replicated
    assert before.params["in"]["kernel"].is_deleted(), "the state was not donated"
    kernel = state.params["in"]["kernel"]
    results.append({
        "loss": float(metrics["loss"]),
        "local": list(kernel.addressable_shards[0].data.shape),
        "local_moment": list(state.opt_state[0].mu["in"]["kernel"].addressable_shards[0].data.shape),
        "kernel": np.asarray(kernel).ravel()[::997].tolist(),
        "ema": np.asarray(state.ema["in"]["kernel"]).ravel()[::997].tolist(),
        "ema_memory": state.ema["in"]["kernel"].sharding.memory_kind,
        "local_ema": list(state.ema["in"]["kernel"].addressable_shards[0].data.shape),
        "fetched": sharding.to_device_memory(state.ema)["in"]["kernel"].sharding.memory_kind,
    })
print(json.dumps(results))
"""


def test_one_step_on_four_devices_equals_one_device():
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES],
        env=environment(devices=4),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, *others = json.loads(done.stdout.splitlines()[-1])
    for other in others:
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        # Sums over devices are in another order.
        np.testing.assert_allclose(other["kernel"], one["kernel"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(other["ema"], one["ema"], rtol=1e-4, atol=1e-6)  # as above
        assert other["local_moment"] == other["local_ema"] == other["local"]
    assert [x["local"] for x in (one, *others)] == [[64, 1024], [64, 1024], [64, 512], [64, 256], [64, 512]]
    assert [x["ema_memory"] for x in (one, *others)] == ["device"] * 4 + ["pinned_host"]
    assert {x["fetched"] for x in (one, *others)} == {"device"}


def test_large_arrays_are_split_along_their_largest_divisible_axis():
    spec = sharding.partition_spec
    assert spec("params/encoder/qkv/kernel", (28, 1152, 3456), 8) == P(None, None, "fsdp")
    assert spec("params/encoder/odd/kernel", (1152, 3457), 8) == P("fsdp")
    assert spec("params/encoder/odd/kernel", (1151, 3457), 8) == P()
    assert spec("params/encoder/small/kernel", (8, 8), 8) == P()
    assert spec("params/encoder/qkv/kernel", (28, 1152, 3456), 1) == P()


def test_rules_come_first_and_reach_the_optimisers_moments():
    assert sharding.partition_spec("opt_state/1/inner_state/0/mu/encoder/qkv/bias", (28, 3456), 8) == P()
    rules = ((r"encoder/.*kernel", P("fsdp", None)),)
    assert sharding.partition_spec("params/encoder/qkv/kernel", (1152, 3456), 8, rules) == P("fsdp", None)


@pytest.mark.parametrize("sizes", [(2, 1), (-1, 3), (-1, -1), (0, -1)])
def test_a_mesh_that_does_not_fit_is_refused(sizes):
    with pytest.raises(UserError, match="there are 1 devices"):
        sharding.make_mesh(MeshConfig(*sizes), jax.devices()[:1])


@pytest.mark.parametrize("sizes", [(-1, 1), (1, -1), (1, 1)])
def test_one_device_fits_every_open_mesh(sizes):
    mesh = sharding.make_mesh(MeshConfig(*sizes), jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1}


def test_a_batch_that_cannot_be_split_is_refused():
    class FourDevices:
        size = 4

    sharding.check_batch_size(8, 2, FourDevices)
    with pytest.raises(UserError, match="cannot be split over 4 devices"):
        sharding.check_batch_size(8, 4, FourDevices)


def test_the_batch_keeps_its_order():
    mesh = sharding.make_mesh(MeshConfig(-1, 1), jax.devices()[:1])
    array = sharding.shard_batch({"x": np.arange(4)}, mesh)["x"]
    np.testing.assert_array_equal(array, np.arange(4))
    assert array.sharding.spec == P(("data", "fsdp"))


def test_an_abstract_state_knows_shapes_and_shardings():
    mesh = sharding.make_mesh(MeshConfig(-1, 1), jax.devices()[:1])
    abstract = sharding.abstract_state(lambda key: {"w": jax.random.normal(key, (2, 3)), "n": jnp.int32(0)}, mesh)
    assert abstract["w"].shape == (2, 3)
    assert abstract["w"].sharding.mesh == mesh
