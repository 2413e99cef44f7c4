"""Trains a model; samples scenes from a trained one, shows them in a browser, evaluates or exports it; or says how fast
a config runs here, or whether it would fit a TPU.

    python -m dfm_jax.main --config=configs/toy.py                 # trains in runs/toy, or in --workdir=DIR
    python -m dfm_jax.main --workdir=runs/toy --mode=sample        # or a model that is shipped: --workdir=toy
    python -m dfm_jax.main --workdir=runs/toy --mode=sample --image=photo.jpg --fov=60
    python -m dfm_jax.main --workdir=runs/toy --mode=view          # says which address to open
    python -m dfm_jax.main --workdir=runs/toy --mode=evaluate
    python -m dfm_jax.main --workdir=runs/re10k --mode=evaluate --protocol=pixelsplat-single --index=FILE
    python -m dfm_jax.main --workdir=runs/toy --mode=export [--format=mesh,points]
    python -m dfm_jax.main --config=configs/toy.py --mode=benchmark
    python -m dfm_jax.main --config=configs/toy.py --mode=compile --topology=v5e:4x4

The config of a trained model is the checkpoint's, unless --config names another. Settings are overridden as in
--config.train.num_steps=30. Exit codes: 0 done, 1 failed with a message, 75 saved after SIGTERM or SIGHUP and to be
started again, 130 ended after Ctrl-C (training: saved). On TPU pods, SLURM (srun), Open MPI and Kubernetes, the
processes of a run find each other and share out what there is to do; --nodistributed goes alone.
"""

import contextlib
import json
import logging
import os
import sys
from functools import partial
from typing import Any

import jax
from absl import app, flags
from absl import logging as absl_logging

from dfm_jax import allocator, paths, platforms
from dfm_jax.config import Config, command_line
from dfm_jax.config.changes import with_evaluation, with_sampling
from dfm_jax.config.reading import from_dict
from dfm_jax.errors import UserError
from dfm_jax.paths import workdir_of_config
from dfm_jax.runs import log

logger = logging.getLogger(__name__)

# Examples of what a mode needs. A --workdir that is not said follows from the config, and the config of a trained model
# from the --workdir.
CONFIG, WORKDIR = "--config=configs/toy.py", "--workdir=runs/toy (or --workdir=toy, the model that is shipped)"
WRITING_MODES = ("sample", "evaluate", "export", "view")
DISTRIBUTED_MODES = ("train", "sample", "evaluate", "export")

_CONFIG = command_line.define_flag()
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run: checkpoints, logs, samples; or a shipped model.")
_OUT = flags.DEFINE_string("out", None, "Folder for results (sample, evaluate, export, view), if not the run's.")
MODES = ["train", "sample", "evaluate", "export", "view", "benchmark", "compile"]
_MODE = flags.DEFINE_enum("mode", "train", MODES, "What to do.")
_NUM_SAMPLES = flags.DEFINE_integer("num_samples", None, "Samples of each scene: --config.sample.num_samples.")
_SEED = flags.DEFINE_integer("seed", None, "Of what is sampled: --config.seed.")
_IMAGE = flags.DEFINE_multi_string("image", [], "A photograph to sample behind; several, of one scene, with --cameras.")
_CAMERAS = flags.DEFINE_string("cameras", "", "transforms.json whose frames have the photographs' file_path.")
_PATH = flags.DEFINE_string("path", "", "Cameras of the videos, by name, numbers or file: --config.sample.video_path.")
_TARGET = flags.DEFINE_string("target", "", "Target camera of a photograph, by name, numbers or file.")
_FOV = flags.DEFINE_float("fov", None, "Horizontal field of view of the whole upright photograph, degrees.")
_FOCAL = flags.DEFINE_float("focal", None, "In its place: focal length in pixels of that photograph.")
_CROP = flags.DEFINE_string("crop", None, "Of a photograph: centre (its middle square) or pad (all, with bars).")
_SCALE = flags.DEFINE_float("scale", None, "Units of the photographs' cameras in one unit of the model.")
OF_SAMPLING = (_NUM_SAMPLES, _SEED, _TARGET, _IMAGE, _CAMERAS, _FOV, _FOCAL, _CROP, _SCALE)
_PORT = flags.DEFINE_integer("port", 8080, "Port, or the next free one; with --mode=view.", 1, 65535)
_HOST = flags.DEFINE_string("host", "localhost", "Address to listen to; with --mode=view.")
_PROTOCOL = flags.DEFINE_string(
    "protocol", None, "Whose protocol to evaluate by (python -m dfm_jax.evaluation.protocols list)."
)
_INDEX = flags.DEFINE_string("index", None, "Index file of the views to evaluate: --config.evaluate.index.")
_FORMAT = flags.DEFINE_list("format", [], "What to export, as docs/exports.md lists; by default stablehlo,parameters.")
_NUM_VIEWS = flags.DEFINE_integer("num_views", None, "Views of a scene that its export is made of, or holds: 24.")
OF_MODES = (
    (OF_SAMPLING, ("sample", "view")),
    ((_PATH,), ("sample",)),
    ((_PORT, _HOST), ("view",)),
    ((_PROTOCOL, _INDEX), ("evaluate",)),
    ((_FORMAT, _NUM_VIEWS), ("export",)),
)
# What says the same in other modes.
SETTINGS = {("evaluate", "num_samples"): "evaluate.num_samples", ("export", "num_samples"): "sample.num_samples"}
SETTINGS |= {(mode, "seed"): "seed" for mode in ("train", "evaluate", "export")}
_PROGRAMS = flags.DEFINE_list("programs", [], "Programs to measure, all by default; with --mode=benchmark.")
_TOPOLOGY = flags.DEFINE_string("topology", "", "TPU to compile for, such as v5e:4x4; with --mode=compile.")
_NUM_SLICES = flags.DEFINE_integer("num_slices", 1, "Slices of that topology; with --mode=compile.", lower_bound=1)
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", None, "One of several processes; not said: as TPU pods, SLURM, Open MPI and Kubernetes say."
)
_COORDINATOR = flags.DEFINE_string("coordinator", "", "host:port of process 0, where the cluster does not tell.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run; with --coordinator.", lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Number of this process, from 0; with --coordinator.", lower_bound=0
)


def run(arguments: list[str]) -> int:
    """Does what the (parsed) flags say; returns the exit code."""
    if len(arguments) > 1:
        raise UserError(f"cannot make sense of {arguments[1]!r}: options are --config --workdir --mode, or --help")
    mode, workdir = _MODE.value, _WORKDIR.value
    if not _CONFIG.value:
        missing = ("config", CONFIG) if mode not in WRITING_MODES else ("workdir", WORKDIR)
        raise UserError("--{} is missing: for instance {}".format(*missing))
    if mode == "compile" and not _TOPOLOGY.value:
        raise UserError("--topology is missing: for instance --topology=v5e:4x4")
    if _OUT.value and mode not in WRITING_MODES:
        raise UserError(f"--out is for the results of {', '.join(WRITING_MODES)}: --mode={mode} has none")
    config = _as_said(mode, from_dict(_CONFIG.value))
    if not workdir and mode in ("train", *WRITING_MODES):
        workdir = workdir_of_config(flags.FLAGS["config"].config_filename)
        logger.info("the run's --workdir is %s", workdir)
    platforms.skip_absent_tpu()
    _cache_compilations()
    allocator.reuse_memory(_num_parameters(config))
    with initialize_processes(mode), platforms.memory_told():
        if mode != "compile":  # which is for devices that are not there
            platforms.start()
        return _dispatch(mode, config, workdir, _OUT.value)


def _as_said(mode: str, config: Config) -> Config:
    """The config with what options of sampling and of evaluation change in it, each for its modes alone."""
    for options, modes in OF_MODES:
        if mode not in modes and (said := [option.name for option in options if option.present]):
            setting = SETTINGS.get((mode, said[0]))
            instead = f"; in --mode={mode} it is --config.{setting}" if setting else ""
            raise UserError(f"--{said[0]} is for --mode={' and --mode='.join(modes)}{instead}")
    said = {"num_samples": _NUM_SAMPLES.value, "seed": _SEED.value, "video_path": _PATH.value or None}
    config = with_evaluation(config, {"protocol_name": _PROTOCOL.value, "index": _INDEX.value})
    return with_sampling(config, said, of_commands=True)


def initialize_processes(mode: str) -> contextlib.AbstractContextManager:
    """Joins this process to the others of its run, if there are any; modes for one process refuse that.

    Returns:
      the context to work in.
    """
    from dfm_jax.runs import cluster

    spec = cluster.resolve(_DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    if spec is not None and mode not in DISTRIBUTED_MODES:
        raise UserError(f"--mode={mode} is not for one of {spec}: start it once, with --nodistributed")
    return cluster.initialized(spec)


def _dispatch(mode: str, config: Config, workdir: str, out: str | None) -> int:
    # Imported when needed: a mistake in the flags is answered at once.
    if mode == "train":
        from dfm_jax.data.make_toy import with_data_set
        from dfm_jax.training.data import open_data
        from dfm_jax.training.loop import train

        return train(config, workdir, open_data=partial(open_data, prepare=with_data_set))
    if mode == "benchmark":
        from dfm_jax.profiling.benchmark import benchmark

        print(json.dumps(benchmark(config, _PROGRAMS.value)), flush=True)
        return 0
    if mode == "evaluate":
        from dfm_jax.commands.evaluate import evaluate

        result = evaluate(config, workdir, out)
        if jax.process_index() == 0:
            print(json.dumps(result), flush=True)
        return 0
    if mode == "compile":
        from dfm_jax.profiling.compile_report import compile_report

        compile_report(config, _TOPOLOGY.value, _NUM_SLICES.value)
        return 0
    if mode == "export":
        from dfm_jax.commands.export import export
        from dfm_jax.commands.export_model import FORMATS

        result = export(config, workdir, out, _FORMAT.value or FORMATS, _NUM_VIEWS.value)
        if jax.process_index() == 0:
            print(json.dumps(result), flush=True)
        return 0
    from dfm_jax.commands.sample_options import SampleOptions

    said = _PATH.value, _CAMERAS.value, _TARGET.value, _FOV.value, _FOCAL.value, _CROP.value, _SCALE.value
    options = SampleOptions(tuple(_IMAGE.value), *said)
    if mode == "view":
        from dfm_jax.commands.view import view

        view(config, workdir, out, _HOST.value, _PORT.value, options)
        return 0
    from dfm_jax.commands.sample import in_short, sample

    result = in_short(sample(config, workdir, out, options), workdir, out)
    if jax.process_index() == 0:
        print(json.dumps(result), flush=True)
    return 0


def _num_parameters(config: Config) -> int:
    from dfm_jax.forward_models.build import make_model
    from dfm_jax.forward_models.protocol import parameter_shapes

    model = make_model(config)
    return sum(x.size for x in jax.tree.leaves(parameter_shapes(model)))


def parse_flags(argv: list[str]) -> list[str]:
    """The arguments that are no flags; a mistake is a UserError."""
    return command_line.parse(flags.FLAGS, argv, _settings_in_workdir(argv))


def _settings_in_workdir(argv: list[str]) -> dict[str, Any] | None:
    """Those of the checkpoint in --workdir, for what is done with a trained model; None where a config is named, or no
    workdir."""
    if command_line.names_config(argv):
        return None
    first = flags.FlagValues()
    workdir = flags.DEFINE_string("workdir", None, "", flag_values=first)
    mode = flags.DEFINE_string("mode", "train", "", flag_values=first)
    with contextlib.suppress(flags.Error):  # mistakes are told when all flags are parsed
        first(argv, known_only=True)
        if workdir.value and mode.value in MODES[1:]:
            from dfm_jax.runs.saved_settings import saved_settings

            return saved_settings(workdir.value)
    return None


def _cache_compilations() -> None:
    """Keeps compiled programs between runs: where JAX_COMPILATION_CACHE_DIR says, or in the user's cache folder; not
    where the user has none that can be written, of which jax would warn with every program."""
    named, cache = os.environ.get("JAX_COMPILATION_CACHE_DIR"), paths.cache_folder()
    if named is not None:
        if named.startswith("~"):  # all else jax has read itself
            jax.config.update("jax_compilation_cache_dir", paths.expand_home(named))
    elif cache is not None:
        folder = cache / "dfm_jax" / "compiled"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            jax.config.update("jax_compilation_cache_dir", str(folder))


def _log_to_terminal() -> None:
    """Shows what this package logs on standard error; libraries raise what they log as an error, with a traceback."""
    absl_logging.set_verbosity(absl_logging.FATAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    log.to_terminal()


def main() -> None:
    """The command line."""
    _log_to_terminal()
    try:
        app.run(run, flags_parser=parse_flags)
    except UserError as error:
        logger.error(f"error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
