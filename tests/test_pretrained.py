"""Packed checkpoints: what comes out is what went in, and other files are refused."""

import json

import jax
import numpy as np
import optax
import pytest

from configs import toy as toy_config
from dfm_jax.config_reading import from_dict
from dfm_jax.errors import UserError
from dfm_jax.training import pretrained
from dfm_jax.training.checkpoints import Checkpoints, Retention, restore_params
from dfm_jax.training.compatibility import check_same_config, complete
from dfm_jax.training.state import create
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
    with pytest.raises(UserError, match="has checkpoints already"):
        pretrained.unpack(tmp_path / "new", tmp_path / "packed.npz")


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
    assert capsys.readouterr().err.startswith("error: the config cannot be used:")
