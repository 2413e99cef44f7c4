"""Checksums: damage is found, by `verify` and by whoever reads."""

import json
import os
import pathlib
import shutil

import pytest

from dfm_jax.data import verify
from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import dataset
from dfm_jax.data.preparing import building
from dfm_jax.errors import UserError
from tests.test_data_conversion import OPTIONS, cut, flip_a_bit


@pytest.mark.parametrize("damage", [flip_a_bit, cut, pathlib.Path.unlink])
@pytest.mark.parametrize("config", ["frames", "scenes"])
def test_verify_finds_damage(tmp_path, capsys, damage, config):
    building.prepare(procedural.ToySource(2, 4, 0), tmp_path, "toy", OPTIONS)
    command = [f"--data_dir={tmp_path}", "--name=toy"]
    assert verify.main(command) == 0
    assert json.loads(capsys.readouterr().out)["files"] == 4
    damage(tmp_path / "toy" / config / "1.0.0" / "posed_scenes-train.array_record-00000-of-00001")
    assert verify.main(command) == 1
    assert f"1 of 4 files of {tmp_path / 'toy'} are damaged or missing: {config}/1.0.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "content",
    ["", '{"splits": {"tr', "[]", '{"files": {}}', '{"splits": {"train": {"names": ["a"], "num_frames": []}}}'],
)
def test_a_damaged_index_is_one_error(tmp_path, capsys, content):
    building.prepare(procedural.ToySource(2, 4, 0), tmp_path, "toy", OPTIONS)
    index = tmp_path / "toy" / dataset.INDEX_FILE
    index.write_text(content)
    assert verify.main([f"--data_dir={tmp_path}", "--name=toy"]) == 1
    assert f"error: {index} is damaged" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"dataset\.json is damaged"):
        dataset.open_dataset(tmp_path, "toy", "train")


@pytest.mark.parametrize("config", ["frames", "scenes"])
def test_reading_a_damaged_data_set_is_an_error_that_names_verify(tmp_path, config):
    building.prepare(procedural.ToySource(2, 4, 0), tmp_path, "toy", OPTIONS)
    cut(tmp_path / "toy" / config / "1.0.0" / "posed_scenes-train.array_record-00000-of-00001")
    data = dataset.open_dataset(tmp_path, "toy", "train")
    with pytest.raises(UserError, match=r"is damaged .* dfm_jax\.data\.verify"):
        data.encoded_image(data.scene(0), 0)


@pytest.mark.parametrize("config", ["frames", "scenes"])
def test_a_file_that_is_cut_while_it_is_read_is_the_same_error(tmp_path, config):
    # As many as make the files longer than what is read at once.
    building.prepare(procedural.ToySource(40, 32, 0), tmp_path, "toy", OPTIONS)
    data = dataset.open_dataset(tmp_path, "toy", "train")
    data.encoded_image(data.scene(0), 0)
    os.truncate(tmp_path / "toy" / config / "1.0.0" / "posed_scenes-train.array_record-00000-of-00001", 1000)
    with pytest.raises(UserError, match=r"toy is damaged .* dfm_jax\.data\.verify lists .* put them back"):
        for n in range(len(data)):
            data.image(data.scene(n), 0, 32)


@pytest.mark.parametrize("config", ["frames", "scenes"])
@pytest.mark.parametrize("file", ["dataset_info.json", "features.json", "."])
def test_what_describes_the_records_is_missed_with_the_same_error(tmp_path, config, file):
    building.prepare(procedural.ToySource(2, 4, 0), tmp_path, "toy", OPTIONS)
    missing = tmp_path / "toy" / config / "1.0.0" / file
    shutil.rmtree(missing) if file == "." else missing.unlink()
    data = dataset.open_dataset(tmp_path, "toy", "train")
    with pytest.raises(UserError, match=r"is damaged .* dfm_jax\.data\.verify"):
        data.encoded_image(data.scene(0), 0)


def test_verify_needs_a_data_set_with_checksums(tmp_path):
    with pytest.raises(UserError, match="there is no data set 'toy'"):
        verify.verify(tmp_path, "toy")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / dataset.INDEX_FILE).write_text('{"splits": {}}')
    with pytest.raises(UserError, match="made before there were checksums"):
        verify.verify(tmp_path, "toy")
