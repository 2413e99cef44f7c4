"""Several processes share out what one does, and end in the same."""

import json
import pickle
import signal
import socket
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import linear
from dfm_jax.commands import evaluate as evaluation
from dfm_jax.commands import signals as signal_modes
from dfm_jax.commands.evaluate import evaluate
from dfm_jax.commands.sample import sample
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import UserError
from dfm_jax.runs import barriers, processes
from dfm_jax.runs.barriers import by_first, from_first
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.lock import locked
from dfm_jax.runs.output_folders import replacing
from dfm_jax.runs.processes import check_same, result_files, share_out
from dfm_jax.sampling import batches, signals
from dfm_jax.studies import guidance_sweep, steps_sweep
from tests.programs import Command, environment
from tests.test_evaluate import save_untrained
from tests.test_sample import SIZE, tiny_config

SCENES, SAMPLES = 5, 2
NUMBERS_AT_ONCE = 100  # of 256 samples of one number each
AT_ONCE = 2 * SAMPLES * SIZE**2  # pixels: two scenes at once, so that there are three groups


# --- how they exchange and share out, in threads that take each other for processes -----------------------------------


@pytest.fixture
def in_processes(monkeypatch):
    """A function that calls another in several `processes` at once, and gives what each returned or raised."""
    here = threading.local()
    monkeypatch.setattr(jax, "process_index", lambda: here.index)
    monkeypatch.setattr(jax, "process_count", lambda: here.count)

    def run(body, count=3):
        meeting, table, ends = threading.Barrier(count, timeout=20), [None] * count, [None] * count

        def gather(value):
            table[here.index] = pickle.dumps(value)
            meeting.wait()
            found = list(map(pickle.loads, table))
            meeting.wait()
            return found

        def process(index):
            here.index, here.count = index, count
            try:
                ends[index] = body()
            except Exception as error:
                ends[index] = error

        for module in (barriers, processes):
            monkeypatch.setattr(module, "gather", gather)
        threads = [threading.Thread(target=process, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ends

    return run


@pytest.mark.parametrize("pieces", [0, 1, 3, 7])
def test_pieces_are_shared_out_and_received_in_their_order(pieces, in_processes):
    worked, received = [], []

    def body():
        share_out(
            range(pieces),
            lambda piece: worked.append((piece, jax.process_index())) or f"made of {piece}",
            lambda *found: received.append((*found, jax.process_index())),
        )

    assert in_processes(body) == [None] * 3
    assert sorted(worked) == [(piece, piece % 3) for piece in range(pieces)]
    assert received == [(piece, f"made of {piece}", 0) for piece in range(pieces)]


def test_an_error_of_one_process_ends_all(in_processes):
    def work(piece):
        if piece == 4:
            raise UserError("shard 4 is gone")

    ends = in_processes(lambda: share_out(range(9), work, lambda *_: None))
    assert str(ends[1]) == "shard 4 is gone"
    assert {str(ends[0]), str(ends[2])} == {"process 1 of this run failed: shard 4 is gone"}


def test_an_error_while_receiving_ends_all(in_processes):
    def receive(piece, _):
        raise OSError(28, "No space left on device")

    worked = []
    ends = in_processes(lambda: share_out(range(9), worked.append, receive))
    assert isinstance(ends[0], OSError) and len(worked) == 3
    for end in ends[1:]:
        assert isinstance(end, UserError) and "process 0 of this run failed: OSError: [Errno 28] No space" in str(end)


def test_the_first_process_is_in_the_folder_for_all(in_processes, tmp_path):
    def body():
        with by_first(replacing(tmp_path, ("*.txt",), "testing")) as building, result_files(building) as files:
            assert (files.folder == tmp_path / ".incomplete") == (jax.process_index() == 0)
            (files.folder / "scene").mkdir(exist_ok=True)
            (files.folder / "scene" / f"{jax.process_index()}.txt").write_text("written")
            for taken in barriers.gather(files.take()):
                if jax.process_index() == 0:
                    files.put(taken)
            assert files.take() == {}
        return files.folder.exists()

    assert in_processes(body) == [False] * 3
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.txt"))
    assert names == ["scene/0.txt", "scene/1.txt", "scene/2.txt"]


def test_a_folder_that_is_in_use_is_refused_in_all(in_processes, tmp_path):
    def body():
        with by_first(locked(tmp_path, "evaluating", "wait until it ends")):
            raise AssertionError("no process goes on")

    with locked(tmp_path, "sampling", "wait"):
        ends = in_processes(body)
    assert all(isinstance(end, UserError) and "is in use" in str(end) for end in ends), ends


def test_processes_that_see_different_files_are_told(in_processes):
    body = lambda: check_same({"step": 7, "parameters": "1b" if jax.process_index() == 2 else "3f"}, "checkpoint")
    for end in in_processes(body):
        assert "process 2 of this run has another checkpoint than process 0 (parameters: 1b -> 3f)" in str(end)


def test_the_first_process_decides(in_processes):
    assert in_processes(lambda: from_first(jax.process_index)) == [0, 0, 0]


def test_a_process_alone_gathers_what_it_gives():
    value = object()
    assert barriers.gather(value)[0] is value and from_first(lambda: value) is value


# --- real processes, on a tiny model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir with an untrained model, and what one process evaluates and samples."""
    workdir = tmp_path_factory.mktemp("run")
    values = tiny_config(workdir / "data", guidance=1.0, num_scenes=3, num_samples=SAMPLES)
    values.diffusion.guidance_dropout = 0.1  # as if it knew what guidance is
    values.evaluate.update(num_scenes=SCENES, num_target=2, num_samples=SAMPLES, sweep_samples=2 * SAMPLES)
    config = from_dict(values)
    save_untrained(config, workdir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PIXELS_AT_ONCE", AT_ONCE)
        patch.setattr(evaluation.calibrate, "STEPS", (1, 2))
        patch.setenv("DFM_JAX_LPIPS", str(workdir / "nowhere.npz"))
        evaluate(config, workdir)
        sample(config, workdir)
    return SimpleNamespace(workdir=workdir, config=config)


def start(workdir, *arguments, count=2, devices=1, module="dfm_jax.main"):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    env = environment(devices, DFM_JAX_LPIPS=workdir / "nowhere.npz")
    place = lambda i: [f"--coordinator={address}", f"--num_processes={count}", f"--process_id={i}"]
    return [
        Command("tests.launched", "main", AT_ONCE, module, *arguments, f"--workdir={workdir}", *place(i), env=env)
        for i in range(count)
    ]


def finish(commands):
    """Their standard outputs and errors."""
    ends = [command.communicate() for command in commands]
    assert {command.returncode for command in commands} == {0}, ends
    return ends


def assert_same_numbers(found, expected):
    """The same structure, counts and words; floats within 1e-6 of their size, or of one."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for path, x in jax.tree.leaves_with_path(found):
        y = dict(jax.tree.leaves_with_path(expected))[path]
        assert type(x) is type(y), path
        assert x == pytest.approx(y, rel=1e-6, abs=1e-6) if isinstance(x, float) else x == y, path


def numbers(path):
    found = json.loads(path.read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "commands")}


def test_two_processes_sample_signals_as_one(tmp_path, monkeypatch):
    config = from_dict(linear.get_config("tiny"))
    save_untrained(config, tmp_path / "run")
    monkeypatch.setattr(signals, "NUMBERS_AT_ONCE", NUMBERS_AT_ONCE)
    signal_modes.evaluate(config, tmp_path / "run")
    ends = finish(start(tmp_path / "run", "--mode=evaluate", f"--out={tmp_path}/out"))
    expected = numbers(tmp_path / "run" / "evaluation" / "metrics.json")
    assert_same_numbers(numbers(tmp_path / "out" / "metrics.json"), expected)
    assert_same_numbers(json.loads(ends[0][0].splitlines()[-1]) | {"seconds": 0}, expected | {"seconds": 0})
    assert "{" not in ends[1][0]  # the first process alone speaks


@pytest.mark.slow
def test_two_processes_evaluate_as_one(run, tmp_path):
    # Over two devices of each, to begin with.
    ends = finish(start(run.workdir, "--mode=evaluate", f"--out={tmp_path}", devices=2))
    assert_same_numbers(numbers(tmp_path / "metrics.json"), numbers(run.workdir / "evaluation" / "metrics.json"))
    assert (tmp_path / "index.html").exists()
    (last, _), (nothing, _) = ends
    assert json.loads(last.splitlines()[-1])["num_scenes"] == SCENES
    assert "{" not in nothing  # the first process alone speaks
    # The scenes that are missing are measured by any number of processes.
    for number in (0, 3, 4):
        (tmp_path / "scenes" / f"{number:05d}.json").unlink()
    ends = finish(start(run.workdir, "--mode=evaluate", f"--out={tmp_path}"))
    assert f"resuming: 2 of {SCENES} scenes" in ends[0][1]
    assert_same_numbers(numbers(tmp_path / "metrics.json"), numbers(run.workdir / "evaluation" / "metrics.json"))


@pytest.mark.slow
def test_two_processes_sample_as_one(run, tmp_path):
    finish(start(run.workdir, "--mode=sample", f"--out={tmp_path}"))
    assert_same_numbers(numbers(tmp_path / "samples.json"), numbers(run.workdir / "samples" / "samples.json"))
    names = lambda folder: sorted(path.relative_to(folder) for path in folder.rglob("*"))
    assert names(tmp_path) == names(run.workdir / "samples")
    for path in tmp_path.rglob("arrays.npz"):
        ours, theirs = np.load(path), np.load(run.workdir / "samples" / path.relative_to(tmp_path))
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("study", [steps_sweep, guidance_sweep])
def test_two_processes_sweep_as_one(study, run, tmp_path):
    name = {steps_sweep: "steps.json", guidance_sweep: "guidance.json"}[study]
    # Started like the two: this one's compiler may round otherwise, and what is ranked is tiny in an untrained model.
    finish(start(run.workdir, f"--out={tmp_path / 'one'}", module=study.__name__, count=1))
    ends = finish(start(run.workdir, f"--out={tmp_path / 'two'}", module=study.__name__))
    assert_same_numbers(numbers(tmp_path / "two" / name), numbers(tmp_path / "one" / name))
    assert json.loads(ends[0][0].splitlines()[-1]) == json.loads((tmp_path / "two" / name).read_text())
    assert "{" not in ends[1][0]


@pytest.mark.slow
def test_a_process_that_is_lost_ends_the_other_and_the_same_command_goes_on(run, tmp_path):
    first, second = start(run.workdir, "--mode=evaluate", f"--out={tmp_path}")
    while not list(tmp_path.glob("scenes/*.json")) and first.poll() is None:
        time.sleep(0.05)
    second.send_signal(signal.SIGKILL)
    _, errors = first.communicate()
    assert first.returncode not in (0, None), errors
    assert "was lost" in errors or "fatal errors" in errors, errors  # or jax ends it in its own way
    finish(start(run.workdir, "--mode=evaluate", f"--out={tmp_path}"))
    assert_same_numbers(numbers(tmp_path / "metrics.json"), numbers(run.workdir / "evaluation" / "metrics.json"))


@pytest.mark.slow
def test_two_processes_export_as_one(run, tmp_path):
    finish(start(run.workdir, "--mode=export", f"--out={tmp_path}"))
    about = json.loads((tmp_path / "export.json").read_text())
    assert about["step"] == 7 and restore_params(tmp_path)[1] == 7
    jax.tree.map(np.testing.assert_array_equal, restore_params(tmp_path)[0], restore_params(run.workdir)[0])
