"""Earlier names of settings: read wherever settings come from, and told once."""

import dataclasses
import json

import pytest

from dfm_jax.config import renamed
from dfm_jax.config.changes import with_sampling
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import flatten
from dfm_jax.errors import UserError
from dfm_jax.runs import compatibility, earlier_results

VALUES = {"again_probability": 0.5, "protocol": "views.json", "context_memory": 2.0}
EARLIER = [f"--config.{name}={VALUES[name.rpartition('.')[2]]}" for name in renamed.RENAMED]
TOY = "configs/toy.py:tiny"


@pytest.fixture(autouse=True)
def nothing_told():
    renamed._tell.cache_clear()


def holds(config):
    settings = flatten(config)
    return {old.rpartition(".")[2]: settings[new] for old, new in renamed.RENAMED.items()} == VALUES


def with_earlier_names(config):
    """As a run stored it."""
    settings = json.loads(json.dumps(dataclasses.asdict(config)))
    for old, new in renamed.RENAMED.items():
        *path, field = new.split(".")
        group = settings
        for part in path:
            group = group[part]
        group[old.rpartition(".")[2]] = group.pop(field)
    return settings


def test_names_lead_to_settings_that_there_are_and_not_to_others_that_are_renamed():
    assert set(renamed.RENAMED.values()) <= flatten(read_config(TOY)).keys()
    assert not renamed.RENAMED.keys() & flatten(read_config(TOY)).keys()


def test_options(capsys):
    assert holds(read_config(TOY, EARLIER)) and holds(read_config(TOY, EARLIER))
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(
        f"config.{old} is called config.{new} now" for old, new in renamed.RENAMED.items()
    )


def test_options_that_only_look_alike_stay_as_they_are():
    for argument in ("--config.evaluate.protocols=x", "--evaluate.protocol=x", "--config=evaluate.protocol", "word"):
        assert renamed.current_option(argument, "-config") == argument


def test_a_config_file_that_changes_a_shipped_recipe(tmp_path, capsys):
    file = tmp_path / "mine.py"
    lines = [f"    config.{name} = {VALUES[name.rpartition('.')[2]]!r}" for name in renamed.RENAMED]
    file.write_text(
        "from .toy import get_config as toy\n\n\ndef get_config():\n    config = toy('tiny')\n"
        + "\n".join([*lines, "    return config", ""])
    )
    assert holds(read_config(str(file))) and len(capsys.readouterr().err.splitlines()) == len(VALUES)


def test_the_settings_of_a_checkpoint_of_which_nothing_is_told(capsys):
    saved = with_earlier_names(read_config(TOY, EARLIER))
    capsys.readouterr()
    before = json.dumps(saved)
    assert holds(read_config("", [], compatibility.complete(saved)))
    assert json.dumps(saved) == before and not capsys.readouterr().err


def test_a_call(capsys):
    config = with_sampling(read_config(TOY), {"context_memory": 3.0})
    assert config.sample.context_cache_gb == 3.0 and "config.sample.context_cache_gb" in capsys.readouterr().err
    with pytest.raises(UserError, match="'memory' is no setting of sampling"):
        with_sampling(config, {"memory": 3.0})


def test_results_that_were_stored_under_an_earlier_name_are_gone_on_with(tmp_path):
    config = read_config(TOY)
    (tmp_path / earlier_results.FILE).write_text(json.dumps({"sample": with_earlier_names(config)["sample"]}))
    (tmp_path / "result").touch()
    place, message = earlier_results.place_for(tmp_path, {"sample": dataclasses.asdict(config.sample)}, ("result",))
    assert (place, message) == (tmp_path, "")
