"""The benchmark of the input pipeline runs, and says what it measured."""

import dataclasses
import json

import pytest

from dfm_jax.data import loading_benchmark


def test_it_measures_every_published_setting(capsys, monkeypatch):
    monkeypatch.setattr(loading_benchmark, "BATCHES", 1)
    monkeypatch.setattr(loading_benchmark, "NUM_SCENES", 3)
    small = {key: dataclasses.replace(entry, batch_size=2) for key, entry in loading_benchmark.SETTINGS.items()}
    monkeypatch.setattr(loading_benchmark, "SETTINGS", small)
    assert loading_benchmark.main(["--step_seconds=0.01", "--num_threads=1"]) == 0
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (measured.pop("step_seconds"), measured.pop("num_threads")) == (0.01, 1)
    assert measured.keys() == loading_benchmark.SETTINGS.keys()
    for key, numbers in measured.items():
        setting = loading_benchmark.SETTINGS[key]
        views = setting.batch_size * (setting.max_context + setting.num_target)
        per_core = numbers["views_per_second_per_core"]
        # The numbers are printed rounded.
        assert numbers["cores_per_step"] == pytest.approx(views / 0.01 / per_core, rel=0.01)
        assert numbers["batches_per_second"] > 0 and numbers["seconds_waited"] >= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name=toy"], "belong together"),
        (["--step_seconds=0"], "must be positive"),
        (["--num_threads=0"], "must be positive"),
        (["--data_dir=nowhere", "--name=toy"], "no data set 'toy'"),
    ],
)
def test_wrong_options_are_one_error(capsys, options, message):
    assert loading_benchmark.main(options) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1
