"""Training on toy as a user runs it: killed and started again, stopped by SIGTERM, on one and on four devices."""

import pathlib
import random
import signal
import socket
import time

import jax
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.errors import UserError
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.metric_writers import read_metrics
from dfm_jax.runs.retention import Retention
from dfm_jax.training import sharding
from dfm_jax.training.initialization import initial_state
from dfm_jax.training.loop import train
from dfm_jax.training.setup import make_train_setup
from tests.programs import Command, environment

ROOT = pathlib.Path(__file__).resolve().parents[1]
NUM_STEPS = 24
# Model and data, as small as they go. pixelNeRF is half the program, and has what a run has; each model is resumed by
# `test_forward_model_runs.py`.
SETTINGS = {
    "image_size": 12,
    "data.toy_scenes": 16,
    "model.encoder.depth": 1,
    "model.encoder.width": 32,
    "model.scene_field.view_blocks": 1,
    "model.ray_marching.num_coarse": 4,
    "loss.patch_size": 4,
    "train.num_steps": NUM_STEPS,
    "train.batch_size": 4,
    "train.checkpoint_every": 4,
    "train.log_every": 1,
    "train.sample_every": 0,
    "train.optimizer.warmup_steps": 1,
}
PIXELNERF, DFM = (f"{ROOT}/configs/toy.py:{variant}" for variant in ("tiny,pixelnerf", "tiny"))
OF_ESTIMATE = {
    "model.estimate_size": 6,
    "model.conditioning_field.view_blocks": 1,
    "model.ray_marching.num_conditioning": 4,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("resume")


def start(folder, workdir, *arguments, config=PIXELNERF, devices=1, quickly=True, **settings):
    """Begins to train in another process."""
    overrides = {"data.dir": folder / "data", **SETTINGS, **(OF_ESTIMATE if config == DFM else {}), **settings}
    return Command(
        "dfm_jax.main",
        f"--config={config}",
        f"--workdir={folder / workdir}",
        *(f"--config.{name}={value}" for name, value in overrides.items()),
        *arguments,
        env=environment(devices, quickly=quickly),
        cwd=folder,
    )


def finish(process, code=0):
    _, errors = process.communicate()
    assert process.returncode == code, errors
    return errors


def wait_for_step(process, workdir, step):
    """Until the run has logged a step."""
    while process.poll() is None:
        if (workdir / "metrics.jsonl").exists() and any(line["step"] >= step for line in read_metrics(workdir)):
            return
        time.sleep(0.02)
    pytest.fail(f"the run ended before step {step}: {process.communicate()[1]}")


def parameters(workdir):
    """All numbers of the averaged and the current parameters, by name."""
    return {
        f"{which}/{path}": np.asarray(x)
        for which in ("ema", "params")
        for path, x in flatten(restore_params(workdir, which)[0])
    }


def flatten(tree, prefix=""):
    for name, value in tree.items():
        yield from flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else [(prefix + name, value)]


@pytest.fixture(scope="module")
def uninterrupted(folder):
    finish(start(folder, "uninterrupted"))
    return parameters(folder / "uninterrupted")


def stop_at(process, workdir, moment, number):
    """Sends a signal at a moment in steps: anywhere between two of them, or in the midst of saving."""
    wait_for_step(process, workdir, int(moment))
    time.sleep(moment % 1 * 0.1)
    assert process.poll() is None, f"the run was over at {moment}"
    process.send_signal(number)


def test_killed_at_any_moment_or_stopped_and_started_again_it_ends_in_the_same_bits(folder, uninterrupted):
    """With its average on the host or on the device, as it happens. SIGTERM saves, and exits with 75."""
    workdir, on_host = folder / "stopped", {"train.optimizer.ema_memory": "host"}
    moments = [random.uniform(1, 12), 14]  # others every time: any must do

    first = start(folder, "stopped", **on_host)
    stop_at(first, workdir, moments[0], signal.SIGKILL)
    first.communicate()
    second = start(folder, "stopped", **{"train.checkpoint_every": 1000})
    stop_at(second, workdir, moments[1], signal.SIGTERM)
    assert "stopped by SIGTERM" in finish(second, code=75)
    assert "resuming from step" in finish(start(folder, "stopped", **on_host))

    assert first.returncode == -signal.SIGKILL, f"stopped at {moments}"
    resumed = parameters(workdir)
    assert resumed.keys() == uninterrupted.keys()
    for name, value in resumed.items():
        np.testing.assert_array_equal(value, uninterrupted[name], err_msg=f"{name}, stopped at {moments}")
    assert [line["step"] for line in read_metrics(workdir)] == list(range(1, NUM_STEPS + 1)), f"stopped at {moments}"


def test_a_run_begins_with_its_average_where_the_config_says(folder):
    small = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    config = read_config(PIXELNERF, [*small, "--config.train.optimizer.ema_memory=host"])
    setup, mesh = make_train_setup(config), sharding.make_mesh(config.train.mesh)
    with Checkpoints(folder / "new", keep=Retention(1)) as checkpoints:
        state = initial_state(config, setup.init, checkpoints, mesh, jax.random.key(0), start_step=0)
    kinds = lambda tree: {x.sharding.memory_kind for x in jax.tree.leaves(tree)}
    assert kinds(state.ema) == {"pinned_host"}
    assert kinds((state.params, state.opt_state)) == {"device"}


def test_a_workdir_with_another_configs_checkpoint_is_one_clear_error(folder, uninterrupted):
    small = [f"--config.{name}={value}" for name, value in SETTINGS.items()]
    config = read_config(PIXELNERF, [*small, f"--config.data.dir={folder}/data", "--config.seed=1"])
    with pytest.raises(UserError, match=r"config\.seed: 0 -> 1"):
        train(config, folder / "uninterrupted")


@pytest.mark.slow  # `test_forward_model_runs.py` takes a step of each model on four, `test_two_processes.py` whole runs
def test_four_devices_train_as_one_does(folder, uninterrupted):
    settings = {"train.num_steps": 3, "train.mesh.data": 2, "train.mesh.fsdp": 2}
    finish(start(folder, "four", devices=4, **settings))
    assert_same_curve(folder / "uninterrupted", folder / "four", 3)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code", "cause"), [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")])
def test_two_processes_train_as_one_does_and_stop_together(folder, uninterrupted, number, code, cause):
    workdir = f"pair-{code}"
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    pair = [
        start(
            folder,
            workdir,
            f"--coordinator={address}",
            "--num_processes=2",
            f"--process_id={i}",
            **{"train.checkpoint_every": 1000, "train.num_steps": 10000},
        )
        for i in range(2)
    ]
    wait_for_step(pair[0], folder / workdir, 3)
    pair[1].send_signal(number)
    errors = [finish(process, code=code) for process in pair]
    assert f"stopped by {cause}" in errors[0]
    assert f"stopped by {cause}" not in errors[1]  # one process speaks for all
    assert_same_curve(folder / "uninterrupted", folder / workdir, 3)
    assert restore_params(folder / workdir)[1] == read_metrics(folder / workdir)[-1]["step"]


def assert_same_curve(one, other, num_steps):
    """Other numbers of devices are other programs. A ReLU at its kink may be open in one of them alone, which moves the
    gradient's norm; and Adam then takes a step in another direction where a gradient is about zero, which moves the
    later losses less. An example that is left out or counted twice moves all of them by a tenth and more."""
    tolerances = {"loss": 1e-3, "target": 1e-3, "gradient_norm": 1e-2}
    for a, b in zip(read_metrics(one)[:num_steps], read_metrics(other)[:num_steps], strict=True):
        for name, tolerance in tolerances.items():
            assert b[name] == pytest.approx(a[name], rel=tolerance), f"{name} at step {a['step']}"
