"""Saving and restoring the state, and what is refused."""

import copy
import dataclasses
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config import MeshConfig, OptimizerConfig
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import flatten, from_dict
from dfm_jax.errors import UserError
from dfm_jax.runs import checkpoints, compatibility
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import create
from dfm_jax.training import sharding
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.step import train_step
from tests.first_settings import ADDED, FIRST, forget_settings

TOY = str(pathlib.Path(__file__).resolve().parents[1] / "configs" / "toy.py")
TX = make_optimizer(
    OptimizerConfig(learning_rate=1e-2, warmup_steps=1, decay_steps=10, b1=0.9, b2=0.99, clip_norm=1.0, ema_decay=0.9)
)


@dataclasses.dataclass(frozen=True)
class Data:
    name: str = "toy"
    dir: str = "data"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Stands for the program's config: of the same form, smaller."""

    seed: int = 0
    num_steps: int = 10
    data: Data = Data()


def init(key):
    return create({"field": {"kernel": jax.random.normal(key, (3, 2)), "bias": jnp.zeros(2)}}, TX)


def mesh():
    return sharding.make_mesh(MeshConfig(-1, 1), jax.devices()[:1])


def step(state):
    def loss(params, x, key):
        noise = jax.random.normal(key, (2,))
        return jnp.mean((x @ params["field"]["kernel"] + (params["field"]["bias"] + noise)[None]) ** 2), {}

    return train_step(
        state, jnp.ones((4, 3)), jax.random.key(1), tx=TX, loss=loss, accumulate=1, ema_decay=0.9, ema_every=1
    )[0]


def test_save_restore_step_equals_step_bit_for_bit(tmp_path):
    state = step(step(init(jax.random.key(0))))
    with Checkpoints(tmp_path, keep=Retention(2)) as store:
        assert store.latest_step() is None
        store.save(2, state, Settings())
    with Checkpoints(tmp_path, keep=Retention(2)) as store:
        restored = store.restore(store.latest_step(), sharding.abstract_state(init, mesh()))
        assert store.config(2) == compatibility.complete(dataclasses.asdict(Settings()))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    jax.tree.map(np.testing.assert_array_equal, step(restored), step(state))


def test_items_lie_where_scripts_look_for_them_and_old_ones_go(tmp_path):
    with Checkpoints(tmp_path, keep=Retention(2)) as store:
        for n in (1, 2, 3):
            store.save(n, init(jax.random.key(n)), Settings())
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    for item in ("params", "opt_state", "ema", "config"):
        assert (tmp_path / "checkpoints" / "3" / item).is_dir()


def test_the_average_or_the_parameters_are_read_alone(tmp_path):
    state = step(step(init(jax.random.key(0))))  # the first step's learning rate is 0
    with Checkpoints(tmp_path, keep=Retention(1)) as store:
        store.save(7, state, Settings(seed=5))
    ema, at, config = checkpoints.restore_params(tmp_path)
    params, _, _ = checkpoints.restore_params(tmp_path, which="params")
    assert (at, config["seed"]) == (7, 5)
    jax.tree.map(np.testing.assert_array_equal, ema, state.ema)
    jax.tree.map(np.testing.assert_array_equal, params, state.params)
    assert not np.array_equal(ema["field"]["kernel"], params["field"]["kernel"])


def test_no_checkpoint_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint in"):
        checkpoints.restore_params(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="is complete"):
        checkpoints.restore_params(tmp_path)


def test_missing_unexpected_and_misshapen_parameters_are_all_listed(tmp_path):
    with Checkpoints(tmp_path, keep=Retention(1)) as store:
        store.save(1, init(jax.random.key(0)), Settings())
    target = sharding.abstract_state(
        lambda key: {"field": {"kernel": jnp.zeros((3, 4)), "scale": jnp.zeros(2)}}, mesh()
    )
    with pytest.raises(UserError) as error:
        checkpoints.restore_params(tmp_path, target=target)
    message = str(error.value)
    assert "missing: field/scale (2,)" in message
    assert "unexpected: field/bias (2,)" in message
    assert "field/kernel is (3, 2), not (3, 4)" in message


def test_another_config_is_refused_with_both_values_but_length_and_place_are_free():
    saved = dataclasses.asdict(Settings())
    assert compatibility.check_same_config(saved, Settings(), "w") == []
    free = compatibility.check_same_config(saved, Settings(num_steps=20, data=Data(dir="elsewhere")), "w")
    assert free == ["config.num_steps: 10 -> 20", "config.data.dir: 'data' -> 'elsewhere'"]
    with pytest.raises(UserError) as error:
        compatibility.check_same_config(saved, Settings(seed=3, num_steps=20, data=Data("other")), "w")
    assert "config.seed: 0 -> 3" in str(error.value)
    assert "config.data.name: 'toy' -> 'other'" in str(error.value)
    assert "num_steps" not in str(error.value)
    del saved["seed"]
    with pytest.raises(UserError, match=r"config\.seed: '\(absent\)' -> 0"):
        compatibility.check_same_config(saved, Settings(), "w")


def test_every_setting_that_was_added_has_a_value_as_before():
    """Fails where a setting is new in `config/` without a default, or has another default than it had."""
    config = from_dict(compatibility.complete(FIRST))
    flat, first = flatten(config), flatten(FIRST)
    assert {name: flat[name] for name in first} == first
    before = ADDED | compatibility.BEFORE_BY_RULE["toy"]
    assert {name: flat[name] for name in before} == before
    assert flatten(compatibility.complete(FIRST)) == flat, "what is compared with a new run's settings has them too"


RULES = ("realestate10k", "co3d", "toy", "captures")  # that there were before photographs had settings


@pytest.mark.parametrize("rule", RULES)
def test_older_runs_take_photographs_as_their_configs_do(rule):
    flat = flatten(read_config(f"configs/{rule}.py"))
    assert flat["data.view_sampling.rule"] == rule
    assert {name: flat[name] for name in compatibility.BEFORE_BY_RULE[rule]} == compatibility.BEFORE_BY_RULE[rule]


def test_settings_that_are_there_stay_and_encoders_get_their_own():
    config = dataclasses.asdict(read_config(TOY))
    for variant in ("", ":resnet34", ":pixelnerf", ":lean"):
        settings = dataclasses.asdict(read_config(TOY + variant))
        assert compatibility.complete(settings) == settings
    del config["model"]["proposal"]
    before = copy.deepcopy(config)
    assert compatibility.complete(config)["model"]["proposal"] is None
    assert config == before, "what is given stays as it is"


@pytest.mark.parametrize("saved", [[], {"model": None}, {"model": {"encoder": 3}}])
def test_what_is_no_group_of_settings_is_one_clear_error(saved):
    with pytest.raises(UserError, match=r"must be a group of fields|must be one of dit"):
        from_dict(compatibility.complete(saved))


@pytest.mark.parametrize("part", ["checkpoints", "checkpoints/1", "samples", "samples/scene_00"])
def test_of_a_part_of_a_run_the_run_is_named(tmp_path, part):
    with Checkpoints(tmp_path / "run", keep=Retention(1)) as store:
        store.save(1, init(jax.random.key(0)), read_config(TOY))
    with pytest.raises(UserError, match=f"name the run that it is a part of, {re.escape(str(tmp_path / 'run'))}$"):
        checkpoints.restore_params(tmp_path / "run" / part)
    with pytest.raises(UserError, match="is this the --workdir of a training run"):
        checkpoints.restore_params(tmp_path / "elsewhere" / part)


def test_a_run_from_before_a_setting_existed_goes_on_if_the_setting_changes_nothing(tmp_path):
    config = read_config(TOY)
    with Checkpoints(tmp_path, keep=Retention(1)) as store:
        store.save(1, init(jax.random.key(0)), config)
    forget_settings(tmp_path / "checkpoints" / "1", "model.proposal", "model.encoder.position_grid")
    saved = checkpoints.restore_params(tmp_path)[2]
    assert compatibility.check_same_config(saved, config, "w") == []
    with pytest.raises(UserError, match=r"config\.model\.encoder\.position_grid: 0 -> 4"):
        changed = read_config(TOY, ["--config.model.encoder.position_grid=4"])
        compatibility.check_same_config(saved, changed, "w")


@pytest.mark.parametrize(("guidance", "dropout", "told"), [(1.0, 0.0, 0), (2.0, 0.1, 0), (2.0, 0.0, 1), (0.5, 0.0, 1)])
def test_guidance_of_a_model_that_was_trained_without_is_told(guidance, dropout, told, capsys):
    config = read_config(f"{TOY}", [f"--config.sample.guidance={guidance}"])
    compatibility.tell_untrained_guidance({"diffusion": {"guidance_dropout": dropout}}, config)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == told and all("guidance_dropout=0" in line for line in lines)
