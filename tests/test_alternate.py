"""Rounds of a program here and of the yardstick, in turn."""

import json
import types

import jax
import jax.numpy as jnp
import pytest

from dfm_jax.profiling import alternate
from dfm_jax.profiling.measure import compile_program

YARDSTICK = """
def median_time(step, runs):
    raise AssertionError("this runs all rounds in one go")

def denoise(size, runs, precision, full):
    print(median_time(lambda: called.append("step"), runs))

def train(size, runs, precision, full):
    print(median_time(lambda: called.append((size, precision)), runs))

called = []
"""


@pytest.fixture
def done(monkeypatch):
    """What ran, in order; a program of one product stands for the training step."""
    order = []

    def training_step(overrides):
        compiled = compile_program(lambda x: x @ x, jax.ShapeDtypeStruct((8, 8), "float32"))
        order.append(list(overrides))
        return lambda: order.append("here") or compiled.call(jnp.eye(8)), compiled

    monkeypatch.setattr(alternate, "PROGRAMS", dict.fromkeys(("train", "gradients", "sample"), training_step))
    read = alternate.load

    def load(path):
        module = read(path)
        module.called = types.SimpleNamespace(append=lambda given: order.append(given))
        return module

    monkeypatch.setattr(alternate, "load", load)
    return order


def test_programs_run_in_turn_and_the_ratio_is_of_rounds(done, tmp_path, capsys):
    (tmp_path / "yardstick.py").write_text(YARDSTICK)
    arguments = [f"--yardstick={tmp_path / 'yardstick.py'}", "--programs=train", "--rounds=3", "--config.seed=4"]
    assert alternate.main(arguments) == 0
    # The first of each warms up.
    assert done == [["--config.seed=4"], *[(32, "fp32"), "here"] * 4]
    row = json.loads(capsys.readouterr().out.splitlines()[-1])["train"]
    assert len(row["rounds"]) == 3 and row["ratio"] in [a / b for a, b in row["rounds"]]
    assert row["tflop"] == 2 * 8**3 / 1e12


@pytest.mark.parametrize(("program", "theirs", "seconds"), [("sample", "step", 50.0), ("gradients", (32, "fp32"), 1.0)])
def test_a_sample_is_fifty_steps_of_the_yardstick_and_gradients_its_training_step(
    program, theirs, seconds, done, tmp_path, capsys, monkeypatch
):
    (tmp_path / "yardstick.py").write_text(YARDSTICK)
    monkeypatch.setattr(alternate, "seconds", lambda start: (start(), 1.0)[1])
    assert alternate.main([f"--yardstick={tmp_path / 'yardstick.py'}", f"--programs={program}", "--rounds=2"]) == 0
    assert done[1:] == [theirs, "here"] * 3
    row = json.loads(capsys.readouterr().out.splitlines()[-1])[program]
    assert row["rounds"] == [[seconds, 1.0]] * 2 and row["ratio"] == seconds


def test_gradients_are_a_training_step_without_its_optimiser(monkeypatch):
    monkeypatch.setattr(alternate, "CONFIG", "configs/linear.py")
    monkeypatch.setattr(alternate, "AT_ITS_SIZE", ())
    monkeypatch.setattr(alternate, "SMALL", ())
    (start, alone), (_, whole) = alternate.gradients(()), alternate.training_step(())
    assert float(start()["gradient_norm"]) > 0
    assert alone.flops == whole.flops > 0
    returned = lambda compiled: compiled.memory.output_size_in_bytes
    assert returned(alone) < 100 < returned(whole)  # metrics; and the parameters, their average, the optimiser's state


@pytest.mark.parametrize(("wrong", "told"), [("--programs=denoize", "denoize"), ("--yardstick=nowhere.py", "no such")])
def test_mistakes_are_one_clear_error(wrong, told, tmp_path, capsys):
    (tmp_path / "yardstick.py").write_text(YARDSTICK)
    assert alternate.main([f"--yardstick={tmp_path / 'yardstick.py'}", wrong]) == 1
    assert told in capsys.readouterr().err


def test_the_programs_are_those_of_the_yardsticks_size():
    config = alternate.read_config(alternate.CONFIG, [*alternate.AT_ITS_SIZE, *alternate.SMALL])
    assert (config.image_size, config.model.compute_dtype, config.train.batch_size) == (32, "float32", 1)
    assert (config.model.encoder.depth, config.loss.coarse, config.loss.lpips) == (4, 0, 0)
