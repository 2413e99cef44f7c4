"""Rules for splitting the state, and the same training on one and on four devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from dfm_jax.config import MeshConfig
from dfm_jax.errors import UserError
from dfm_jax.training import sharding
from tests.programs import environment, run_command


def test_one_step_on_four_devices_equals_one_device():
    done = run_command("tests.on_four_devices.training_step", env=environment(devices=4))
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
