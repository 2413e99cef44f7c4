"""Evaluates the run of `tests/test_evaluate.py` on four devices, its model and its data:

python -m tests.on_four_devices.evaluation RUN WORKDIR

Prints, as JSON, the shapes of the meshes that were used."""

import dataclasses
import json
import sys
from pathlib import Path

import jax

from dfm_jax.commands import evaluate
from dfm_jax.sampling import devices
from tests.test_evaluate import evaluated_config, save_untrained

make_mesh, used = devices.make_mesh, []


def noted_mesh(*pairs):
    mesh = make_mesh(*pairs)
    used.append(mesh.devices.shape)
    return mesh


def main():
    run, workdir = map(Path, sys.argv[1:])
    assert jax.local_device_count() == 4
    config = evaluated_config(run)
    config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, sweep_samples=0))
    devices.make_mesh = noted_mesh
    save_untrained(config, workdir)
    evaluate.evaluate(config, workdir)
    print(json.dumps(used))


if __name__ == "__main__":
    main()
