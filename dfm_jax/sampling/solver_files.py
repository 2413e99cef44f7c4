"""Files of fitted solvers (`diffusion/fitted_solver.py`): JSON, one for a model and a number of steps.

    <workdir>/solver-5.json   where `python -m dfm_jax.studies.fit_solver --workdir=W --steps=5` puts it

A model that comes with the package has its own in the package. Those of the toy model stand in where a model has none:
levels and coefficients mean the same to all models of the cosine schedule, but only a fit knows what is best for one.
"""

import dataclasses
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from dfm_jax.config import FITTED, Config, SampleConfig
from dfm_jax.diffusion.fitted_solver import FittedSolver
from dfm_jax.errors import UserError
from dfm_jax.runs.workdirs import path_of, shipped_file, shipped_model

logger = logging.getLogger(__name__)

DEFAULT = "toy"  # the shipped model whose solvers stand in
COMMAND = "python -m dfm_jax.studies.fit_solver"
FORM = "dfm_jax fitted solver 1"
NUMBERS = ("timesteps", "log_snr", "weights")


def with_solver_file(config: Config, workdir: str | pathlib.Path = "") -> Config:
    """The config with the file that its fitted solver is read from, in the place of ''; as it is if it samples with
    another sampler.

    Args:
      workdir: of the model; '': there is none.

    Raises:
      UserError: there is no file, or it is damaged or of another number of steps.
    """
    if config.sample.sampler != FITTED:
        return config
    file = config.sample.solver_file or str(_find(config.sample.num_steps, workdir))
    found = dataclasses.replace(config, sample=dataclasses.replace(config.sample, solver_file=file))
    solver_of(found.sample, config.diffusion.num_timesteps)
    return found


def file_beside(workdir: str | pathlib.Path, num_steps: int) -> pathlib.Path:
    """Where the solver of a model lies, if it has one of as many steps."""
    if file := shipped_model(workdir):
        return _shipped(file.stem, num_steps)
    return path_of(workdir) / f"solver-{num_steps}.json"


def _shipped(name: str, num_steps: int) -> pathlib.Path:
    return shipped_file(name).with_name(f"{name}.solver-{num_steps}.json")


def _find(num_steps: int, workdir: str | pathlib.Path) -> pathlib.Path:
    places = [file_beside(workdir, num_steps)] if workdir else []
    for place in (*places, _shipped(DEFAULT, num_steps)):
        if place.exists():
            return place
    shipped = shipped_file(DEFAULT).parent.glob(f"{DEFAULT}.solver-*.json")
    numbers = ", ".join(sorted(file.stem.rpartition("-")[2] for file in shipped))
    raise UserError(
        f"there is no fitted solver of config.sample.num_steps={num_steps} steps for {workdir or 'this model'}: those "
        f"that come with the package have {numbers}; fit one with {COMMAND} --workdir={workdir or 'WORKDIR'} "
        f"--steps={num_steps}, or choose another sampler"
    )


def tell_origin(config: Config, fingerprint: str) -> None:
    """Says it where the solver of a config (`with_solver_file`) was fitted to other parameters than those with this
    fingerprint."""
    source = read(config.sample.solver_file)["made_from"]
    if source.get("parameters") != fingerprint:
        logger.warning(
            f"the solver in {config.sample.solver_file} was fitted to another model ({source.get('name')}, step "
            f"{source.get('step')}), and stands in for one of this model, which {COMMAND} fits"
        )


def solver_of(sample: SampleConfig, num_timesteps: int) -> FittedSolver | None:
    """The solver that the settings name; None of other samplers.

    Raises:
      UserError: the file is missing, damaged, or of another number of steps or timesteps.
    """
    if sample.sampler != FITTED:
        return None
    if not sample.solver_file:
        raise ValueError("the file of the fitted solver was not looked for (with_solver_file)")
    values = read(sample.solver_file)
    n = len(values["timesteps"])
    if n != sample.num_steps:
        raise UserError(
            f"{sample.solver_file} is a solver of {n} steps, and config.sample.num_steps is {sample.num_steps}: set it "
            f"to {n}, or choose another config.sample.solver_file"
        )
    if values["num_timesteps"] != num_timesteps:
        raise UserError(
            f"{sample.solver_file} was fitted to a model of {values['num_timesteps']} timesteps, and this one has "
            f"{num_timesteps}: fit a solver to it with {COMMAND}"
        )
    return from_values(values)


def from_values(values: Mapping[str, Any]) -> FittedSolver:
    """The solver in a file's values."""
    weights = np.zeros((len(values["timesteps"]),) * 2, np.float32)
    for i, row in enumerate(values["weights"]):
        weights[i, :i] = row
    log_snr = jnp.asarray(values["log_snr"], jnp.float32)
    return FittedSolver(jnp.asarray(values["timesteps"], jnp.int32), log_snr, jnp.asarray(weights))


def to_values(solver: FittedSolver, num_timesteps: int) -> dict[str, Any]:
    """What JSON holds of a solver: `timesteps` [n], `log_snr` [n - 1] and the `weights` [n][i], without their zeros."""
    weights = np.asarray(solver.weights, np.float64)
    return {
        "form": FORM,
        "num_timesteps": num_timesteps,
        "timesteps": np.asarray(solver.timesteps).astype(int).tolist(),
        "log_snr": np.asarray(solver.log_snr, np.float64).round(6).tolist(),
        "weights": [weights[i, :i].round(6).tolist() for i in range(len(weights))],
    }


def read(file: str | pathlib.Path) -> dict[str, Any]:
    """The values of a file.

    Raises:
      UserError: it is missing, or no file of a solver.
    """
    path = path_of(file)
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"the fitted solver {file} cannot be read ({error}); {COMMAND} writes such files") from error
    if problem := _problem(values):
        raise UserError(f"{file} is no fitted solver: {problem}; {COMMAND} writes such files")
    return values


def _problem(values: Any) -> str:
    """What is wrong with a file's values; '' if nothing is."""
    if not isinstance(values, dict) or values.get("form") != FORM:
        return f"it does not say 'form': '{FORM}'"
    total, rows = values.get("num_timesteps"), values.get("weights")
    try:
        t, log_snr = (np.array(values.get(name), np.float64) for name in ("timesteps", "log_snr"))
        lengths = [len(row) for row in rows]
        weights = np.array([x for row in rows for x in row], np.float64)
    except (TypeError, ValueError):
        return "timesteps, log_snr and weights must be lists of numbers"
    if not isinstance(total, int) or t.ndim != 1 or not len(t) or np.any(t != t.round()):
        return "num_timesteps must be a whole number, and timesteps must be some"
    if t[0] != total - 1 or np.any(t < 0) or np.any(np.diff(t) > 0):
        return f"timesteps must fall from num_timesteps - 1 = {total - 1} and be at least 0"
    if log_snr.shape != (len(t) - 1,) or not np.all(np.isfinite(log_snr)) or np.any(np.diff(log_snr) < 0):
        return f"log_snr must be {len(t) - 1} rising numbers"
    if lengths != list(range(len(t))) or not np.all(np.isfinite(weights)):
        return f"weights must be {len(t)} rows, of 0, 1, 2, ... numbers"
    return "" if isinstance(values.get("made_from"), dict) else "it does not say what it was made from"
