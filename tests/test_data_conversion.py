"""Conversion in shards: the same bytes whoever converts, and however often it is interrupted."""

import functools
import importlib.util
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest

from dfm_jax.data import prepare
from dfm_jax.data.builders import procedural
from dfm_jax.data.loading import dataset
from dfm_jax.data.preparing import building, posed_scenes, runners, shards
from dfm_jax.errors import UserError
from tests.programs import PATIENCE
from tests.realestate10k_source import camera_line, replace_line, write_clip

OPTIONS = posed_scenes.StoreOptions(image_size=0, min_frames=3)


def contents(folder):
    """Bytes of all files below, by their paths."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def identities(folder):
    """Of the files of frames, by name. A file keeps its own when its folder is moved; a new one may have the number of
    one that is gone, but not its time."""
    found = {path.name: path.stat() for path in folder.rglob("frames/**/*.array_record*")}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SCENES_PER_SHARD", 2)


@pytest.fixture
def clips(tmp_path):
    """Of two splits; some of them, and of their frames, cannot be used."""
    for number, (name, split) in enumerate([("a", "train"), ("b", "train"), ("c", "train"), ("d", "test")]):
        cameras, folder = write_clip(tmp_path / "source", name, 4 + number, split, number)
        if name == "b":
            folder.rename(tmp_path / "elsewhere")
        if name in "cd":
            replace_line(cameras, 3, camera_line(2, {1: 0.0}))
    return tmp_path / "source"


def convert(source, data_dir, *options):
    return prepare.main(["--format=realestate10k", f"--source={source}", f"--data_dir={data_dir}", *options])


@pytest.mark.parametrize(
    "options",
    [
        ["--num_workers=2"],
        pytest.param(
            ["--runner=DirectRunner", "--beam_options=--direct_num_workers=1 --direct_running_mode=in_memory"],
            marks=pytest.mark.skipif(
                importlib.util.find_spec("apache_beam") is None, reason="needs Apache Beam, the extra [beam]"
            ),
        ),
    ],
)
def test_whoever_converts_the_bytes_are_the_same(clips, small_shards, tmp_path, capsys, options):
    assert convert(clips, tmp_path / "one", "--num_workers=1") == 0
    assert convert(clips, tmp_path / "other", *options) == 0
    one, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (one["scenes"], one["frames"], one["missing_videos"]) == (3, 15, 1)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")  # the quarantine files, too
    paths = {"path", "quarantine"}
    assert {key: one[key] for key in one.keys() - paths} == {key: other[key] for key in other.keys() - paths}


def test_frames_are_found_across_shards(tmp_path, small_shards):
    source = procedural.ToySource(num_scenes=5, image_size=4, seed=0)
    building.prepare(source, tmp_path, "toy", OPTIONS)
    data = dataset.open_dataset(tmp_path, "toy", "train")
    for number, name in enumerate(source.splits()["train"]):
        scene, expected = data.scene(number), source.read("train", name)
        assert scene.name == name and scene.first_frame == 13 * number
        assert [data.encoded_image(scene, i) for i in range(13)] == [frame.load() for frame in expected.frames]


def test_beam_that_is_missing_is_an_error_that_names_the_extra(clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert convert(clips, tmp_path / "data", "--runner=DirectRunner") == 1
    assert "needs Apache Beam: pip install 'dfm_jax[beam]'" in capsys.readouterr().err


def test_a_source_without_scenes_is_one_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(procedural.ToySource, "splits", lambda self: {"train": []})
    assert prepare.main(["--format=toy", f"--data_dir={tmp_path}"]) == 1
    assert capsys.readouterr().err == "error: nothing of the source was chosen: there is no scene to convert\n"
    assert [path.name for path in tmp_path.iterdir()] == [".toy.lock"]


# Interruptions


SEVERAL_SHARDS = 250  # scenes


def toy_options(directory, *options, num_scenes=7, num_workers=1):
    numbers = f"--num_scenes={num_scenes}", f"--num_workers={num_workers}"
    return ["--format=toy", f"--data_dir={directory}", "--image_size=4", *numbers, *options]


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """What a conversion to several shards makes that nobody interrupts."""
    directory = tmp_path_factory.mktemp("several")
    building.prepare(procedural.ToySource(SEVERAL_SHARDS, 4, 0), directory, "toy", OPTIONS)
    return contents(directory / "toy")


@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_killed_conversion_goes_on_from_the_finished_shards(tmp_path, several, num_workers):
    options = toy_options(tmp_path, num_scenes=SEVERAL_SHARDS, num_workers=num_workers)
    command = [sys.executable, "-m", "dfm_jax.data.prepare", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    unfinished = tmp_path / ".toy.incomplete"
    deadline = time.monotonic() + PATIENCE
    while not shards.any_finished(unfinished) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(UserError, match="no data set 'toy'"):
        dataset.open_dataset(tmp_path, "toy", "train")
    time.sleep(0.3)  # for its processes to notice
    finished = len(list(unfinished.glob("shards/*.result")))
    before = identities(unfinished)
    assert 0 < finished < 5
    assert prepare.main(toy_options(tmp_path, num_scenes=SEVERAL_SHARDS)) == 0 and not unfinished.exists()
    after = identities(tmp_path / "toy")
    assert sum(before.get(name) == inode for name, inode in after.items()) == finished
    assert contents(tmp_path / "toy") == several


@pytest.fixture
def whole(tmp_path, small_shards):
    """What a conversion that nobody interrupts makes."""
    assert prepare.main(toy_options(tmp_path / "whole")) == 0
    return contents(tmp_path / "whole" / "toy")


@pytest.fixture
def interrupted(tmp_path, small_shards, monkeypatch):
    """The folder of a conversion whose user loses patience in the fourth shard; three are finished then."""
    read = procedural.ToySource.read

    def impatient(self, split, name):
        if name == "train-000006":
            raise KeyboardInterrupt
        return read(self, split, name)

    with monkeypatch.context() as patch:
        patch.setattr(procedural.ToySource, "read", impatient)
        with pytest.raises(KeyboardInterrupt, match="the same command resumes"):
            prepare.main(toy_options(tmp_path))
    assert not dataset.exists(tmp_path, "toy")
    unfinished = tmp_path / ".toy.incomplete"
    assert len(identities(unfinished)) == 3
    return unfinished


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("damage", [flip_a_bit, cut, pathlib.Path.unlink])
@pytest.mark.parametrize(
    "file",
    [
        "posed_scenes/frames/1.0.0/posed_scenes-train.array_record-00001-of-00004",
        "shards/train-00001.scenes",
        "shards/train-00001.result",
    ],
)
def test_a_damaged_shard_is_converted_again(tmp_path, interrupted, whole, damage, file):
    before = identities(interrupted)
    damage(interrupted / file)
    assert prepare.main(toy_options(tmp_path)) == 0
    assert contents(tmp_path / "toy") == whole
    after = identities(tmp_path / "toy")
    kept = {name for name in before if before[name] == after[name]}
    assert kept == before.keys() - {"posed_scenes-train.array_record-00001-of-00004"}


@pytest.mark.parametrize("option", ["--seed=5", "--min_frames=4", "--num_scenes=8"])
def test_other_options_use_nothing_of_an_interrupted_conversion(tmp_path, interrupted, monkeypatch, option):
    tried = []
    read = procedural.ToySource.read
    monkeypatch.setattr(procedural.ToySource, "read", lambda self, *name: tried.append(name) or read(self, *name))
    assert prepare.main(toy_options(tmp_path, option)) == 0
    assert len(tried) == len(set(tried)) == (24 if option == "--num_scenes=8" else 23)
    assert prepare.main(toy_options(tmp_path / "fresh", option)) == 0
    assert contents(tmp_path / "toy") == contents(tmp_path / "fresh" / "toy")


def test_a_source_that_was_changed_is_converted_anew(clips, tmp_path, small_shards, monkeypatch, capsys):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(building.conversion, "_write_scenes", stop)
        with pytest.raises(KeyboardInterrupt):
            convert(clips, tmp_path / "data", "--num_workers=1")
    (tmp_path / "elsewhere").rename(clips / "frames" / "train" / "b")  # the missing frames are found
    assert convert(clips, tmp_path / "data", "--num_workers=1") == 0
    assert json.loads(capsys.readouterr().out)["scenes"] == 4


# Processes that fail


class Broken(procedural.ToySource):
    """Fails at its first scene, in its own way."""

    def __init__(self, fail):
        super().__init__(num_scenes=4, image_size=4, seed=0)
        self._fail = fail

    def read(self, split, name):
        self._fail()


def disk_full():
    raise OSError(28, "No space left on device")


def bug():
    raise RuntimeError("the importer has a bug")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [(disk_full, OSError, "No space"), (bug, RuntimeError, "has a bug"), (die, UserError, "was killed .*num_workers")],
)
def test_what_a_process_fails_at_is_raised(tmp_path, small_shards, fail, error, message):
    run = functools.partial(runners.in_processes, 2)
    with pytest.raises(error, match=message):
        building.prepare(Broken(fail), tmp_path, "toy", OPTIONS, run=run)
    assert [path.name for path in tmp_path.iterdir()] == [".toy.lock"]


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)  # of a file, which is as good
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        code = prepare.main(toy_options(tmp_path, num_scenes=64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1 and capsys.readouterr().err.splitlines()[-1].startswith("error: write() failed: File too large")
    assert [path.name for path in tmp_path.iterdir()] == [".toy.lock"]
