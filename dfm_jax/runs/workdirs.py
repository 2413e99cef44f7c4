"""The folder of a run: local, or in a bucket (`gs://`, through etils.epath; needs the extra [gcs]).

The name of a model that comes with the package ('toy') stands for that model wherever a workdir is read, unless there
is a workdir of this name here; its results go to `runs/<name>`.
"""

import pathlib

from etils import epath

from dfm_jax.paths import PACKAGE, RUNS, expand_home


def is_remote(workdir: str | pathlib.Path) -> bool:
    return "://" in str(workdir)


def path_of(workdir: str | pathlib.Path) -> pathlib.Path:
    """As a path; `pathlib` alone would take a bucket for a local folder 'gs:'."""
    return epath.Path(workdir) if is_remote(workdir) else pathlib.Path(expand_home(str(workdir))).absolute()


def shipped_file(name: str) -> pathlib.Path:
    """Where the packed checkpoint of this name (`packed.py`) lies in the package, if it comes with one."""
    return PACKAGE / "pretrained" / f"{name}.npz"


def shipped_model(workdir: str | pathlib.Path) -> pathlib.Path | None:
    """The packed checkpoint that a name stands for; None: this is a workdir."""
    name = str(workdir)
    known = pathlib.PurePath(name).name == name and shipped_file(name).is_file()
    return shipped_file(name) if known and not pathlib.Path(name, "checkpoints").is_dir() else None


def local_folder(workdir: str | pathlib.Path) -> pathlib.Path:
    """Where pictures, videos and exported files of a run go: they are written to disk. Of a run in a bucket, a folder
    with the last part of its name, here."""
    if shipped_model(workdir):
        return RUNS / str(workdir)
    return pathlib.Path(path_of(workdir).name) if is_remote(workdir) else pathlib.Path(expand_home(str(workdir)))


def results_folder(workdir: str | pathlib.Path, name: str, out: str | pathlib.Path | None = None) -> pathlib.Path:
    """Where results of a run go: `out`, if that is given, or else the folder `name` of the run."""
    return pathlib.Path(expand_home(str(out))) if out else local_folder(workdir) / name
