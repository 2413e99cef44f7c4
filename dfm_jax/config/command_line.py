"""`--config=FILE.py:variant` and `--config.field=value`, for every program that takes them.

A ConfigDict lives here only: what comes out is a typed `Config`.
"""

import shlex
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from dfm_jax.config.reading import flatten, from_dict
from dfm_jax.config.schema import Config
from dfm_jax.errors import UserError


def parse(values: flags.FlagValues, config: flags.FlagHolder, argv: Sequence[str]) -> list[str]:
    """Parses `argv` (with the program's name first) into `values`, to which the flag `config` belongs.

    Returns:
      the arguments that are no flags.

    Raises:
      UserError: for a flag or setting that does not exist, a value of the wrong type, or a config that does not load.
    """
    try:
        arguments = values(argv)
        if config.value is not None:
            config.value.lock()  # a file that is not there shows on the first use only
        return arguments
    except (AttributeError, KeyError) as error:  # from the ConfigDict
        if not any(argument.startswith("--config.") for argument in argv):
            raise  # no mistake of the command line
        cause = error.args[0].args[0] if isinstance(error.args[0], KeyError) else error.args[0]
        what = " ".join(cause.split())
        raise UserError(f"an override names a setting that the config does not have: {what}") from error
    except (OSError, flags.Error) as error:
        # The message alone, where ml_collections has put a traceback before it.
        raise UserError(str(error.args[0]).strip().splitlines()[-1].strip()) from error


def read_config(file: str, overrides: Sequence[str] = ()) -> Config:
    """The settings of `FILE.py` or `FILE.py:variant`, with overrides such as '--config.train.num_steps=30'.

    Raises:
      UserError: as `parse`, and for a setting that is missing or inconsistent.
    """
    argv = ["", f"--config={file}", *overrides]
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
