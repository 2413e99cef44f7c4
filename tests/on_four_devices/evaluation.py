"""Evaluates three scenes in the given folder, on one device and on four; prints, as JSON, the shapes of the meshes that
were used."""

import json
import sys
from functools import partial
from pathlib import Path

import jax

from dfm_jax.commands import evaluate
from dfm_jax.config.reading import from_dict
from dfm_jax.sampling import devices
from tests.test_evaluate import save_untrained
from tests.test_sample import tiny_config

SCENES, SAMPLES = 3, 2

make_mesh, used = devices.make_mesh, []


def mesh_of(count, scenes, rays):
    mesh = make_mesh(scenes, rays, jax.local_devices()[:count])
    used.append(mesh.devices.shape)
    return mesh


def main():
    folder = Path(sys.argv[1])
    for count in (1, 4):
        values = tiny_config(folder / "data", guidance=1.0)
        values.evaluate.update(num_scenes=SCENES, num_target=2, num_samples=SAMPLES, sweep_samples=0)
        config = from_dict(values)
        devices.make_mesh = partial(mesh_of, count)
        workdir = folder / str(count)
        save_untrained(config, workdir)
        evaluate.evaluate(config, workdir)
    print(json.dumps(used))


if __name__ == "__main__":
    main()
