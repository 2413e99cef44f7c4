"""`--config=FILE.py:variant` and `--config.field=value`, for every program that takes them.

A ConfigDict lives here only: what comes out is a typed `Config`.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from dfm_jax.config import files
from dfm_jax.config.reading import flatten, from_dict
from dfm_jax.config.renamed import current_option
from dfm_jax.config.schema import Config
from dfm_jax.errors import UserError
from dfm_jax.paths import expand_argument, expand_home

OPTION = "--config"
SAVED = "the checkpoint's"  # instead of a file


class _FileParser(flags.ArgumentParser):
    """`FILE.py` or `FILE.py:variant`, as a ConfigDict of all settings."""

    def parse(self, argument: str) -> ConfigDict:
        file, *variant = argument.split(":", 1)
        return files.load(file, *variant).lock()


class _SavedParser(flags.ArgumentParser):
    """A config whose settings (nested) are known, whatever it is called."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = settings

    def parse(self, argument: str) -> ConfigDict:
        del argument
        return ConfigDict(dict(self._settings)).lock()


def define_flag(values: flags.FlagValues = flags.FLAGS) -> flags.FlagHolder:
    """The flag `--config`, to be read by `parse`; its value is a ConfigDict."""
    said = "Settings: FILE.py, FILE.py:variant or FILE.py:variant,variant."
    argv: list[str] = []  # in which the flag looks for overrides
    flag = config_flags.DEFINE_config_file(OPTION.strip("-"), None, said, flag_values=values, sys_argv=argv)
    values[flag.name].parser, values[flag.name].argv = _FileParser(), argv
    return flag


def parse(values: flags.FlagValues, argv: Sequence[str], saved: Mapping[str, Any] | None = None) -> list[str]:
    """Parses `argv` (with the program's name first) into `values`, which have the flag of `define_flag`.

    Args:
      saved: settings (nested) instead of a file, for an `argv` that names none; overrides change them.

    Returns:
      the arguments that are no flags.

    Raises:
      UserError: for a flag or setting that does not exist, a value of the wrong type, or a config that does not load.
    """
    argv = [current_option(_found(argument), OPTION[1:]) for argument in map(expand_argument, _joined(argv))]
    if saved is not None:
        values[OPTION.strip("-")].parser = _SavedParser(saved)
        argv = [*argv[:1], f"{OPTION}={SAVED}", *argv[1:]]
    values[OPTION.strip("-")].argv[:] = argv
    try:
        return values(argv)
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise UserError(_mistake(error)) from error


def names_config(argv: Sequence[str]) -> str:
    """The config that a command line names, FILE.py or FILE.py:variant; '' if it names none."""
    named = [a.partition("=")[2] for a in _joined(argv) if a.partition("=")[0] in (OPTION, OPTION[1:])]
    return named[-1] if named else ""


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
    """An argument; of the one that names a config, with the file that is meant."""
    name, separator, value = argument.partition("=")
    if name not in (OPTION, OPTION[1:]) or not separator:
        return argument
    file, colon, variant = value.partition(":")
    return f"{OPTION}={files.find(file)}{colon}{variant}"


def _mistake(error: BaseException) -> str:
    """What is wrong with a command line, from what was raised by parsing it."""
    cause = error.args[0] if error.args else error
    text = str(cause.args[0] if isinstance(cause, KeyError) else cause)
    if isinstance(error, flags.Error) and not text.startswith("Type <class 'NoneType'>"):
        return text.strip().splitlines()[-1].strip()  # ml_collections may have put a traceback before it
    text = " ".join(text.split())
    if absent := re.match(r"Type <class 'NoneType'> of field config\.(\S+)|Override (\S+) can not be applied", text):
        return (
            f"config.{absent[1] or absent[2]} cannot be set: it is, or belongs to, a part that is None in this config; "
            "choose a config or a variant whose model has it"
        )
    return f"an override names a setting that the config does not have: {text}"


def read_config(file: str, overrides: Sequence[str] = (), saved: Mapping[str, Any] | None = None) -> Config:
    """The settings of `FILE.py` or `FILE.py:variant,variant`, or `saved` ones (nested) where no file is named, with
    overrides such as '--config.train.num_steps=30'.

    Raises:
      UserError: as `parse`, and for a setting that is missing or inconsistent.
    """
    argv = ["", *([f"{OPTION}={expand_home(file)}"] if file else []), *overrides]
    values = flags.FlagValues()
    config = define_flag(values)
    strays = parse(values, argv, saved)[1:]
    if strays:
        raise UserError(f"cannot make sense of {strays[0]!r}: options begin with -- (see --help)")
    return from_dict(config.value)


def overrides(file: str, config: Config) -> str:
    """The options, as typed in a shell, that turn the settings of `file` into `config`; '' if they are the same."""
    theirs, ours = flatten(read_config(file)), flatten(config)
    return shlex.join(f"--config.{name}={value}" for name, value in ours.items() if theirs.get(name) != value)
