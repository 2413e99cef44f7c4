"""The Makefile: on a made-up interpreter that only notes what it is asked for, and (slow) for real, from a clone."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Notes its arguments; as `-m venv` it puts itself into the environment; as `--mode=sample` it writes the page.
STAND_IN = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip"*) exit {pip_status} ;;
  *studies.demo*) {page} ;;
esac
"""
WRITE_PAGE = "mkdir -p runs/demo && echo page > runs/demo/index.html"


class Project:
    """A folder with the Makefile, a setup.py and the stand-in."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.log, self.python = folder, folder / "log", folder / "stand_in"
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "setup.py").touch()
        self.write_stand_in()

    def write_stand_in(self, pip_status: int = 0, page: str = WRITE_PAGE) -> None:
        self.python.write_text(STAND_IN.format(log=self.log, pip_status=pip_status, page=page))
        self.python.chmod(0o755)

    def make(self, *arguments: str) -> subprocess.CompletedProcess:
        self.log.write_text("")
        return run_make(self.folder, f"PYTHON={self.python}", *arguments)

    def installations(self) -> list[str]:
        return [line.split()[-1] for line in self.log.read_text().splitlines() if "pip install" in line]


def run_make(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
    """`make` as called from a shell without a display; not as called from the `make test` that runs this."""
    hidden = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "DISPLAY", "WAYLAND_DISPLAY", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("python", ["missing", "old"])
def test_without_a_suitable_python_there_is_one_clear_error(project, python):
    (project.folder / "old").write_text("#!/bin/sh\nexit 1\n")
    (project.folder / "old").chmod(0o755)
    done = run_make(project.folder, "test", f"PYTHON={project.folder / python}")
    errors = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert done.returncode != 0
    assert len(errors) == 1
    assert errors[0].startswith(f"error: no Python 3.11 or newer found at {project.folder / python};")
    assert not (project.folder / ".venv").exists()


def test_installs_only_when_setup_changes(project):
    assert project.make("test").returncode == 0
    assert project.installations() == [".", ".[test]"]
    project.make("test")
    assert project.installations() == []
    assert "-m pytest" in project.log.read_text()
    later = (project.folder / ".venv" / ".installed-test").stat().st_mtime + 10
    os.utime(project.folder / "setup.py", (later, later))
    project.make("demo")
    assert project.installations() == ["."]


def test_weights_need_the_program_alone(project):
    assert project.make("lpips-weights").returncode == 0
    assert project.installations() == ["."]
    assert project.log.read_text().splitlines()[-1] == "-m dfm_jax.interop.lpips_weights --fetch"


def test_only_ci_installs_what_tests_compare_with(project):
    assert project.make(".venv/.installed-reference").returncode == 0
    assert project.installations() == [".", ".[test]", ".[reference]"]
    commands = (ROOT / ".ci" / "run").read_text().splitlines()
    assert commands[-2:] == ["make .venv/.installed-reference", "exec make test"]


def test_an_installation_that_failed_is_repeated(project):
    project.write_stand_in(pip_status=1)
    assert project.make("demo").returncode != 0
    assert project.installations() == ["."]
    project.write_stand_in()
    shutil.copy(project.python, project.folder / ".venv" / "bin" / "python")
    assert project.make("demo").returncode == 0
    assert project.installations() == ["."]


def test_demo_trains_then_samples_with_both_models_and_says_where_the_page_is(project):
    done = project.make("demo")
    assert done.returncode == 0
    modes = [line.split("--mode=")[1] for line in project.log.read_text().splitlines() if "dfm_jax.main" in line]
    assert [mode.split()[0] for mode in modes] == ["train", "sample", "sample"]
    assert done.stdout.splitlines()[-1] == f"Look at: file://{project.folder}/runs/demo/index.html"


def test_demo_without_a_page_is_an_error(project):
    project.write_stand_in(page=":")
    done = project.make("demo")
    assert done.returncode != 0
    assert "index.html was not written" in done.stderr


@pytest.mark.slow
def test_demo_from_a_fresh_clone(tmp_path):
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    data = "--config.data.dir=runs/demo/data --config.data.toy_scenes=64"
    samples = "--mode=sample --config.sample.num_scenes=1 --config.sample.num_samples=1"
    tiny = "DEMO_CONFIG=configs/toy.py:tiny", f"DEMO_DATA={data}", f"DEMO_SAMPLES={samples}"
    done = run_make(clone, "demo", *tiny, f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    assert (clone / "runs/demo/index.html").stat().st_size > 0
    status = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == "", "the demo left files that git does not ignore"
