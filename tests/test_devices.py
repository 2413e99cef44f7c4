"""Sampling on four devices: scenes side by side, or the rays of one scene; the pictures are those of one device."""

import json

import jax
import numpy as np
import pytest

from dfm_jax.sampling import devices
from tests.programs import environment, run_command

# Importance samples; scenes, samples; devices along 'data' and 'rays'. With a sample of each of two scenes, the videos'
# program is the preview's as well: half as much is compiled.
QUICK = [(0, 2, 1, 2, 2)]
OTHERS = [(0, 1, 2, 2, 2), (0, 1, 1, 1, 4), (4, 3, 2, 4, 1), (4, 1, 1, 1, 4), (4, 1, 2, 2, 2)]


@pytest.mark.parametrize("cases", [QUICK, pytest.param(OTHERS, marks=pytest.mark.slow)])
def test_four_devices_draw_what_one_draws(cases):
    done = run_command("tests.on_four_devices.sampling", json.dumps(cases), env=environment(devices=4))
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
