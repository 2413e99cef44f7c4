"""The toy data set that a config asks for is found by what made it, not by its name."""

import concurrent.futures
import dataclasses
import json
import logging
import time

import pytest

from dfm_jax.config import DataConfig, ViewSamplingConfig
from dfm_jax.data import make_toy
from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import dataset, pipeline, toy_data, toy_scenes
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.errors import UserError

SIZE = 8
SAMPLING = ViewSamplingConfig("toy", 1, 1, 1, 1, num_target=2)


def asking_for(data_dir, scenes, name="toy"):
    return DataConfig(
        name=name,
        dir=str(data_dir),
        split="train",
        eval_split="test",
        near=2.6,
        far=5.5,
        toy_scenes=scenes,
        view_sampling=SAMPLING,
        num_threads=0,
        prefetch=1,
    )


def make(data_dir, scenes, size=SIZE, seed=0, name="toy", **options):
    """What `prepare --format=toy` makes."""
    options = posed_scenes.StoreOptions(image_size=0, min_frames=3, **options)
    building.prepare(procedural.ToySource(scenes, size, seed), data_dir, name, options)


def train_split(config):
    return pipeline.open_dataset(config.dir, config.name, "train")


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("dfm_jax")]


@pytest.mark.parametrize("order", [(3, 5), (5, 3)])
def test_runs_that_ask_for_other_numbers_of_scenes_read_other_data(order, tmp_path):
    found = [make_toy.ensure_toy(asking_for(tmp_path, scenes), SIZE) for scenes in (*order, *order)]
    assert [len(train_split(config)) for config in found] == [*order, *order]
    assert [config.name for config in found[:2]] == [f"toy-{scenes}-8px" for scenes in order]
    assert found[2:] == found[:2]


def test_one_that_is_there_is_read_where_nothing_may_be_written(tmp_path, monkeypatch):
    found = make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE)
    monkeypatch.setattr(building, "exclusive", None)
    assert make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE) == found


def test_it_is_generated_once_and_pictures_of_another_size_are_another_data_set(tmp_path):
    config = make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE)
    data = train_split(config)
    assert data.stored_size(data.scene(0)) == SIZE
    written = (tmp_path / config.name / dataset.INDEX_FILE).stat().st_mtime_ns
    assert make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE) == config
    assert (tmp_path / config.name / dataset.INDEX_FILE).stat().st_mtime_ns == written
    assert make_toy.ensure_toy(asking_for(tmp_path, 2), 2 * SIZE).name == "toy-2-16px"


def test_one_that_was_prepared_is_taken_if_it_is_what_is_asked_for(tmp_path, caplog):
    """As those of earlier versions are, which are called so and say nothing of what made them."""
    make(tmp_path, 3, size=2 * SIZE)
    config = asking_for(tmp_path, 3)
    with caplog.at_level(logging.INFO):
        assert make_toy.ensure_toy(config, 2 * SIZE) == config
        assert make_toy.ensure_toy(config, SIZE) == config  # smaller pictures come from larger ones
    assert not lines(caplog) and dataset.names(tmp_path) == ["toy"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"scenes": 3}, "holds 3 scenes, and config.data.toy_scenes=2 asks for others"),
        ({"scenes": 2, "size": SIZE // 2}, "has pictures of 4 pixels, fewer than config.image_size=8"),
        ({"scenes": 2, "seed": 1}, "is not what the generator makes of 2 scenes with seed 0"),
    ],
)
def test_one_that_is_something_else_is_left_alone_and_named(made, said, tmp_path, caplog):
    make(tmp_path, **made)
    config = make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE)
    mine = tmp_path / "toy-2-8px"
    assert lines(caplog) == [f"{tmp_path / 'toy'} {said}: taking {mine}", f"generating 2 toy scenes in {mine}"]
    assert config.name == "toy-2-8px" and len(train_split(config)) == 2
    assert len(train_split(asking_for(tmp_path, 0))) == made["scenes"]


def test_another_version_of_the_generator_is_noticed(tmp_path, monkeypatch):
    make(tmp_path, 2)
    assert make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE).name == "toy"
    with monkeypatch.context() as patch:
        patch.setitem(toy_scenes.SHADE, toy_scenes.FRONT, 0.4)  # of pictures
        assert make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE).name == "toy-2-8px"
    monkeypatch.setattr(toy_scenes, "ORBIT_RADIUS", 4.1)  # of cameras
    with pytest.raises(UserError, match=r"toy-2-8px is not what the generator makes .*delete it, or choose another"):
        make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE)


def test_what_is_no_toy_data_set_is_not_taken_for_one(tmp_path, caplog):
    make(tmp_path, 2)
    index = tmp_path / "toy" / dataset.INDEX_FILE
    content = json.loads(index.read_text())
    content["splits"] = {"garden": content["splits"]["test"]}
    index.write_text(json.dumps(content))
    assert make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE).name == "toy-2-8px"
    assert "toy is no toy data set: taking" in lines(caplog)[0]


def test_without_a_number_of_scenes_what_is_there_is_taken(tmp_path):
    make(tmp_path, 3, seed=1)
    config = asking_for(tmp_path, 0)
    assert make_toy.ensure_toy(config, SIZE) == config
    with pytest.raises(UserError, match="toy_scenes must be at least 1, or 0"):
        make_toy.ensure_toy(asking_for(tmp_path, -1), SIZE)


def test_other_processes_find_it_and_generate_nothing(tmp_path):
    with pytest.raises(UserError, match=r"no data set 'toy-2-8px' in .*: train on it"):
        toy_data.find_toy(asking_for(tmp_path, 2), SIZE)
    assert not list(tmp_path.iterdir())
    made = make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE)
    assert toy_data.find_toy(asking_for(tmp_path, 2), SIZE) == made


def test_two_processes_that_find_it_missing_generate_it_once(tmp_path, monkeypatch):
    builds, build = [], building.build
    monkeypatch.setattr(building, "build", lambda *args: builds.append(time.sleep(0.2)) or build(*args))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: make_toy.ensure_toy(asking_for(tmp_path, 2), SIZE), range(2)))
    assert len(builds) == 1 and found[0] == found[1]


def test_other_data_sets_are_left_alone(tmp_path):
    config = asking_for(tmp_path, 2, name="realestate10k")
    assert make_toy.ensure_toy(config, SIZE) is config and not list(tmp_path.iterdir())


def test_pictures_so_small_that_some_are_equal_are_still_known(tmp_path):
    config = make_toy.ensure_toy(asking_for(tmp_path, 2), 4)
    assert toy_data.find_toy(asking_for(tmp_path, 2), 4) == dataclasses.replace(config, name="toy-2-4px")
