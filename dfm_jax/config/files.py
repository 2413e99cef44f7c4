"""Config files: modules with a function `get_config`, in `configs/` or of a user's own.

A file can import what lies beside it, `from .published import recipe`; a copy of a shipped file in another folder finds
the shipped ones, too.
"""

import contextlib
import importlib.machinery
import importlib.util
import pathlib
import sys
import traceback
import types
from collections.abc import Iterator

from ml_collections import ConfigDict

from dfm_jax.config.reading import with_defaults
from dfm_jax.config.renamed import current_settings
from dfm_jax.errors import UserError
from dfm_jax.paths import shipped

PACKAGE = "dfm_jax_config_files"  # of which a file is a module while it is read


def find(file: str) -> str:
    """The path of a config file: as it is, or of the one that comes with the package where there is no other.

    Raises:
      UserError: there is no such file.
    """
    if pathlib.Path(file).is_file():
        return file
    theirs = shipped(file)
    if theirs is None or theirs.suffix != ".py":
        paths = (path for path in sorted(shipped("configs").glob("*.py")) if "def get_config(" in path.read_text())
        known = ", ".join(f"configs/{path.name}" for path in paths)
        raise UserError(f"there is no config file {file!r}; those that come with the package: {known}")
    return str(theirs)


def load(file: str, *variant: str) -> ConfigDict:
    """All settings of a config file, or of a variant of it: what the file states, and the defaults of all else.

    Raises:
      UserError: the file cannot be used, or has no such variant.
    """
    try:
        with _package(pathlib.Path(file).parent):
            loader = importlib.machinery.SourceFileLoader(f"{PACKAGE}.file", file)
            module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
            sys.modules[loader.name] = module
            loader.exec_module(module)
            config = module.get_config(*variant)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (Exception, SystemExit) as error:
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        raise UserError(f"{_place(file, error)}: {kind}{' '.join(str(error).split())}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"get_config() of {file} must return a ConfigDict of ml_collections, not {config!r}")
    return ConfigDict(with_defaults(current_settings(config.to_dict())))


@contextlib.contextmanager
def _package(folder: pathlib.Path) -> Iterator[None]:
    """A package of the files in a folder and, where it has no file of that name, of those that are shipped."""
    package = types.ModuleType(PACKAGE)
    package.__path__ = [str(folder), str(shipped("configs"))]
    sys.modules[PACKAGE] = package
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == PACKAGE or name.startswith(f"{PACKAGE}.")]:
            del sys.modules[name]


def _place(file: str, error: BaseException) -> str:
    """The file in which an error arose, with the last line of it that has a part in that."""
    same = lambda path: pathlib.Path(path).resolve() == pathlib.Path(file).resolve()
    if isinstance(error, SyntaxError) and error.filename and same(error.filename):
        return f"{file}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if same(frame.filename)]
    return f"{file}, line {lines[-1]}" if lines else file
