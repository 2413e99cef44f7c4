"""Packed checkpoints: what comes out is what went in, and other files are refused."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from configs import toy as toy_config
from dfm_jax.commands.sample import sample
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import UserError
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.compatibility import check_same_config, check_same_parameters, complete
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import create
from dfm_jax.runs.workdirs import shipped_file
from dfm_jax.training import pretrained
from tests.first_settings import FIRST


@pytest.fixture
def config():
    return from_dict(toy_config.get_config("tiny"))


def test_what_is_packed_comes_out_again(config, tmp_path, capsys):
    rng = np.random.default_rng(0)
    params = {
        "encoder": {"stem": {"kernel": rng.normal(size=(3, 4)).astype(np.float32)}, "bias": np.ones(2, np.float32)}
    }
    with Checkpoints(tmp_path / "run", keep=Retention(1)) as checkpoints:
        checkpoints.save(12, create(params, optax.sgd(0.1)), config)
    file = f"--file={tmp_path / 'packed.npz'}"
    assert pretrained.main(["pack", f"--workdir={tmp_path / 'run'}", file]) == 0
    assert pretrained.main(["unpack", f"--workdir={tmp_path / 'new'}", file]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["parameters"] == 14
    again, step, settings = restore_params(tmp_path / "new")
    assert step == 12 and not check_same_config(settings, config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    with pytest.raises(UserError, match="holds checkpoints already"):
        pretrained.unpack(tmp_path / "new", tmp_path / "packed.npz")


def test_no_place_on_this_machine_is_packed(config, tmp_path):
    here = dataclasses.replace(
        config, data=dataclasses.replace(config.data, dir=str(tmp_path)), init_from=str(tmp_path)
    )
    with Checkpoints(tmp_path / "run", keep=Retention(1)) as checkpoints:
        checkpoints.save(1, create({"a": np.ones(2, np.float32)}, optax.sgd(0.1)), here)
    pretrained.pack(tmp_path / "run", tmp_path / "packed.npz")
    with np.load(tmp_path / "packed.npz") as arrays:
        assert str(tmp_path).encode() not in arrays["settings"].tobytes()


def test_packing_needs_to_know_where_to(tmp_path, capsys):
    assert pretrained.main(["pack", f"--workdir={tmp_path}"]) == 1
    assert "pack needs --file" in capsys.readouterr().err


def test_the_checkpoint_that_comes_with_the_package_draws_scenes(tmp_path):
    """Trained elsewhere, it must fit the model of today: clean hidden sides, and the given view again."""
    assert shipped_file("toy").stat().st_size < 10_000_000
    assert pretrained.main(["unpack", f"--workdir={tmp_path / 'run'}"]) == 0
    values = toy_config.get_config("calibrated")
    values.data.update(dir=str(tmp_path / "data"), toy_scenes=4)
    values.sample.update(num_scenes=2, num_samples=1, num_steps=8, video_frames=2, scenes_in_3d=0)
    summary = sample(from_dict(values), tmp_path / "run")
    # 30.5 dB, and all of 720 samples clean, in 15 steps (docs/evaluation.md)
    assert summary.context_psnr > 28 and summary.hidden.purity == 1


def test_the_student_that_comes_with_the_package_is_its_teacher_in_two_steps():
    assert shipped_file("toy-distilled").stat().st_size < 6_000_000
    (student, step, settings), (teacher, _, _) = (restore_params(name) for name in ("toy-distilled", "toy"))
    check_same_parameters(student, teacher, "toy-distilled")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(student))
    config = dataclasses.asdict(from_dict(toy_config.get_config("distilled")))
    assert step == settings["train"]["num_steps"] and settings["sample"] == config["sample"]
    assert settings["distillation"] == config["distillation"] | {"teacher": ""}  # it is no place on this machine


def test_other_files_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(UserError, match="is no packed checkpoint"):
        pretrained.unpack(tmp_path / "run", tmp_path / "other.npz")
    assert pretrained.main(["unpack", f"--workdir={tmp_path / 'run'}", f"--file={tmp_path / 'nowhere.npz'}"]) == 1
    assert "there is no file" in capsys.readouterr().err


def test_what_was_packed_before_a_setting_existed_comes_out_with_it(tmp_path):
    settings = np.frombuffer(json.dumps(FIRST).encode(), np.uint8)
    np.savez(tmp_path / "old.npz", **{"a|b": np.ones(3, np.float32), "settings": settings, "step": np.array(7)})
    pretrained.unpack(tmp_path / "run", tmp_path / "old.npz")
    params, step, again = restore_params(tmp_path / "run")
    assert step == 7 and again == complete(FIRST)
    np.testing.assert_array_equal(params["a"]["b"], np.ones(3))


@pytest.mark.parametrize("settings", [[], {}, {"model": 3}])
def test_settings_of_no_run_are_refused(settings, tmp_path, capsys):
    text = np.frombuffer(json.dumps(settings).encode(), np.uint8)
    np.savez(tmp_path / "bad.npz", a=np.ones(3), settings=text, step=np.array(7))
    assert pretrained.main(["unpack", f"--workdir={tmp_path / 'run'}", f"--file={tmp_path / 'bad.npz'}"]) == 1
    assert capsys.readouterr().err.startswith(("error: the config cannot be used:", "error: config must be a group"))
