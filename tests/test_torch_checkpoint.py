"""The importer's command line: what it writes, what it infers, that nothing is lost, and what it refuses."""

import json
import os
import pathlib
import pickle
import shlex
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.interop import torch_checkpoint
from dfm_jax.interop.published import StateDictError, import_params, same_bits
from dfm_jax.interop.published_config import published_config, read_sizes
from dfm_jax.interop.published_names import POSITION_CODE, TIME_BIAS
from dfm_jax.interop.state_files import read_state, read_tree, write_tree
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.compatibility import check_same_config
from dfm_jax.runs.retention import Retention
from tests.first_settings import ADDED, forget_settings
from tests.published_state import CONFIGS, HEADS, made_up_state, model_of, small_config

ROOT = CONFIGS.parent
# As imported: exact products in float32.
EXACT = {"model.compute_dtype": "float32", "model.matmul_precision": "highest"}
CONFIG = small_config(**EXACT)
STEP = 1200


@pytest.fixture(scope="module")
def state():
    return made_up_state(model_of(CONFIG))


def released(state, other) -> dict:
    """The contents of a released .pt: two sets of weights and more."""
    ema = {f"ema_model.{name}": array for name, array in state.items()}
    ema |= {f"online_model.{name}": array for name, array in other.items()}
    ema |= {"initted": np.ones(1, np.float32), "step": np.array([77])}
    return {"model": other, "ema": ema, "opt": {"state": {0: {"exp_avg": np.ones(2)}}, "lr": 2e-5}, "step": STEP}


@pytest.fixture(scope="module")
def released_file(state, tmp_path_factory):
    pytest.importorskip("torch", reason="torch is not installed: nothing here can write a .pt file")
    path = tmp_path_factory.mktemp("released") / "model.pt"
    write_tree(path, released(state, made_up_state(model_of(CONFIG), seed=1)))
    return path


@pytest.fixture
def flat_file(state, tmp_path):
    """A state dict alone, which needs no torch."""
    path = tmp_path / "model.safetensors"
    write_tree(path, state)
    return path


@pytest.fixture(autouse=True)
def in_a_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def run(command, *options, **paths):
    return torch_checkpoint.run([command, *(f"--{name}={value}" for name, value in paths.items()), *options])


def run_import(source, workdir, *options):
    return run("import", *options, f"--num_heads={HEADS}", source=source, workdir=workdir)


def assert_same_state(a, b):
    assert a.keys() == b.keys()
    assert [name for name in a if not same_bits(a[name], b[name])] == []


def assert_same_params(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_released_file_becomes_a_checkpoint_and_the_same_file_again(released_file, state, tmp_path):
    report = run_import(released_file, tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / str(STEP)
    assert (report["checkpoint"], report["step"]) == (str(folder), STEP)
    assert report["not_taken"] == ("model", "opt")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoints"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"params", "ema", "leftovers", "config"}
    for which in ("ema", "params"):
        params, step, values = restore_params(tmp_path / "run", which)
        assert (step, from_dict(values)) == (STEP, CONFIG)
        assert_same_params(params, import_params(state, model_of(CONFIG)))

    target = tmp_path / "again.pt"
    run("export", workdir=tmp_path / "run", target=target)
    tree = read_tree(target)
    assert tree["step"] == STEP
    assert_same_state(tree["model"], state)
    assert_same_state(tree["ema"], released(state, state)["ema"])

    run_import(target, tmp_path / "run_2", "--weights=model")
    run("export", workdir=tmp_path / "run_2", target=tmp_path / "again.safetensors")
    assert_same_state(read_state(tmp_path / "again.safetensors"), state)


def test_a_run_from_before_settings_existed_is_exported(flat_file, state, tmp_path):
    report = run_import(flat_file, tmp_path / "run")
    forget_settings(pathlib.Path(report["checkpoint"]), *ADDED)
    run("export", workdir=tmp_path / "run", target=tmp_path / "again.safetensors")
    assert_same_state(read_state(tmp_path / "again.safetensors"), state)


def test_the_other_weights_of_a_released_file(released_file, tmp_path):
    run_import(released_file, tmp_path, "--weights=model")
    other = made_up_state(model_of(CONFIG), seed=1)
    assert_same_params(restore_params(tmp_path)[0], import_params(other, model_of(CONFIG)))


def test_the_printed_commands_sample_from_what_was_imported_and_train_from_it(flat_file, tmp_path):
    report = run_import(flat_file, tmp_path / "run", "--config.data.near=1", "--config.model.ray_marching.num_fine=3")
    assert shlex.split(report["sample"])[2:] == ["dfm_jax.main", f"--workdir={tmp_path / 'run'}", "--mode=sample"]
    words = shlex.split(report["train"])
    assert words[:3] == ["python", "-m", "dfm_jax.main"]
    assert words[-1] == f"--config.init_from={tmp_path / 'run'}"
    file, overrides = words[3].removeprefix("--config="), words[4:-1]
    config = read_config(file, overrides)
    assert (file, config.data.near, config.model.ray_marching.num_fine) == ("configs/co3d.py:64", 1, 3)
    assert check_same_config(restore_params(tmp_path / "run")[2], config, "run") == []


@pytest.mark.parametrize("name", ["co3d", "realestate10k"])
def test_shapes_and_the_recipe_they_belong_to_make_the_config(name, tmp_path):
    changes = EXACT | {"model.encoder.depth": 3, "model.ray_marching.background": 0.5, "image_size": 24}
    config = small_config(name, **changes | {"model.estimate_size": 24, "loss.patch_size": 24})
    np.savez(tmp_path / "m.npz", **{f"params/{k}": v for k, v in made_up_state(model_of(config)).items()})
    report = run_import(tmp_path / "m.npz", tmp_path / "run")
    assert report["config"] == f"configs/{name}.py:64"
    assert from_dict(restore_params(tmp_path / "run")[2]) == config


def test_another_image_size_and_recipe_can_be_chosen(flat_file, tmp_path):
    report = run_import(flat_file, tmp_path, "--image_size=128", "--dataset=realestate10k")
    config = from_dict(restore_params(tmp_path)[2])
    assert report["config"] == "configs/realestate10k.py:128"
    assert (config.image_size, config.model.estimate_size, config.data.name) == (128, 128, "realestate10k")
    assert config.model.encoder.absolute_pose
    run("export", workdir=tmp_path, target=tmp_path / "a.safetensors")
    assert read_state(tmp_path / "a.safetensors")[POSITION_CODE].shape == (1, 32 * 32, 16)


def test_other_runs_start_from_an_imported_checkpoint_and_it_is_not_itself_resumed(flat_file, tmp_path):
    run_import(flat_file, tmp_path)
    # As `init_from` does.
    target = parameter_shapes(model_of(CONFIG))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), target)
    assert restore_params(tmp_path, target=target)[1] == 0
    with Checkpoints(tmp_path, keep=Retention(1)) as checkpoints, pytest.raises(UserError) as error:
        checkpoints.resume_step()
    assert "was imported" in str(error.value)
    assert f"--config.init_from={tmp_path}" in str(error.value)


# --- check


def test_check_counts_what_is_taken_derived_and_left_over(flat_file):
    report = run("check", f"--num_heads={HEADS}", source=flat_file)
    assert report["exact"]
    assert report["different"] == []
    assert all(report[group]["arrays"] == report[group]["exact"] > 0 for group in ("taken", "derived", "leftover"))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_the_bits_and_the_names_of_a_wrapped_model_change_nothing_else(dtype, state, tmp_path, caplog):
    """What is fixed in the published model is compared as the type stores it."""
    path = tmp_path / "half.safetensors"
    write_tree(path, {f"module._orig_mod.{name}": array.astype(dtype) for name, array in state.items()})
    report = run("check", f"--num_heads={HEADS}", source=path)
    assert report["exact"] and report["taken"]["arrays"] > 0
    assert "'module.' and '_orig_mod.' is taken off" in caplog.text
    damaged = {name: array.astype(dtype) for name, array in state.items()}
    damaged["model.enc.pos_embed"] = (1.1 * state["model.enc.pos_embed"]).astype(dtype)
    write_tree(tmp_path / "damaged.safetensors", damaged)
    with pytest.raises(UserError, match=r"pos_embed .* holds other numbers"):
        run("check", f"--num_heads={HEADS}", source=tmp_path / "damaged.safetensors")


def test_check_finds_what_changes_on_the_way(state, tmp_path, capsys):
    path = tmp_path / "m.npz"
    changed = state | {TIME_BIAS: state[TIME_BIAS].astype(np.float64)}
    double = next(iter(state))
    changed[double] = state[double].astype(np.float64) + 1e-12
    np.savez(path, **changed)
    arguments = ["check", f"--source={path}", f"--num_heads={HEADS}"]
    assert torch_checkpoint.main(arguments) == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["different"] == [double]
    assert report["taken"]["exact"] == report["taken"]["arrays"] - 1


# --- what is refused


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def truncated(path, state):
    write_tree(path, state)
    path.write_bytes(path.read_bytes()[:-1000])


def without(name):
    return lambda path, state: write_tree(path, {k: v for k, v in state.items() if k != name})


BAD_FILES = {
    "corrupt": ("m.safetensors", lambda path, state: path.write_bytes(bytes(range(256)) * 40), "is damaged"),
    "truncated": ("m.safetensors", truncated, "is damaged"),
    "malicious": ("m.npz", lambda path, state: np.savez(path, x=np.array([Malicious()], dtype=object)), "is damaged"),
    "malicious pickle": ("m.pt", lambda path, state: path.write_bytes(pickle.dumps(Malicious(), protocol=2)), "mkdir"),
    "not there": ("m.safetensors", lambda path, state: None, "there is no file"),
    "renamed array": (
        "m.safetensors",
        lambda path, state: write_tree(path, {k.replace("fc_1", "fc_9"): v for k, v in state.items()}),
        "unexpected: model.pixelNeRF_joint.mlp.blocks.0.fc_9.weight",
    ),
    "another model": (
        "m.safetensors",
        lambda path, state: write_tree(path, {"conv1.weight": np.ones((64, 3, 7, 7), np.float32)}),
        "no state dict of the published model: it has no model.enc.blocks.0.attn.qkv.weight",
    ),
    "missing array": ("m.safetensors", without(TIME_BIAS), f"missing: {TIME_BIAS}"),
    "no image size": ("m.safetensors", without(POSITION_CODE), "say it with --image_size"),
    "wrong shape": (
        "m.safetensors",
        lambda path, state: write_tree(path, state | {"model.enc.cnn_skip.bias": np.ones(65, np.float32)}),
        "shape of model.enc.cnn_skip.bias: (65,), needed (64,)",
    ),
    "wrong number of axes": (
        "m.safetensors",
        lambda path, state: write_tree(path, state | {"model.enc.cnn_refine.weight": np.ones(8, np.float32)}),
        "model.enc.cnn_refine.weight has the shape (8,)",
    ),
    "coloured background": (
        "m.safetensors",
        lambda path, state: write_tree(path, state | {"model.renderer.backgrd_color": np.float32([1, 0, 0])}),
        "must be a grey in [0, 1], not [1.0, 0.0, 0.0]",
    ),
    "text": ("m.npz", lambda path, state: np.savez(path, **state, note=np.array("x")), "note holds <U1, no numbers"),
    "negative step": ("m.pt", lambda path, state: write_tree(path, {"model": state, "step": -1}), "its 'step' must be"),
    "no weights": ("m.pt", lambda path, state: write_tree(path, {"ema": state, "step": 1}), "has no weights 'model'"),
    "text among weights": (
        "m.pt",
        lambda path, state: write_tree(path, {"model": state | {"version": "1"}}),
        "among the weights are version, which are no arrays",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_clear_error_and_nothing_is_written(name, state, tmp_path, capsys):
    file, write, message = BAD_FILES[name]
    if file.endswith(".pt"):
        pytest.importorskip("torch", reason="torch is not installed: nothing here can write a .pt file")
    write(tmp_path / file, state)
    before = sorted(tmp_path.rglob("*"))
    options = [f"--source={tmp_path / file}", f"--workdir={tmp_path / 'run'}", f"--num_heads={HEADS}"]
    assert torch_checkpoint.main(["import", *options, "--weights=model"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert sorted(tmp_path.rglob("*")) == before
    assert not pathlib.Path("ran").exists()


def test_a_failure_while_writing_leaves_nothing_behind(flat_file, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(Checkpoints, "save_trees", fail)
    with pytest.raises(OSError, match="no space left"):
        run_import(flat_file, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(OSError, match="no space left"):
        run_import(flat_file, tmp_path / "old")
    assert list((tmp_path / "old").iterdir()) == []


def test_checkpoints_that_are_there_are_not_touched(flat_file, tmp_path):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(UserError, match="holds checkpoints already"):
        run_import(flat_file, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["5"]


MISTAKES = {
    "no source": (["import", "--workdir=x"], "--source"),
    "no command": ([], "import|export|check"),
    "unknown option": (["check", "--source={file}", "--speed=3"], "speed"),
    "unknown setting": (["check", "--source={file}", "--config.speed=3"], "does not have: 'speed'"),
    "unknown option of export": (["export", "--workdir=x", "--target=y.pt", "--speed=3"], "--speed=3"),
    "config and dataset": (["check", "--source={file}", "--config=a.py", "--dataset=co3d"], "not both"),
    "no such config": (["check", "--source={file}", "--config=nowhere.py"], "nowhere.py"),
    "heads": (["check", "--source={file}"], "say it with --num_heads"),
    "heads that do not fit": (["check", "--source={file}", "--num_heads=5"], "multiple of num_heads"),
    "image size": (["check", "--source={file}", f"--num_heads={HEADS}", "--image_size=30"], "multiple of 4"),
    "pixelNeRF": (["check", "--source={file}", "--config=configs/co3d.py:pixelnerf"], "this config has 'pixelnerf'"),
    "another encoder": (["check", "--source={file}", "--config=configs/co3d.py:64-resnet34"], "has 'resnet34'"),
    "nothing to export": (["export", "--workdir=nowhere", "--target=y.pt"], "there is no checkpoint in"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_error(mistake, flat_file, capsys):
    arguments, message = MISTAKES[mistake]
    assert torch_checkpoint.main([argument.format(file=flat_file) for argument in arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err


def test_outside_of_a_checkout_the_recipe_is_that_of_the_package(flat_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_import(flat_file, tmp_path / "run")["config"] == "configs/co3d.py:64"


def test_a_model_with_fewer_blocks_than_the_recipe_averages_after_is_refused(state):
    sizes = read_sizes(state)
    base = small_config(**{"model.scene_field.view_blocks": 5})
    with pytest.raises(StateDictError, match="scene_field has 5 blocks, not more than the 5 of each view"):
        published_config(base, sizes, num_heads=None, image_size=None)


# --- the published structure


def run_program(*arguments):
    """The importer as a user runs it; its report, and its peak memory in GiB."""
    program = (
        "import json, resource, sys; from dfm_jax.interop import torch_checkpoint as t; code = t.main(sys.argv[1:]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, report, peak = done.stdout.splitlines()
    return json.loads(report), float(peak)


@pytest.mark.slow
def test_the_published_structure_goes_in_and_out_twice_bit_for_bit_in_24_gb(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed: nothing here can write a .pt file")
    config = read_config(f"{CONFIGS / 'co3d.py'}:64", ["--config.model.pixel_grid=corners"])
    assert (config.model.encoder.depth, config.model.encoder.width, config.model.encoder.features) == (28, 1152, 512)
    state = made_up_state(model_of(config))
    assert state["model.enc.general_conv1.weight"].shape == (64, 71, 7, 7)
    first, second, third = (tmp_path / name for name in ("first.pt", "second.pt", "third.safetensors"))
    write_tree(first, {"ema": {f"ema_model.{name}": array for name, array in state.items()}, "step": STEP})
    del state

    peaks = {}
    for source, target in ((first, second), (second, third)):
        workdir = tmp_path / f"from_{source.stem}"
        report, peaks[f"import {source.name}"] = run_program("import", f"--source={source}", f"--workdir={workdir}")
        assert report["image_size"] == 64
        assert from_dict(restore_config(workdir)) == config
        _, peaks[f"export {target.name}"] = run_program("export", f"--workdir={workdir}", f"--target={target}")
        subprocess.run(["rm", "-r", workdir], check=True)
    print("peak memory, GiB:", {name: round(peak, 1) for name, peak in peaks.items()})
    assert max(peaks.values()) < 24

    original = read_state_of(first, "ema_model.")
    assert_same_state(read_tree(second)["model"], original)
    assert_same_state(read_state(third), original)


def restore_config(workdir):
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.config(checkpoints.latest_step())


def read_state_of(path, prefix):
    return {name.removeprefix(prefix): array for name, array in read_state(path, "ema").items()}
