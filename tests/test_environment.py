"""Environments that people have: no home, a notebook's variables, a library for devices that are not there; paths as
they are typed; and configs away from the checkout."""

import os
import pathlib
import subprocess
import sys

import jax
import pytest

from dfm_jax import main, paths, platforms
from dfm_jax.config.command_line import read_config
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import evaluation_index
from dfm_jax.models import lpips
from dfm_jax.platforms import Machine
from dfm_jax.runs import workdirs

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOY = str(ROOT / "configs" / "toy.py")


# --- devices


CUDA = frozenset({"xla_cuda13"})


@pytest.mark.parametrize(
    ("asked", "machine", "chosen"),
    [
        ("", Machine(), ""),  # jax finds what there is
        ("", Machine(libtpu=True), "cpu"),
        ("", Machine(libtpu=True, tpu=True), ""),
        ("tpu", Machine(libtpu=True), ""),
        ("", Machine(CUDA, libtpu=True, nvidia=True), "cuda,cpu"),
        ("", Machine(CUDA, libtpu=True), "cpu"),
        ("", Machine(frozenset({"rocm"}), libtpu=True), ""),
    ],
)
def test_a_tpu_that_is_not_there_is_not_looked_for(asked, machine, chosen):
    assert platforms.without_absent_tpu(asked, machine) == chosen


def test_a_tpu_that_the_environment_names_is_there(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "mine")
    assert platforms.inspect_machine().tpu


@pytest.mark.parametrize(
    ("given", "machine", "expected"),
    [
        ("", Machine(CUDA, nvidia=True), "--xla_gpu_enable_triton_gemm=false"),
        ("--xla_dump_to=a", Machine(nvidia=True), "--xla_dump_to=a --xla_gpu_enable_triton_gemm=false"),
        ("--xla_gpu_enable_triton_gemm=true", Machine(nvidia=True), "--xla_gpu_enable_triton_gemm=true"),
        ("--xla_dump_to=a", Machine(CUDA), "--xla_dump_to=a"),
        ("", Machine(), ""),
    ],
)
def test_flags_for_gpus_are_added_to_those_that_are_given(given, machine, expected):
    assert platforms.with_gpu_flags(given, machine) == expected


@pytest.mark.parametrize(
    ("asked", "machine", "said"),
    [
        ("cuda", Machine(), "JAX_PLATFORMS=cuda: this machine shows no NVIDIA GPU"),
        ("gpu", Machine(CUDA), "JAX_PLATFORMS=gpu: this machine shows no NVIDIA GPU"),
        ("cuda", Machine(nvidia=True), "without support for GPUs (pip install 'dfm_jax[cuda]')"),
        ("cuda", Machine(CUDA, nvidia=True), "cuda: the driver is too old; leave"),
        ("tpu", Machine(), "libtpu is not installed"),
        ("cpu,fpga", Machine(), "'fpga' is none of cpu, cuda, tpu"),
        ("", Machine(CUDA, nvidia=True), "the devices of this machine: the driver is too old"),
    ],
)
def test_devices_that_do_not_start_are_one_line(asked, machine, said):
    line = platforms.not_started(asked, machine, RuntimeError("the driver is too old\nand 60 lines more"))
    assert said in line and "\n" not in line and "JAX_PLATFORMS=cpu" in line


@pytest.mark.parametrize("error", [RuntimeError("no backend"), AssertionError()])
def test_jax_that_does_not_start_is_an_error_that_a_user_can_mend(error, monkeypatch):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(UserError, match="jax cannot start on"):
        platforms.start()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 9 GB\nand more"),
        jax.errors.JaxRuntimeError("INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes."),
    ],
)
def test_memory_that_is_not_enough_is_one_line(error):
    with pytest.raises(UserError, match=r"memory is not enough .*train\.batch_size") as told, platforms.memory_told():
        raise error
    assert "\n" not in str(told.value)


def test_other_faults_of_the_runtime_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError), platforms.memory_told():
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault")


# --- home


@pytest.fixture
def homeless(monkeypatch):
    """No HOME, and a user that the machine does not know."""
    for name in ("HOME", "XDG_CACHE_HOME", "DFM_JAX_LPIPS", "JAX_COMPILATION_CACHE_DIR", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", unknown)


def test_without_a_home_nothing_is_cached_and_nothing_fails(homeless, monkeypatch):
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    main._cache_compilations()
    assert not updates and paths.cache_folder() is None
    assert lpips.default_path() == pathlib.Path("lpips_vgg16.npz")
    assert workdirs.path_of("~/run").name == "run"  # a folder of that name, as a shell would have it


def test_nothing_is_cached_where_nothing_can_be_written(monkeypatch, tmp_path):
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    main._cache_compilations()
    assert not updates


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--workdir=~/run", "--workdir={}/run"),
        ("~/run", "{}/run"),
        ("name=~/run", "name={}/run"),
        ("--config=~/my.py:tiny", "--config={}/my.py:tiny"),
        ("--about=x~y", "--about=x~y"),
        ("a/~/b", "a/~/b"),
        ("--x=1=~", "--x=1=~"),
        ("", ""),
    ],
)
def test_the_home_in_arguments(typed, meant, home):
    assert paths.expand_argument(typed) == meant.format(home)


def test_the_home_in_every_path_that_a_user_gives(home, monkeypatch):
    config = read_config(TOY, ["--config.data.dir=~/data", "--config.evaluate.index=~/views.json"])
    assert (config.data.dir, config.evaluate.index) == (f"{home}/data", f"{home}/views.json")
    parser = Parser()
    parser.add_argument("--out", type=pathlib.Path)
    assert parser.parse_args(["--out=~/x"]).out == parser.parse_args(["--out", "~/x"]).out == home / "x"
    assert workdirs.path_of("~/run") == workdirs.local_folder("~/run") == home / "run"
    monkeypatch.setenv("DFM_JAX_LPIPS", "~/weights.npz")
    assert lpips.default_path() == home / "weights.npz"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/cache")
    assert paths.cache_folder() == home / "cache"
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "~/compiled")
    main._cache_compilations()
    assert updates == {"jax_compilation_cache_dir": f"{home}/compiled"}


# --- notebooks


def test_the_backend_of_a_notebook_does_not_stop_pictures():
    environment = os.environ | {"MPLBACKEND": "module://of_a_notebook.that_is_not_here", "PYTHONPATH": str(ROOT)}
    program = "import os; from dfm_jax.visualization import figures; print(os.environ['MPLBACKEND'])"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, environment["MPLBACKEND"]), done.stderr


# --- configs


def test_configs_of_the_package_are_found_from_anywhere_and_ones_own_come_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_config("configs/toy.py:tiny") == read_config(f"{TOY}:tiny")
    with pytest.raises(UserError, match=r"no config file 'configs/toys.py'; those .* configs/toy.py"):
        read_config("configs/toys.py")
    entries, _ = evaluation_index.read("configs/protocols/co3d.json")
    assert entries
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "toy.py").write_text(pathlib.Path(TOY).read_text().replace("seed=0", "seed=77"))
    assert read_config("configs/toy.py").seed == 77


def test_an_installed_package_has_its_configs_beside_it(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "dfm_jax"
    (package / "_configs").mkdir(parents=True)
    (package / "_configs" / "toy.py").touch()
    monkeypatch.setattr(paths, "CONFIGS", (package / "_configs", package.parent / "configs"))
    assert paths.shipped("configs/toy.py") == package / "_configs" / "toy.py"
    assert paths.shipped("configs/../toy.py") is paths.shipped("toy.py") is paths.shipped("configs/no.py") is None
    setup = (ROOT / "setup.py").read_text()
    assert 'CONFIGS = "dfm_jax._configs"' in setup and 'package_dir={CONFIGS: "configs"}' in setup


CONFIG_FILES = {
    "x = 1": "has no attribute 'get_config'",
    "def get_config(:": r"config.py, line 1: SyntaxError",
    "\n\nimport not_there": r"config.py, line 3: ModuleNotFoundError: No module named 'not_there'",
    "def get_config():\n    return 1 / 0": r"config.py, line 2: ZeroDivisionError",
    "def get_config():\n    return [1]": r"must return a ConfigDict of ml_collections, not \[1\]",
    "def get_config():\n    pass": "must return a ConfigDict of ml_collections, not None",
    "def get_config():\n    open('not_there')": "No such file or directory: 'not_there'",
    "\0": "null bytes",
}


@pytest.mark.parametrize("content", CONFIG_FILES)
def test_a_config_file_that_cannot_be_used_is_one_line(content, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(content)
    with pytest.raises(UserError, match=CONFIG_FILES[content]) as error:
        read_config(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "model.proposal.width=16",
            "config.model.proposal.width cannot be set: .* None in this config",
        ),
        ("model.proposal=5", "config.model.proposal cannot be set"),
        ("train.num_stepz=5", "setting that the config does not have: .*num_stepz"),
        ("train.num_steps.x=5", "setting that the config does not have"),
        ("train.=5", "Could not parse"),
        ("train=5", "is not a dict"),
        ("train.num_steps=1e3", "invalid literal"),
        (
            "sample.sampler=fast",
            r"sample.sampler must be one of ddim, ddpm, dpm-solver\+\+, .*not 'fast'",
        ),
        ("evaluate.protocol_name=mine", "must be one of '', pixelsplat, .*not 'mine'"),
        ("data.view_sampling.rule=kitti", "rule must be one of realestate10k, co3d, toy, captures"),
    ],
)
def test_an_override_that_cannot_be_is_one_line(override, said):
    with pytest.raises(UserError, match=said) as error:
        read_config(TOY, [f"--config.{override}"])
    assert "\n" not in str(error.value)


def test_a_name_without_end_is_shown_by_its_ends():
    message = str(UserError(f"there is no /data/{'x' * 5000}.json: prepare it again"))
    assert message.startswith("there is no /data/xxx") and message.endswith("xxx.json: prepare it again")
    assert len(message) < 400
