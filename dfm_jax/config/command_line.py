"""`--config=FILE.py:variant` and `--config.field=value`, for every program that takes them.

A ConfigDict lives here only: what comes out is a typed `Config`.
"""

import pathlib
import re
import shlex
import traceback
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from dfm_jax.config.reading import flatten, from_dict
from dfm_jax.config.schema import Config
from dfm_jax.errors import UserError
from dfm_jax.paths import expand_argument, expand_home, shipped

OPTION = "--config"


def parse(values: flags.FlagValues, config: flags.FlagHolder, argv: Sequence[str]) -> list[str]:
    """Parses `argv` (with the program's name first) into `values`, to which the flag `config` belongs.

    Returns:
      the arguments that are no flags.

    Raises:
      UserError: for a flag or setting that does not exist, a value of the wrong type, or a config that does not load.
    """
    argv = [_found(argument) for argument in map(expand_argument, _joined(argv))]
    file = next((a.partition("=")[2].partition(":")[0] for a in argv if a.startswith(f"{OPTION}=")), "")
    try:
        arguments = values(argv)
        loaded = config.value
        lock = getattr(loaded, "lock", None)  # what went wrong when it was loaded shows on the first use only
    except (Exception, SystemExit) as error:
        raise UserError(_mistake(error, file)) from error
    if file and not isinstance(loaded, ConfigDict):
        raise UserError(f"get_config() of {file} must return a ConfigDict of ml_collections, not {loaded!r}")
    if file:
        lock()
    return arguments


def _joined(argv: Sequence[str]) -> list[str]:
    """With '--config FILE' as '--config=FILE'."""
    joined = []
    for argument in argv:
        if joined and joined[-1] in (OPTION, OPTION[1:]):
            joined[-1] = f"{OPTION}={argument}"
        else:
            joined.append(argument)
    return joined


def _found(argument: str) -> str:
    """An argument; of the one that names a config, with the file that comes with the package where there is no other.

    Raises:
      UserError: there is no such file.
    """
    name, separator, value = argument.partition("=")
    if name not in (OPTION, OPTION[1:]) or not separator:
        return argument
    file, colon, variant = value.partition(":")
    if not pathlib.Path(file).is_file():
        theirs = shipped(file)
        if theirs is None or theirs.suffix != ".py":
            known = ", ".join(f"configs/{path.name}" for path in sorted(shipped("configs").glob("*.py")))
            raise UserError(f"there is no config file {file!r}; those that come with the package: {known}")
        file = str(theirs)
    return f"{OPTION}={file}{colon}{variant}"


def _mistake(error: BaseException, file: str) -> str:
    """What is wrong with a command line or with its config file, from what was raised by parsing it."""
    cause = error.args[0] if error.args else error
    text = str(cause.args[0] if isinstance(cause, KeyError) else cause)
    if place := _place_in(file, error):
        return f"{place}: {type(error).__name__}: {' '.join(str(error).split())}"
    if isinstance(error, flags.Error | OSError) and not text.startswith("Type <class 'NoneType'>"):
        return text.strip().splitlines()[-1].strip()  # ml_collections may have put a traceback before it
    text = " ".join(text.split())
    if absent := re.match(r"Type <class 'NoneType'> of field config\.(\S+)|Override (\S+) can not be applied", text):
        return (
            f"config.{absent[1] or absent[2]} cannot be set: it is, or belongs to, a part that is None in this config; "
            "choose a config or a variant whose model has it"
        )
    if isinstance(error, AttributeError | KeyError) and "get_config" not in text:
        return f"an override names a setting that the config does not have: {text}"
    return f"{file}: {text}"


def _place_in(file: str, error: BaseException) -> str:
    """Where in a config file an error arose, 'FILE, line N'; '' if it is not from there."""
    if isinstance(error, SyntaxError) and error.filename and _same(error.filename, file):
        return f"{file}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if _same(frame.filename, file)]
    return f"{file}, line {lines[-1]}" if lines else ""


def _same(a: str, b: str) -> bool:
    return bool(b) and pathlib.Path(a).resolve() == pathlib.Path(b).resolve()


def read_config(file: str, overrides: Sequence[str] = ()) -> Config:
    """The settings of `FILE.py` or `FILE.py:variant`, with overrides such as '--config.train.num_steps=30'.

    Raises:
      UserError: as `parse`, and for a setting that is missing or inconsistent.
    """
    argv = ["", f"{OPTION}={expand_home(file)}", *overrides]
    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    strays = parse(values, config, argv)[1:]
    if strays:
        raise UserError(f"cannot make sense of {strays[0]!r}: options begin with -- (see --help)")
    return from_dict(config.value)


def overrides(file: str, config: Config) -> str:
    """The options, as typed in a shell, that turn the settings of `file` into `config`; '' if they are the same."""
    theirs, ours = flatten(read_config(file)), flatten(config)
    return shlex.join(f"--config.{name}={value}" for name, value in ours.items() if theirs.get(name) != value)
