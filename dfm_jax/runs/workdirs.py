"""The folder of a run: local, or in a bucket (`gs://`, through etils.epath; needs the extra [gcs])."""

import pathlib

from etils import epath

from dfm_jax.paths import expand_home


def is_remote(workdir: str | pathlib.Path) -> bool:
    return "://" in str(workdir)


def path_of(workdir: str | pathlib.Path) -> pathlib.Path:
    """As a path; `pathlib` alone would take a bucket for a local folder 'gs:'."""
    return epath.Path(workdir) if is_remote(workdir) else pathlib.Path(expand_home(str(workdir))).absolute()


def local_folder(workdir: str | pathlib.Path) -> pathlib.Path:
    """Where pictures, videos and exported files of a run go: they are written to disk. Of a run in a bucket, a folder
    with the last part of its name, here."""
    return pathlib.Path(path_of(workdir).name) if is_remote(workdir) else pathlib.Path(expand_home(str(workdir)))
