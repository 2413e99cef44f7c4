"""Trains a model, or samples scenes from a trained one.

    python -m dfm_jax.main --config=configs/toy.py --workdir=runs/toy
    python -m dfm_jax.main --config=configs/toy.py --workdir=runs/toy --mode=sample

Settings are overridden as in --config.train.num_steps=30. Exit codes: 0 done, 1 failed with a message, 75 saved after
SIGTERM and to be started again.
"""

import logging
import os
import pathlib
import sys

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from dfm_jax.config import Config, from_dict
from dfm_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Settings: FILE.py or FILE.py:variant.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run: checkpoints, logs, samples.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "sample"], "What to do.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes (TPU pod, SLURM, MPI, Kubernetes).")
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, where the cluster does not tell.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 0, "Processes of the run; with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", -1, "Number of this process, from 0; with --coordinator.")


def run(arguments: list[str]) -> int:
    """Does what the (parsed) flags say; returns the exit code."""
    if len(arguments) > 1:
        raise UserError(f"cannot make sense of {arguments[1]!r}: options are --config --workdir --mode, or --help")
    for name, flag in (("config", _CONFIG), ("workdir", _WORKDIR)):
        if not flag.value:
            raise UserError(f"--{name} is missing: for instance --config=configs/toy.py --workdir=runs/toy")
    config = from_dict(_CONFIG.value)
    _cache_compilations()
    if _DISTRIBUTED.value or _COORDINATOR.value:
        from dfm_jax.training.sharding import initialize_distributed

        initialize_distributed(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    return _dispatch(_MODE.value, config, _WORKDIR.value)


def _dispatch(mode: str, config: Config, workdir: str) -> int:
    # Imported when needed: a mistake in the flags is answered at once.
    if mode == "train":
        from dfm_jax.training.loop import train

        return train(config, workdir)
    from dfm_jax.evaluation.sample import sample

    sample(config, workdir)
    return 0


def parse_flags(argv: list[str]) -> list[str]:
    """The arguments that are no flags.

    Raises:
      UserError: for a flag or setting that does not exist, a value of the wrong type, or a config that does not load.
    """
    try:
        arguments = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.lock()  # a file that is not there shows on the first use only
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


def _cache_compilations() -> None:
    """Keeps compiled programs between runs, unless JAX_COMPILATION_CACHE_DIR says where (jax reads it itself)."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(pathlib.Path(home) / "dfm_jax" / "compiled"))


def _log_to_terminal() -> None:
    """Shows what this package logs, and only warnings of the libraries, on standard error."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    logger, handler = logging.getLogger("dfm_jax"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def main() -> None:
    """The command line."""
    _log_to_terminal()
    try:
        app.run(run, flags_parser=parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
