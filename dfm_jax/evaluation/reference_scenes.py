"""How a trained model takes held-out scenes of its own data, for photographs to be compared with: computed once, and
kept in the workdir, or beside a model that is shipped.
"""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.config import DataConfig
from dfm_jax.data.loading import evaluation_views
from dfm_jax.data.loading.toy_data import find_toy
from dfm_jax.errors import UserError
from dfm_jax.evaluation.made_from import of_sampling
from dfm_jax.runs import fingerprints
from dfm_jax.runs.result_files import DAMAGE
from dfm_jax.runs.workdirs import results_folder, shipped_model
from dfm_jax.sampling.familiarity import FEWEST, PARTS, VERSION, Reference, sample_parts
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.solver_files import with_solver_file
from dfm_jax.structs import Example

logger = logging.getLogger(__name__)

FOLDER, FILE = "familiarity", "reference.json"
NUM_SAMPLES = 3  # of each held-out scene
SEED = 1
DIGITS = 5


def find_reference(trained: Sampler, workdir: str | os.PathLike) -> tuple[Reference | None, str]:
    """What photographs are compared with, and where it comes from; or None, and why there is nothing.

    It is read where it was kept, or else computed where the data set is, and kept.
    """
    config = trained.config
    if not config.sample.reference_scenes:
        return None, "there is nothing to compare with: config.sample.reference_scenes is 0"
    wanted, places = _made_from(trained), [_file(workdir)]
    if (shipped := shipped_model(workdir)) is not None:
        places.append(shipped.with_suffix(f".{FILE}"))
    for place in places:
        if (reference := _read(place, wanted)) is not None:
            return reference, f"held-out scenes of the model's data, from {place.name}"
    try:
        data = find_toy(config.data, config.image_size)
        example = held_out(data, config.image_size, config.sample.reference_scenes)
    except UserError as error:
        return None, f"there is nothing to compare with, since the model's data is not here: {error}"
    if len(example.near) < FEWEST:
        return None, f"there is nothing to compare with: {len(example.near)} held-out scenes are too few"
    reference = compute(trained, example)
    keep(_file(workdir), trained, reference)
    return reference, f"{len(reference.values)} held-out scenes of the model's data"


def held_out(data: DataConfig, image_size: int, num_scenes: int) -> Example:
    """Examples [r] of held-out scenes, `num_scenes` or as many as there are.

    Raises:
      UserError: there is no such data set.
    """
    views = evaluation_views.evaluation_views(data, num_scenes=num_scenes, seed=SEED, fewer=True)
    return evaluation_views.load_views(data, views, image_size=image_size)


def compute(trained: Sampler, example: Example) -> Reference:
    """Of held-out examples [r], sampled as photographs are."""
    doing = "sampling held-out scenes to compare with"
    return Reference(sample_parts(trained.diffusion(), example, NUM_SAMPLES, SEED, doing=doing))


def keep(file: Path, trained: Sampler, reference: Reference) -> None:
    """Writes a reference; where that cannot be, the next command computes it again."""
    content = {"made_from": _made_from(trained), "parts": list(PARTS)}
    content["values"] = np.round(reference.values, DIGITS).tolist()
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content) + "\n")
        partial.replace(file)
    except OSError as error:
        logger.warning(f"the reference values are not kept, and computed again by the next command: {error}")


def _file(workdir: str | os.PathLike) -> Path:
    return results_folder(workdir, FOLDER) / FILE


def _made_from(trained: Sampler) -> dict[str, Any]:
    """What the values depend on, but for the data: a model has one."""
    return {
        "version": VERSION,
        "parameters": fingerprints.of_arrays(trained.params),
        "sample": fingerprints.of_json(of_sampling(with_solver_file(trained.config, trained.name))),
        "num_samples": NUM_SAMPLES,
    }


def _read(file: Path, wanted: Mapping[str, Any]) -> Reference | None:
    """None: there is none, or it is of another model, or sampled otherwise, or damaged."""
    try:
        content = json.loads(file.read_text())
        values = np.array(content["values"], np.float64)
        same = content["made_from"] == wanted and content["parts"] == list(PARTS)
        return Reference(values) if same and values.shape[1:] == (len(PARTS),) and len(values) >= FEWEST else None
    except DAMAGE:
        return None
