"""The trained model that is sampled, evaluated or measured."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax

from dfm_jax.config import FITTED, Config
from dfm_jax.config.automatic import with_dtype
from dfm_jax.errors import UserError
from dfm_jax.runs import fingerprints
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.compatibility import check_same_config, tell_untrained_guidance
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.solver_files import tell_origin, with_solver_file


def restore_trained(config: Config, workdir: str | os.PathLike) -> Sampler:
    """The latest averaged parameters of `workdir`, to be sampled as the config says.

    The config may have its own seed and data; what the parameters mean may not change.

    Raises:
      UserError: there is no checkpoint, or it is of another model; or the solver that it is sampled with is not there.
    """
    params, step, saved = restore_params(workdir)
    config = with_dtype(config, jax.default_backend(), saved["model"].get("compute_dtype", ""))
    check_same_config({**saved, "seed": config.seed, "data": dataclasses.asdict(config)["data"]}, config, workdir)
    tell_untrained_guidance(saved, config)
    if config.sample.sampler == FITTED:
        tell_origin(with_solver_file(config, workdir), fingerprints.of_arrays(params))
    return Sampler(params, config, step, str(workdir), saved)


def outdated(workdir: str | os.PathLike, results: Mapping[str, Any]) -> str:
    """What results of a workdir are of, where its latest checkpoint is another one; '' where they are of that, or
    nothing can be told.

    Args:
      results: have a `step` and, unless they are of an earlier version, `made_from` with the parameters' fingerprint.
    """
    try:
        params, step, _ = restore_params(workdir)
    except UserError:  # none is left: only the results were kept
        return ""
    if step != results["step"]:
        return f"of step {results['step']}, and the latest checkpoint there is of step {step}"
    parameters = results.get("made_from", {}).get("parameters")
    if parameters in (None, fingerprints.of_arrays(params)):
        return ""
    return f"of step {step}, but of other parameters than the checkpoint of that step that is there now"
