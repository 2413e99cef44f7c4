"""Results that are written anew: what was there stays until they are complete, whatever ends the program."""

import errno
import os
import shutil
import subprocess
import sys
import types

import pytest

from dfm_jax.errors import UserError
from dfm_jax.runs import lock, output_folders
from dfm_jax.runs.output_folders import cure_of

OURS = ("scene_*", "index.html", "numbers.json")


@pytest.fixture
def folder(tmp_path):
    """Two scenes and a page of before, and a note of its owner."""
    folder = tmp_path / "samples"
    fill(folder, "old", ("scene_0/a.png", "scene_1/a.png", "index.html", "numbers.json", "mine.txt"))
    return folder


def fill(folder, text, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


NEW = ("scene_0/a.png", "scene_0/b.png", "index.html", "numbers.json")


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


OLD = dict.fromkeys(("scene_0/a.png", "scene_1/a.png", "index.html", "numbers.json", "mine.txt"), "old")
REPLACED = dict.fromkeys(NEW, "new") | {"mine.txt": "old"}


def replacing(folder, num_bytes=0):
    return output_folders.replacing(folder, OURS, "sampling", num_bytes)


def test_complete_results_take_the_place_of_those_of_before_and_nothing_elses(folder):
    with replacing(folder) as building:
        fill(building, "new", NEW)
        found = contents(folder)
        assert {name: found[name] for name in OLD} == OLD
    assert contents(folder) == REPLACED


def test_what_is_of_something_else_is_not_replaced(tmp_path):
    output_folders.check_ours(tmp_path / "new", OURS, "numbers.json")
    fill(tmp_path, "mine", ["mine.txt"])
    output_folders.check_ours(tmp_path, OURS, "numbers.json")
    fill(tmp_path, "mine", ["index.html"])
    with pytest.raises(UserError, match=r"holds index\.html of something else"):
        output_folders.check_ours(tmp_path, OURS, "numbers.json")
    fill(tmp_path, "ours", ["numbers.json"])
    output_folders.check_ours(tmp_path, OURS, "numbers.json")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a fault"), UserError("bad input")])
def test_an_error_leaves_what_was_there(folder, error):
    with pytest.raises(type(error)) as raised, replacing(folder) as building:
        fill(building, "new", NEW)
        raise error
    assert contents(folder) == OLD
    if isinstance(error, KeyboardInterrupt):
        assert str(raised.value) == f"what was in {folder} stays"


def test_a_folder_that_is_made_for_nothing_is_removed(tmp_path):
    with pytest.raises(ValueError), replacing(tmp_path / "new"):
        raise ValueError
    assert not (tmp_path / "new").exists()


def test_a_second_program_is_refused(folder):
    with replacing(folder), pytest.raises(UserError, match="has been sampling there since"), replacing(folder):
        pass


# Every place where a program may be killed: before each change that it makes to the disk from the end of the block on.
CHANGES = ("rename", "rmdir", "mkdir", "unlink")


def killed_before(change, folder, monkeypatch):
    """Replaces results by a program that is killed before its `change`-th change; whether it got so far."""
    made = []

    class Killed(BaseException):
        pass

    def guarded(module, name):
        original = getattr(module, name)

        def call(*arguments, **named):
            if len(made) == change:
                raise Killed
            made.append(name)
            return original(*arguments, **named)

        monkeypatch.setattr(module, name, call)

    building = folder / output_folders.INCOMPLETE
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    fill(building, "new", NEW)
    for name in CHANGES:
        guarded(os, name)
    try:
        output_folders.place(folder, OURS)
    except Killed:
        return True
    finally:
        monkeypatch.undo()
    return False


def test_killed_at_any_moment_the_next_program_finds_the_old_results_or_completes_the_new(tmp_path, monkeypatch):
    change, seen = 0, set()
    while True:
        folder = tmp_path / str(change)
        fill(folder, "old", OLD)
        if not killed_before(change, folder, monkeypatch):
            break
        output_folders.recover(folder, OURS)
        shutil.rmtree(folder / output_folders.INCOMPLETE, ignore_errors=True)
        assert contents(folder) in (OLD, REPLACED), f"killed before change {change}"
        seen.add(contents(folder) == REPLACED)
        assert not any(path.name.startswith(".") for path in folder.iterdir())
        change += 1
    assert seen == {False, True} and change > 10


def test_what_may_not_be_moved_stays_with_all_others(folder, monkeypatch):
    rename = output_folders.Path.rename

    def refuse(path, target):
        if path == folder / "numbers.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return rename(path, target)

    monkeypatch.setattr(output_folders.Path, "rename", refuse)
    with pytest.raises(UserError, match=r"cannot be written .*Permission denied.*see that it may be written"):  # noqa: SIM117
        with replacing(folder) as building:
            fill(building, "new", NEW)
    assert contents(folder) == OLD


def test_a_disk_without_room_is_told_before_the_work(folder, monkeypatch):
    usage = types.SimpleNamespace(free=10**6)
    monkeypatch.setattr(output_folders.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"1\.0 MB free, .* needs 5\.0 MB or more"), replacing(folder, 5 * 10**6):
        pytest.fail("the work has begun")
    assert contents(folder) == OLD


def test_a_disk_that_becomes_full_is_one_clear_error(folder):
    with pytest.raises(UserError) as error, replacing(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as writing says it, without a name
    assert f"{folder} cannot be written ([Errno 28] No space left on device): see that the disk has room" in str(
        error.value
    )
    assert contents(folder) == OLD


def test_an_error_of_reading_elsewhere_does_not_blame_this_folder(folder, tmp_path):
    with pytest.raises(FileNotFoundError), replacing(folder):
        (tmp_path / "elsewhere").read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="/sys can be written by nobody")
def test_a_folder_that_may_not_be_written_is_one_clear_error():
    with pytest.raises(UserError, match="/sys/samples cannot be written"):  # noqa: SIM117
        with replacing(lock.pathlib.Path("/sys/samples")):
            pytest.fail("the work has begun")


@pytest.mark.parametrize("below", [".", "below", "far/below"])
def test_a_file_in_the_place_of_a_folder_is_one_clear_error(tmp_path, below):
    (tmp_path / "photo.jpg").write_text("mine")
    with pytest.raises(UserError, match=r"photo.jpg.* cannot be written .*: a file stands where a folder is needed"):  # noqa: SIM117
        with replacing(tmp_path / "photo.jpg" / below):
            pytest.fail("the work has begun")
    assert (tmp_path / "photo.jpg").read_text() == "mine"


def test_a_cure_fits_its_cause():
    assert "has room" in cure_of(ValueError("RESOURCE_EXHAUSTED: write: No space left on device"))
    assert "may be written" in cure_of(OSError(errno.EROFS, "Read-only file system"))
    assert "were removed" in cure_of(FileNotFoundError(errno.ENOENT, "gone"))
    assert cure_of(ValueError("an array of strings")) == "start the same command again"


def test_two_programs_at_once_leave_one_result(folder):
    """Each has the folder to itself, or is refused."""
    program = (
        "import pathlib, sys, time\n"
        "from dfm_jax.runs.output_folders import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1]), ['*.json'], 'sampling') as building:\n"
        "    (building / 'numbers.json').write_text(sys.argv[2]); time.sleep(0.3)\n"
    )
    start = lambda text: subprocess.Popen(
        [sys.executable, "-c", program, str(folder), text], stderr=subprocess.PIPE, text=True
    )
    runs = [start("a"), start("b")]
    errors = [run.communicate()[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert 0 in codes
    winners = [text for text, code in zip("ab", codes, strict=True) if code == 0]
    assert (folder / "numbers.json").read_text() in winners, errors
