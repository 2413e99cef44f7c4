"""The loop around the step, with a linear model and made-up batches instead of the real ones."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config import ResNet34Config
from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.interop.imagenet import load_encoder
from dfm_jax.runs import metric_writers
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.train_state import create
from dfm_jax.training import loop
from dfm_jax.training.monitor import Monitor, NonFiniteError, format_duration
from dfm_jax.training.optimizers import make_optimizer
from tests.linear_run import linear_setup, parameters, settings, steps, train
from tests.torchvision_state import resnet34_state

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture
def at():
    """What to do at which batch."""
    return {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a run that nothing happened to; copied before it is used."""
    workdir = tmp_path_factory.mktemp("whole")
    train(settings(), workdir)
    return workdir


def test_a_run_leaves_checkpoints_a_curve_and_pictures(at, tmp_path):
    assert train(settings(sample_every=3), tmp_path, at) == loop.EXIT_DONE
    assert steps(tmp_path) == [4, 6]  # two are kept
    lines = metric_writers.read_metrics(tmp_path)
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert {"loss", "gradient_norm", "learning_rate", "noise"} <= set(lines[0])
    assert {"steps_per_second", "rays_per_second"} <= set(lines[-1])
    assert "finite" not in lines[0]
    assert sorted(path.name for path in (tmp_path / "images" / "samples").iterdir()) == ["00000003.png", "00000006.png"]
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_a_run_in_two_parts_ends_as_one(whole, at, tmp_path):
    train(settings(num_steps=3), tmp_path / "parts", at)
    train(settings(), tmp_path / "parts", at)
    np.testing.assert_array_equal(parameters(whole), parameters(tmp_path / "parts"))


def test_a_finished_run_says_so(whole, at, tmp_path, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    assert train(settings(), tmp_path, at) == loop.EXIT_DONE
    assert "has reached step 6 of 6 already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "cause"),
    [(signal.SIGTERM, 75, "SIGTERM"), (signal.SIGHUP, 75, "SIGHUP"), (signal.SIGINT, 130, "Ctrl-C")],
)
def test_a_signal_saves_the_step_and_says_by_the_code_what_to_do(number, code, cause, at, tmp_path, capsys):
    at[2] = lambda: os.kill(os.getpid(), number)
    before = signal.getsignal(number)
    assert train(settings(num_steps=10**5, checkpoint_every=10**5, log_every=10**5), tmp_path, at) == code
    assert signal.getsignal(number) == before
    (step,) = steps(tmp_path)
    assert step >= 3  # and not far beyond; a thread hears of it, which may have to wait for a processor
    assert f"stopped by {cause}; step {step} is saved" in capsys.readouterr().err


def test_a_run_that_was_stopped_ends_in_the_same_bits(whole, at, tmp_path):
    at[2] = lambda: os.kill(os.getpid(), signal.SIGINT)
    train(settings(checkpoint_every=100), tmp_path / "stopped", at)
    at.clear()
    assert train(settings(), tmp_path / "stopped", at) == loop.EXIT_DONE
    np.testing.assert_array_equal(parameters(whole), parameters(tmp_path / "stopped"))


def test_a_second_run_in_a_workdir_is_refused_and_the_first_is_not_harmed(at, tmp_path, capsys):
    refused = []

    def start_another():
        with pytest.raises(UserError, match=f"is in use: process {os.getpid()} on .* has been training") as error:
            train(settings(num_steps=9), tmp_path, at)
        refused.append(error)

    at[3] = start_another
    assert train(settings(), tmp_path, at) == loop.EXIT_DONE
    assert refused and steps(tmp_path) == [4, 6]
    assert [line["step"] for line in metric_writers.read_metrics(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize("bad_batch", [2, 3, 4, 5])
def test_non_finite_numbers_stop_the_run_and_are_never_saved(at, tmp_path, bad_batch):
    at[bad_batch] = lambda: np.nan
    with pytest.raises(NonFiniteError) as error:
        train(settings(), tmp_path, at)
    message = str(error.value)
    assert f"in step {bad_batch + 1}: " in message
    assert "loss nan" in message
    assert f"scenes scene of batch {bad_batch}" in message
    assert max(steps(tmp_path)) <= bad_batch
    assert np.isfinite(parameters(tmp_path)).all()


def test_another_configs_checkpoint_is_refused(whole, at, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    config = settings()
    encoder = dataclasses.replace(config.model.encoder, depth=9)
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder))
    with pytest.raises(UserError, match=r"config\.model\.encoder\.depth: 2 -> 9"):
        train(other, tmp_path, at)


def changed(config, **optimizer):
    optimizer = dataclasses.replace(config.train.optimizer, **optimizer)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, optimizer=optimizer))


def test_a_setting_that_changes_what_the_optimiser_keeps_is_named_and_others_may_change(at, tmp_path, capsys):
    train(settings(num_steps=2), tmp_path, at)
    with pytest.raises(UserError, match=r"skip_spikes was 0\.0 in this run and is 3\.0 now") as error:
        train(changed(settings(), skip_spikes=3.0), tmp_path, at)
    assert "\n" not in str(error.value) and "--config.train.optimizer.skip_spikes=0.0" in str(error.value)
    others = {"learning_rate": 1e-4, "decay_steps": 0, "b1": 0.5, "clip_norm": 3.0, "first_moment_dtype": "bfloat16"}
    capsys.readouterr()
    assert train(changed(settings(), **others), tmp_path, at) == loop.EXIT_DONE
    said = capsys.readouterr().err
    assert [name for name in others if f"another config.train.optimizer.{name}: " not in said] == []


def test_a_metric_that_does_not_exist_is_noticed_before_the_first_step(at, tmp_path, monkeypatch):
    traced, stepped = [], []
    setup = linear_setup(settings())
    counted = dataclasses.replace(setup, step=lambda *arguments: (traced.append(1), setup.step(*arguments))[1])
    monkeypatch.setattr(loop.Monitor, "add", lambda *_: stepped.append(1))
    with pytest.raises(UserError, match=r"keep_best='los' is no metric; there are: .*loss, noise"):
        train(settings(keep_best="los"), tmp_path, at, lambda _: counted)
    assert not stepped
    monkeypatch.undo()
    monkeypatch.setattr(loop, "count_flops", lambda *_: 0.0)
    assert train(settings(keep_best="loss"), tmp_path, at, lambda _: counted) == loop.EXIT_DONE
    assert len(traced) == 1  # to look at the names costs no second look at the step


def test_a_run_may_start_from_anothers_average(whole, at, tmp_path):
    config = dataclasses.replace(settings(), init_from=str(whole))
    optimizer = dataclasses.replace(config.train.optimizer, learning_rate=0.0)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, optimizer=optimizer))
    train(config, tmp_path / "second", at)
    average, _, _ = restore_params(whole, which="ema")
    np.testing.assert_array_equal(parameters(tmp_path / "second"), average["w"])


def test_starting_from_nothing_is_refused(at, tmp_path):
    config = dataclasses.replace(settings(), init_from=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"there is no checkpoint in .*nowhere"):
        train(config, tmp_path / "run", at)


def test_another_kind_of_encoder_is_refused_by_its_name_alone(whole, at, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    config = settings()
    resnet = ResNet34Config("resnet34", base=8, absolute_pose=False, remat=False, init_file="")
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=resnet))
    with pytest.raises(UserError, match=r"model\.encoder\.name: 'dit' -> 'resnet34'") as error:
        train(other, tmp_path, at)
    assert str(error.value).count("config.model.encoder") == 1


def encoder_setup(config):
    """The real encoder's parameters, all ones, and steps that leave them alone."""
    setup, tx = linear_setup(config), make_optimizer(config.train.optimizer)
    model = RadianceFieldModel.from_config(config)
    shapes = parameter_shapes(model)["encoder"]
    step = lambda state, example, key: (
        state.replace(step=state.step + 1),
        {"loss": jnp.float32(0), "finite": jnp.bool_(True)},
    )
    init = lambda key: create({"encoder": jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)}, tx)
    return dataclasses.replace(setup, init=init, step=step)


def test_a_run_may_start_from_public_weights_but_does_not_go_on_from_them(at, tmp_path, monkeypatch, capsys):
    config = settings(num_steps=1)
    encoder = ResNet34Config("resnet34", base=2, absolute_pose=False, remat=False, init_file=str(tmp_path / "w.npz"))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, encoder=encoder))
    with pytest.raises(UserError, match=r"there is no file .*w\.npz"):
        train(config, tmp_path / "run", at, encoder_setup)
    np.savez(tmp_path / "w.npz", **resnet34_state(2, classes=10))
    train(config, tmp_path / "run", at, encoder_setup)
    assert "taken: clean_stem, layer1_*/conv_*" in capsys.readouterr().err
    arrays = load_encoder(tmp_path / "w.npz", RadianceFieldModel.from_config(config)).arrays
    for which in ("params", "ema"):
        saved = restore_params(tmp_path / "run", which=which)[0]["encoder"]
        np.testing.assert_array_equal(saved["layer3_0"]["shortcut"]["kernel"], arrays["layer3_0", "shortcut", "kernel"])
        np.testing.assert_array_equal(saved["noisy_stem"]["bias"], arrays["noisy_stem", "bias"])
        assert np.all(saved["layer3_0"]["film"]["kernel"] == 1)
    (tmp_path / "w.npz").unlink()
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, num_steps=2))
    assert train(longer, tmp_path / "run", at, encoder_setup) == loop.EXIT_DONE


def test_metrics_are_averaged_over_the_interval_and_read_a_step_late():
    class Writer(list):
        def write_scalars(self, step, scalars):
            self.append((step, scalars))

    writer = Writer()
    monitor = Monitor(writer, num_steps=4, log_every=2, rays_per_step=10, describe_batch=str)
    for step in range(1, 5):
        monitor.add(step, {"loss": jnp.float32(step), "finite": jnp.bool_(True)})
    assert [(step, scalars["loss"]) for step, scalars in writer] == [(2, 1.5)]
    monitor.flush()
    assert writer[-1][0] == 4
    assert writer[-1][1]["loss"] == 3.5
    monitor.add(5, {"loss": jnp.float32(1), "finite": jnp.bool_(False)})
    with pytest.raises(NonFiniteError, match="step 5: loss 1; its batch holds 5"):
        monitor.flush()


def test_a_resumed_run_rewrites_what_it_repeats(tmp_path):
    first = metric_writers.FolderWriter(tmp_path)
    for step in (1, 2, 3):
        first.write_scalars(step, {"loss": 1.0})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    second = metric_writers.FolderWriter(tmp_path, start_step=2)
    second.write_scalars(3, {"loss": 2.0})
    second.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 2.0)]


def test_damaged_lines_of_the_metrics_are_left_out_and_said(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        b'{"step": 1, "loss": 2.0}\n{"step": 2, "l\xffss": 1.0}\n[3]\n{"loss": 1.0}\n{"step": 5, "loss": 0.5}\n'
    )
    assert metric_writers.read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}, {"step": 5, "loss": 0.5}]
    assert "3 of the 5 lines" in capsys.readouterr().err


def test_durations_are_short_and_clear():
    assert [format_duration(s) for s in (4.2, 65, 7800, 273600)] == ["5s", "1m05s", "2h10m", "3d04h"]


def test_nothing_is_compiled_after_the_first_steps(at, tmp_path, monkeypatch):
    """Steps, metrics, checkpoints and the log included; the first report is that of step 2."""
    compiled, after_step = [], []
    listen = lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    add = Monitor.add
    monkeypatch.setattr(Monitor, "add", lambda self, *args: (after_step.append(len(compiled)), add(self, *args))[1])
    try:
        train(settings(), tmp_path, at)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert after_step[0] > 0 and len(after_step) == 6
    assert after_step[3:] == [after_step[2]] * 3


def test_what_a_run_left_whose_checkpoints_are_gone_is_kept_apart(at, tmp_path, capsys):
    train(settings(sample_every=3), tmp_path, at)
    curve = (tmp_path / "metrics.jsonl").read_bytes()
    shutil.rmtree(tmp_path / "checkpoints")
    capsys.readouterr()
    train(settings(num_steps=2), tmp_path, at)
    kept = tmp_path / "earlier-run-1"
    assert f"its metrics.jsonl, images, tensorboard are kept in {kept}" in capsys.readouterr().err
    assert (kept / "metrics.jsonl").read_bytes() == curve and len(list((kept / "images" / "samples").iterdir())) == 2
    assert [line["step"] for line in metric_writers.read_metrics(tmp_path)] == [2]
    assert not (tmp_path / "images").exists() and len(list((tmp_path / "tensorboard").iterdir())) == 1
    train(settings(num_steps=4), tmp_path, at)  # a resumed run keeps its own
    assert [line["step"] for line in metric_writers.read_metrics(tmp_path)] == [2, 4]
    assert not (tmp_path / "earlier-run-2").exists()
