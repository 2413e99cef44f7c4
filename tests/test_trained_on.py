"""What a run was trained on is stored with it: data that was replaced between stop and resume is noticed."""

import json
import shutil

import pytest

from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.trained_on import follow
from dfm_jax.training import loop
from tests.linear_run import SPLIT, LinearData, linear_setup, settings

MORE = SPLIT | {"scenes": 64, "frames": 832, "index": "4321", "files": "8765"}


@pytest.fixture
def data():
    return LinearData()


def trained_on(workdir):
    with Checkpoints(workdir) as checkpoints:
        return list(checkpoints.trained_on(checkpoints.latest_step()))


def run(data, workdir, num_steps):
    loop.train(settings(num_steps=num_steps), workdir, make_setup=linear_setup, open_data=lambda _: data)


def train(data, workdir, num_steps, capsys):
    """What is said of the data."""
    capsys.readouterr()
    run(data, workdir, num_steps)
    return [line for line in capsys.readouterr().err.splitlines() if "training data" in line]


def test_data_that_stayed_is_not_mentioned_and_data_that_was_replaced_is(data, tmp_path, capsys):
    assert train(data, tmp_path, 2, capsys) == []
    assert train(data, tmp_path, 3, capsys) == []
    assert trained_on(tmp_path) == [{"since": 0, "split": SPLIT}]
    data.fingerprint = dict(MORE)
    assert train(data, tmp_path, 4, capsys) == [
        "warning: the training data is not what it was until step 3 (scenes 12 -> 64, frames 156 -> 832): the run "
        "continues with what is there now, and cannot be repeated bit for bit any more"
    ]
    assert train(data, tmp_path, 5, capsys) == []  # once is enough
    assert trained_on(tmp_path) == [{"since": 0, "split": SPLIT}, {"since": 3, "split": MORE}]


def test_of_a_checkpoint_that_does_not_say_nothing_is_claimed(data, tmp_path, capsys):
    """As those of earlier versions."""
    train(data, tmp_path, 2, capsys)
    checkpoint = tmp_path / "checkpoints" / "2"
    shutil.rmtree(checkpoint / "data")
    sums = json.loads((checkpoint / "checksums.json").read_text())
    kept = {name: value for name, value in sums.items() if not name.startswith("data/")}
    assert len(kept) < len(sums)
    (checkpoint / "checksums.json").write_text(json.dumps(kept))
    assert trained_on(tmp_path) == []
    data.fingerprint = dict(MORE)
    assert train(data, tmp_path, 3, capsys) == []
    assert trained_on(tmp_path) == [{"since": 2, "split": MORE}]


def test_a_damaged_history_is_found_like_other_damage(data, tmp_path, capsys):
    train(data, tmp_path, 4, capsys)
    path = tmp_path / "checkpoints" / "4" / "data" / "metadata"
    path.write_bytes(path.read_bytes()[:-3] + b"???")
    run(data, tmp_path, 5)
    assert "step 4 is damaged: data/metadata has changed" in capsys.readouterr().err


def test_what_is_not_known_is_no_change():
    history = [{"since": 0, "split": SPLIT | {"files": None}}]
    assert follow(history, SPLIT, 5) == history
