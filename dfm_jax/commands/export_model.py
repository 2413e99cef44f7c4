"""The formats `parameters` and `stablehlo` of `--mode=export`: what others need of a trained model.

    checkpoints/<step>/{ema,config}   a workdir of its own: `--mode=sample --workdir=<workdir>/export` takes it
    solver-<steps>.json               its solver, if the config samples with a fitted one
    params.npz                        the parameters by name, for the denoiser
    denoiser.jax_export               one denoising step as StableHLO for cpu, cuda and tpu: needs jax alone
    inputs.npz                        its other inputs for some scenes, where there is data
    export.json                       what is in there, and how it is called

`examples/sample_exported.py` samples with it.
"""

import dataclasses
import fnmatch
import hashlib
import json
import logging
import pathlib
from collections.abc import Collection
from functools import partial
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax import Array

from dfm_jax.commands import stablehlo
from dfm_jax.config import FITTED, Config
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.examples import abstract_example, held_out_examples
from dfm_jax.forward_models.build import make_model
from dfm_jax.runs import fingerprints
from dfm_jax.runs.barriers import from_first
from dfm_jax.runs.checkpoints import Checkpoints
from dfm_jax.runs.output_folders import check_room, replacing
from dfm_jax.runs.retention import Retention
from dfm_jax.sampling import solver_files
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.solver_files import NUMBERS, file_beside, with_solver_file

logger = logging.getLogger(__name__)

FORMATS = ("stablehlo", "parameters")
MARK = "export.json"
OURS = ("checkpoints", "solver-*.json", "denoiser.jax_export", "params.npz", "inputs.npz", MARK)
FILES = {
    "stablehlo": ("denoiser.jax_export", "params.npz", "inputs.npz"),
    "parameters": ("checkpoints", "solver-*.json", "params.npz"),
}
NUM_EXAMPLES = 4


def check(config: Config) -> None:
    """
    Raises:
      UserError: guidance carries momentum from step to step.
    """
    if config.sample.guidance_momentum:
        raise UserError("an exported denoiser carries nothing from step to step: set config.sample.guidance_momentum=0")


def export_model(trained: Sampler, folder: pathlib.Path, formats: Collection[str]) -> dict[str, dict[str, Any]]:
    """Exports the averaged parameters of a trained model, and its denoiser, to a folder; of several processes, the
    first one does. What was exported before stays until this is complete.

    Returns:
      of each format, its `files` and the `step`.

    Raises:
      UserError: another run exports there, or the folder cannot be written.
    """
    return from_first(partial(_export, trained, folder, formats))


def _export(trained: Sampler, folder: pathlib.Path, formats: Collection[str]) -> dict[str, dict[str, Any]]:
    with replacing(folder, OURS, "exporting") as building:
        _write(trained, formats, building)
        names = sorted(path.name for path in building.iterdir())
    logger.info(f"exported step {trained.step} to {folder}: {', '.join(names)}")
    return {
        kind: {
            "files": [str(folder / name) for each in FILES[kind] for name in fnmatch.filter(names, each)],
            "step": trained.step,
        }
        for kind in FORMATS
        if kind in formats
    }


def _write(trained: Sampler, formats: Collection[str], folder: pathlib.Path) -> None:
    """Writes what was asked for to `folder`."""
    config, params, step = trained.config, trained.params, trained.step
    solver_file = with_solver_file(config, trained.name).sample.solver_file
    model = make_model(config)
    check_room(folder.parent, 2 * sum(x.nbytes for x in jax.tree.leaves(params)))  # as a checkpoint, and by names
    if "parameters" in formats:
        with Checkpoints(folder, keep=Retention(1), alone=True) as checkpoints:
            # Arrays of one process among several are saved as numpy's.
            checkpoints.save_trees(
                step, _without_places(config), ema=params if jax.process_count() == 1 else jax.device_get(params)
            )
        if config.sample.sampler == FITTED:
            name = file_beside(folder, config.sample.num_steps).name
            (folder / name).write_text(json.dumps(solver_files.read(solver_file), indent=1) + "\n")
    # The denoiser is of no use without its parameters.
    np.savez(folder / "params.npz", **{name: np.asarray(x) for name, x in flatten_dict(params, sep="/").items()})
    if "stablehlo" in formats:
        (folder / "denoiser.jax_export").write_bytes(stablehlo.export_denoiser(config, model))
        inputs = _some_inputs(config)
        if inputs is not None:
            np.savez(folder / "inputs.npz", **inputs)
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    shape = jax.eval_shape(model.target, abstract_example(config, 1))[0].shape[1:]
    about = _description(config, step, schedule.alpha_bar, shape, solver_file)
    about |= {"parameters": fingerprints.of_arrays(params), "sha256": _checksums(folder)}
    (folder / "export.json").write_text(json.dumps(about, indent=1) + "\n")


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """Of the files beside export.json, by name: who reads them can tell whether they are whole."""
    checksums = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            checksums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def _some_inputs(config: Config) -> dict[str, np.ndarray] | None:
    """Of the first evaluation scenes; None where the data set is not here."""
    number = min(NUM_EXAMPLES, config.sample.num_scenes)
    try:
        example, _ = held_out_examples(config, number)
    except UserError as error:
        logger.info(f"without inputs.npz: {error}")
        return None
    return {name: np.asarray(x) for name, x in stablehlo.to_inputs(example).items()}


def _without_places(config: Config) -> Config:
    """The config of an exported workdir: its fitted solver lies beside the checkpoint."""
    return dataclasses.replace(config, sample=dataclasses.replace(config.sample, solver_file=""))


def _description(
    config: Config, step: int, alpha_bar: Array, shape: tuple[int, ...], solver_file: str
) -> dict[str, Any]:
    """`shape`: of one observation."""
    solver = solver_files.read(solver_file) if config.sample.sampler == FITTED else None
    return {
        "step": step,
        "platforms": stablehlo.PLATFORMS,
        "image_size": config.image_size,
        "shape": shape,
        "guidance": config.sample.guidance,
        "temperature": config.sample.temperature,
        "num_steps": config.sample.num_steps,
        "solver": solver and {name: solver[name] for name in NUMBERS},  # diffusion/fitted_solver.py says how it samples
        "call": "denoiser(params, inputs, x_t [b, *shape] in [-1, 1], timestep [b] int32) -> x0 [b, *shape]",
        "alpha_bar": np.asarray(alpha_bar, np.float64).tolist(),
    }
