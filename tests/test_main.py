"""The command line: configs that load, and one clear line for each mistake."""

import pathlib
import subprocess
import sys

import jax
import pytest

from dfm_jax import main
from dfm_jax.config import DiTConfig, ResNet34Config
from dfm_jax.config.command_line import names_config, read_config
from dfm_jax.config.reading import ConfigError, flatten, from_dict
from dfm_jax.paths import workdir_of_config
from dfm_jax.runs.saved_settings import saved_settings
from tests.programs import PATIENCE, environment, run_command
from tests.test_configs import load

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOY = ROOT / "configs" / "toy.py"
PAPER = ROOT / "configs" / "realestate10k.py"


def run_main(*arguments, cwd):
    return run_command("dfm_jax.main", *arguments, cwd=cwd, env=environment(DFM_JAX_LPIPS="nowhere.npz"))


def test_each_encoder_has_settings_of_its_own():
    assert isinstance(from_dict(load("toy", "")).model.encoder, DiTConfig)
    assert isinstance(from_dict(load("toy", "resnet34")).model.encoder, ResNet34Config)
    config = load("toy", "resnet34")
    config.image_size = 25  # only the transformer's tokens need a multiple of 4
    assert from_dict(config).model.encoder.features == 64


@pytest.mark.parametrize(
    ("variant", "changed", "message"),
    [
        ("", {"name": "vgg"}, "config.model.encoder.name must be one of dit, resnet34, not 'vgg'"),
        ("", {"name": ["dit"]}, "config.model.encoder.name must be one of dit, resnet34, not ['dit']"),
        (
            "",
            {"name": "resnet34"},
            "encoder.depth is not a setting of encoder 'resnet34' (known here: name",
        ),
        ("resnet34", {"width": 3}, "config.model.encoder.width is not a setting of encoder 'resnet34'"),
        ("resnet34", {"base": 0}, "config.model.encoder.base must be at least 1"),
        ("resnet34", {"base": "64"}, "config.model.encoder.base must be int, not '64'"),
    ],
)
def test_settings_of_another_encoder_are_refused(variant, changed, message):
    config = load("toy", variant).to_dict()
    config["model"]["encoder"] |= changed
    with pytest.raises(ConfigError) as error:
        from_dict(config)
    assert message in str(error.value)


def test_two_sources_of_an_encoder_are_refused():
    config = load("toy", "")
    config.init_from, config.model.encoder.init_file = "runs/other", "DiT-XL-2-256x256.pt"
    with pytest.raises(ConfigError, match="init_from brings an encoder of its own"):
        from_dict(config)


WORKDIR = "--workdir=run"
MISTAKES = {
    "unknown override": ([f"--config={TOY}", WORKDIR, "--config.train.num_stepz=3"], "num_stepz"),
    "wrong type": ([f"--config={TOY}", WORKDIR, "--config.train.num_steps=many"], "--config.train.num_steps=many"),
    "unknown variant": (
        [f"--config={TOY}:huge", WORKDIR],
        "no variant 'huge', only calibrated or distilled or demo or tiny; pixelnerf or grey or depth or silhouette or "
        "masked; resnet34; lean or fine",
    ),
    "no config file": (
        ["--config=nowhere.py", WORKDIR],
        "there is no config file 'nowhere.py'; those that come with the package: configs/captures.py",
    ),
    "no config": ([WORKDIR], "--config is missing"),
    "neither": (["--mode=sample"], "--workdir is missing"),
    "no run of this config": (
        [f"--config={TOY}:lean", "--mode=sample"],
        "runs/toy-lean/checkpoints: is this the --workdir",
    ),
    "other parameters": (
        ["--workdir=toy", "--mode=sample", "--config.model.encoder.width=32"],
        "(saved -> now): config.model.encoder.width: 96 -> 32; ",
    ),
    "unknown override of a checkpoint": (
        ["--workdir=toy", "--mode=export", "--config.sample.num_stepz=3"],
        "num_stepz",
    ),
    "results of training elsewhere": ([f"--config={TOY}", "--out=x"], "--out is for the results of sample"),
    "photographs to train on": ([f"--config={TOY}", "--image=a.jpg"], "--image is for --mode=sample"),
    "samples to evaluate": (
        ["--workdir=toy", "--mode=evaluate", "--num_samples=3"],
        "in --mode=evaluate it is --config.evaluate.num_samples",
    ),
    "an index file to train by": ([f"--config={TOY}", "--index=a.json"], "--index is for --mode=evaluate"),
    "a protocol that there is not": (
        [f"--config={TOY}", "--mode=evaluate", "--protocol=lvsm"],
        "config.evaluate.protocol_name must be",
    ),
    "no samples": (["--workdir=toy", "--mode=sample", "--num_samples=0"], "num_samples must be at least 1"),
    "unknown mode": (
        [f"--config={TOY}", WORKDIR, "--mode=dance"],
        "should be one of <train|sample|evaluate|export|view|benchmark|compile>",
    ),
    "stray argument": ([f"--config={TOY}", WORKDIR, "fast"], "cannot make sense of 'fast'"),
    "missing field": (["--config=incomplete.py", WORKDIR], "config.train.batch_size is missing"),
    "inconsistent": ([f"--config={TOY}", WORKDIR, "--config.image_size=25"], "multiple of 4"),
    "no data set": ([f"--config={TOY}", WORKDIR, "--config.data.name=rooms"], "there is no data set 'rooms'"),
    "no weights": ([f"--config={PAPER}", WORKDIR], "run `make lpips-weights`, or put a file there"),
    "no such devices": ([f"--config={TOY}", WORKDIR, "--config.train.mesh.data=3"], "data=3, fsdp=1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_by_one_clear_error(mistake, tmp_path):
    (tmp_path / "incomplete.py").write_text(TOY.read_text().replace("batch_size=8, ", ""))
    arguments, message = MISTAKES[mistake]
    done = run_main(*arguments, cwd=tmp_path)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode == 1
    assert len(errors) == 1, done.stderr
    assert message in done.stderr[done.stderr.index(errors[0]) :]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_program_is_a_module_that_python_runs(tmp_path):
    command = [sys.executable, "-m", "dfm_jax.main", "--mode=sample"]
    pipes = {"capture_output": True, "text": True, "timeout": PATIENCE, "check": False}
    done = subprocess.run(command, cwd=tmp_path, env=environment(), **pipes)
    assert done.returncode == 1 and done.stderr.startswith("error: --workdir is missing") and not done.stdout


@pytest.mark.parametrize(
    ("config", "workdir"),
    [
        ("configs/co3d.py", "runs/co3d"),
        ("/a/b/co3d.py:128", "runs/co3d-128"),
        ("co3d.py:128,lean", "runs/co3d-128-lean"),
        ("toy.py:pixelnerf-resnet34", "runs/toy-pixelnerf-resnet34"),
    ],
)
def test_a_run_without_a_workdir_is_named_by_its_config(config, workdir):
    assert workdir_of_config(config) == workdir


def test_without_a_config_it_is_the_checkpoints():
    saved = saved_settings("toy")
    overrides = ["--config.sample.num_steps=7", "--config.sample.target_camera.azimuth=90", "--config.data.dir=there"]
    changed = flatten(read_config("", overrides, saved))
    named = {"sample.num_steps": 7, "sample.target_camera.azimuth": 90.0, "data.dir": "there"}
    assert changed == flatten(saved) | named
    assert names_config(["main", "--workdir=toy", "--config.sample.num_steps=7"]) == ""
    for argv in (["--config=a.py:b"], ["--config", "a.py:b"], ["-config=a.py:b"]):
        assert names_config(["main", *argv]) == "a.py:b"


@pytest.mark.parametrize("chosen", [True, False])
def test_compilations_are_cached_unless_the_environment_says_where(chosen, tmp_path, monkeypatch):
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if chosen:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    main._cache_compilations()
    assert updates == ({} if chosen else {"jax_compilation_cache_dir": str(tmp_path / "dfm_jax" / "compiled")})
