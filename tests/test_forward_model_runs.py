"""Laws of runs with every forward model that `build.py` knows: they resume to the same bits, on any devices, and
what only some models can do is one clear error.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from dfm_jax.config import Config
from dfm_jax.config.command_line import read_config
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import MODELS
from dfm_jax.profiling.synthetic import synthetic_example
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.studies import (
    calibration,
    familiarity,
    few_steps,
    fit_solver,
    guidance_sweep,
    savings_sweep,
    steps_sweep,
    tilt,
)
from dfm_jax.studies.score_distillation import causes, unlike
from dfm_jax.training import loop
from tests.forward_model_cases import BATCH, EVERY, LONG, QUICK, ROOT, case_of, config_of, setup_of
from tests.on_four_devices.forward_models import computed, trained
from tests.programs import environment, run_command


@pytest.mark.parametrize("sweep", [guidance_sweep.sweep, steps_sweep.sweep])
def test_what_only_scenes_can_do_is_one_clear_error(sweep, tmp_path):
    with pytest.raises(UserError, match=r"_sweep needs a model of scenes, and this one is 'linear': it can be trained"):
        sweep(config_of("linear"), tmp_path, tmp_path / "results")


READ_COLOURS = {
    calibration.sweep: {"seeds": [0]},
    causes.study: {"causes": ["scale"], "options": (1, 16)},
    familiarity.sweep: {},
    few_steps.sweep: {"seeds": [0], "chosen": "", "files": [], "at_once": 0},
    guidance_sweep.sweep: {},
    savings_sweep.sweep: {"seeds": [0], "chosen": []},
    steps_sweep.sweep: {},
    unlike.study: {"options": unlike.Options({}, 1, "")},
    lambda config, workdir, folder: tilt._of_model(config, workdir): {},
}


@pytest.mark.parametrize("study", READ_COLOURS)
def test_what_reads_colours_refuses_models_without_them(study, tmp_path):
    config = read_config(f"{ROOT / 'configs' / 'toy.py'}:tiny,depth", [])
    with pytest.raises(UserError, match=r"reads colours, and this model, 'partial_views', knows none"):
        study(config, str(tmp_path), tmp_path / "results", **READ_COLOURS[study])
    assert fit_solver._odds(config, ["a scene"], None, {}) == {}  # what is fitted needs no colours


class MadeUp:
    """Batches of made-up examples, of which each depends on its number alone."""

    def __init__(self, config: Config):
        self.config = config
        self.fingerprint = {"scenes": 1, "frames": 1, "holdout": 0, "index": "0", "files": None}

    def batches(self, start_step: int) -> Iterator[Any]:
        for n in range(start_step, 100):
            example = synthetic_example(self.config, BATCH, seed=n)
            yield jax.tree.map(np.asarray, example.replace(index=example.index + n * BATCH))

    def scene_names(self, step: int) -> list[str]:
        return [f"batch {step}"]


@pytest.mark.parametrize("name", MODELS)
def test_the_loss_reaches_every_parameter_that_is_trained(name):
    step = trained(name)
    assert step.keys() > {"loss", "target"}
    for part, value in step.items():
        assert np.all(np.isfinite(value)) and np.any(value != 0), part


@pytest.mark.parametrize("name", EVERY)
def test_a_run_that_was_ended_goes_on_to_the_same_bits(name, tmp_path):
    case = case_of(name)
    train = functools.partial(loop.train, make_setup=lambda _: setup_of(name), open_data=MadeUp)
    half = dataclasses.replace(case.config, train=dataclasses.replace(case.config.train, num_steps=2))
    for config, workdir in ((case.config, "whole"), (half, "parts"), (case.config, "parts")):
        assert train(config, tmp_path / workdir) == loop.EXIT_DONE
    whole, parts = (restore_params(tmp_path / name, which="params") for name in ("whole", "parts"))
    assert whole[1] == parts[1] == 4
    jax.tree.map(np.testing.assert_array_equal, whole[0], parts[0])


# The radiance field's samples `test_devices.py` and `test_evaluate.py` draw on four devices.
ON_FOUR = [f"{name}:training" if name == "radiance_field" else name for name in QUICK]


@pytest.mark.parametrize("names", [ON_FOUR, pytest.param(["radiance_field", *LONG], marks=pytest.mark.slow)])
def test_four_devices_compute_what_one_does(names, tmp_path):
    """Of every model a training step, and samples; in one process that has as many devices."""
    if jax.device_count() > 1:
        pytest.skip("this process has several devices itself")
    done = run_command("tests.on_four_devices.forward_models", tmp_path, *names, env=environment(devices=4))
    assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        one, four = computed(name), dict(np.load(tmp_path / f"{name}.npz"))
        assert one.keys() == four.keys()
        difference = {part: np.abs(four[part] - one[part]).max() for part in one}
        gradients = [part for part in one if part.startswith("gradient")]
        # Sums over devices are in another order: float32's rounding through the model, forth and back.
        assert difference["loss"] < 1e-5 * abs(one["loss"])
        largest = max(np.abs(one[part]).max() for part in gradients)
        assert max(difference[part] for part in gradients) < 1e-4 * largest, name
        if not name.endswith(":training"):
            assert difference["samples"] < 1e-4 < np.ptp(one["samples"]), name
