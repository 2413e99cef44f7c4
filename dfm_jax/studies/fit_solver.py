"""Fits a solver of few steps to a trained model, without training it.

    python -m dfm_jax.studies.fit_solver --workdir=W --steps=5 [--out=FILE] [--config.FIELD=VALUE ...]
    python -m dfm_jax.main --workdir=W --mode=sample --config.sample.sampler=fitted --config.sample.num_steps=5

Finds noise levels, the timesteps that the denoiser is told and coefficients (`diffusion/fitted_solver.py`) with which
`--steps` steps come nearest to 250 of DPM-Solver++, even in log-SNR, from the same noise. Contexts and targets are of
the training split, and the noise is of no seed that samples begin with: nothing is seen that samples are judged by.
Guidance, temperature and thresholding are those of the config. Writes `solver-<steps>.json` beside the checkpoint (of
a model that comes with the package, in `runs/<name>`), or `--out`; the last line on standard output is that JSON.

With `--timesteps=999,960,910,830,400` nothing is fitted: the file is DPM-Solver++(2M) at these timesteps.

Its `fit` says how far the samples miss the reference, from 0 to 1, and how many of them chose as the reference did
(20 dB or nearer); of data whose odds are known (toy), also the total variation to these of both.
"""

import argparse
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from dfm_jax import platforms
from dfm_jax.config import FITTED, Config
from dfm_jax.config.command_line import read_config
from dfm_jax.data.loading import pipeline
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.diffusion.fitted_solver import dpm_solver_as_fitted
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.calibration.reading import UNSEEN
from dfm_jax.evaluation.image_metrics import total_variation
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import GeneratingModel, in_colour
from dfm_jax.runs import fingerprints, log
from dfm_jax.runs.output_folders import writing_file
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.runs.workdirs import local_folder
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, to_image
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.solver_files import file_beside, to_values
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.solver_fitting import Free, Reference, improved, missed, misses, samples, starts

logger = logging.getLogger(__name__)

SEED = 2**31 - 11  # of contexts; folded into the key of the config's seed for noise, which no sample's key is
STARTED_WITH = 32  # samples that the levels to start from are compared on
GRADIENT = 4  # what a step costs with its gradient, in steps without


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long a fit takes: with these, less than 15 minutes for the toy model on two cores."""

    num_samples: int = 128
    batch_size: int = 16
    updates: int = 100
    reference_steps: int = 250


def fit(config: Config, workdir: str, num_steps: int, effort: Effort) -> dict[str, Any]:
    """The values of a solver's file (`sampling/solver_files.py`).

    Raises:
      UserError: the model is deterministic, there is no checkpoint or data set, or no solver has as many steps.
    """
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has no sampling steps")
    total = config.diffusion.num_timesteps
    if not 2 <= num_steps <= total:
        raise UserError(f"--steps={num_steps}: a solver has 2 to {total} steps (one step leaves nothing to be fitted)")
    start = time.monotonic()
    trained, config = restore_trained(config, workdir), with_data_set(config) if config.data else config
    example, names = training_examples(config, effort.num_samples)
    base = trained.sampled_with(sampler="dpm-solver++", spacing="log-snr", num_steps=min(effort.reference_steps, total))
    long = base.diffusion()
    few = long.replace(settings=dataclasses.replace(long.settings, sampler=FITTED, num_steps=num_steps))
    with _bar(long, few, effort) as bar:
        references = _references(long, example, config.seed, effort, bar)
        solver = _fitted(few, references, effort, bar)
        seen = _seen(few, solver, references, bar)
    wanted = np.concatenate([np.asarray(reference.wanted[1]) for reference in references])
    missing = np.asarray(misses(seen, wanted))
    numbers = {"missed": float(missing.mean()), "same": float((missing < 0.5).mean())}
    numbers |= _odds(config, names, example, {"reference": wanted, "solver": seen})
    return to_values(solver.solver(few.schedule), total) | {
        "made_from": _made_from(trained),
        "fit": numbers | dataclasses.asdict(effort) | {"seconds": time.monotonic() - start},
    }


def by_hand(config: Config, workdir: str, timesteps: Sequence[int]) -> dict[str, Any]:
    """The values of a file of DPM-Solver++ at chosen timesteps.

    Raises:
      UserError: they do not fall from the noisiest one, or there is no checkpoint.
    """
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    last = schedule.num_timesteps - 1
    if timesteps[0] != last or timesteps[-1] < 0 or any(np.diff(timesteps) >= 0):
        raise UserError(f"--timesteps must fall from {last} and be at least 0, as in --timesteps={last},850,400")
    solver = dpm_solver_as_fitted(schedule, [*timesteps, -1])
    return to_values(solver, schedule.num_timesteps) | {"made_from": _made_from(restore_trained(config, workdir))}


def training_examples(config: Config, count: int) -> tuple[Any, list[str]]:
    """Examples [count] as the model was trained on them, but of targets that are not also context, and not mirrored or
    scaled; and the names of their scenes, if they have any.

    Raises:
      UserError: there is no such data set.
    """
    model = make_model(config)
    if isinstance(model, GeneratingModel):
        return model.generate(SEED, np.arange(count)), []
    plain = {"context_as_target_probability": 0.0, "flip_probability": 0.0, "scale_jitter": 0.0}
    data = dataclasses.replace(config.data, view_sampling=dataclasses.replace(config.data.view_sampling, **plain))
    batches = pipeline.training_batches(data, image_size=config.image_size, batch_size=count, seed=SEED)
    try:
        return next(batches), pipeline.scene_names(data, batch_size=count, seed=SEED, step=0)
    finally:
        batches.close()


def _bar(long: DiffusionSampler, few: DiffusionSampler, effort: Effort) -> tqdm:
    """Counts evaluations of the denoiser, of one example each; what a gradient costs is counted in them."""
    n, number = few.settings.num_steps, effort.num_samples
    some = effort.batch_size * _compared(effort)
    drawn = len(starts(few.schedule, n)) * some + 3 * number + effort.updates * effort.batch_size * GRADIENT
    evaluations = number * _evaluations(long) + drawn * _evaluations(few)
    return tqdm(total=evaluations, unit="evaluation", desc=f"fitting {n} steps", smoothing=0.1)


def _compared(effort: Effort) -> int:
    """Batches that the levels to start from are compared on."""
    return -(-min(STARTED_WITH, effort.num_samples) // effort.batch_size)


def _evaluations(sampler: DiffusionSampler) -> int:
    """Of the denoiser, for a sample and its scene."""
    return sampler.settings.num_steps + 1


def _references(long: DiffusionSampler, example: Any, seed: int, effort: Effort, bar: tqdm) -> list[Reference]:
    """Batches of samples in many steps."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), SEED), effort.num_samples)
    found = []
    for start in range(0, effort.num_samples, effort.batch_size):
        part = slice(start, start + effort.batch_size)
        batch = jax.device_put(jax.tree.map(lambda x, part=part: x[part], example))
        found.append(Reference(batch, keys[part], samples(long, None, batch, keys[part])))
        jax.block_until_ready(found[-1].wanted)
        bar.update(effort.batch_size * _evaluations(long))
    return found


def _fitted(few: DiffusionSampler, references: Sequence[Reference], effort: Effort, bar: tqdm) -> Free:
    """The best of the solver that it starts with and what became of it, on all samples."""
    one = effort.batch_size * _evaluations(few)
    told = lambda: bar.update(one)
    some = references[: _compared(effort)]
    scores = [(missed(few, free, some, told), free) for free in starts(few.schedule, few.settings.num_steps)]
    first = min(scores, key=lambda each: each[0])[1]
    last = improved(few, first, references, effort.updates, lambda: bar.update(GRADIENT * one))
    return min((first, last), key=lambda free: missed(few, free, references, told))


def _seen(few: DiffusionSampler, solver: Free, references: Sequence[Reference], bar: tqdm) -> np.ndarray:
    """What the scenes of all samples look like at their targets."""
    found = []
    for reference in references:
        found.append(np.asarray(samples(few, solver, reference.example, reference.keys)[1]))
        bar.update(len(found[-1]) * _evaluations(few))
    return np.concatenate(found)


def _odds(config: Config, names: Sequence[str], example: Any, drawn: dict[str, np.ndarray]) -> dict[str, Any]:
    """Total variation of what samples [b, h, w, 3] show to its odds, of each of `drawn`; none where these are not
    known, or the model knows no colours, by which they are read."""
    if not names or not in_colour(make_model(config)):
        return {}
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.split)
    if (kind := known_odds(data)) is None:
        return {}
    found: dict[str, Any] = {}
    records = [data.scene(data.names.index(name)).attributes for name in names]
    poses, intrinsics = example.target.absolute_pose[:, :1], example.target.camera.intrinsics[:, :1]
    for which, x0 in drawn.items():
        each = zip(records, poses, intrinsics, np.asarray(to_image(x0))[:, None, None], strict=True)
        modes = np.array([kind.read(*one).modes.item() for one in each])
        counts = np.bincount(modes[modes != UNSEEN], minlength=kind.odds.size)
        found[f"total_variation_of_{which}"] = total_variation(counts, kind.odds.ravel())
    return found


def _made_from(trained: Sampler) -> dict[str, Any]:
    sample = trained.config.sample
    guidance = {name: value for name, value in dataclasses.asdict(sample).items() if name.startswith("guidance")}
    settings = guidance | {"temperature": sample.temperature, "threshold_quantile": sample.threshold_quantile}
    parameters = fingerprints.of_arrays(trained.params)
    return {"name": Path(trained.name).name, "step": trained.step, "parameters": parameters, "sample": settings}


def _whole_numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise UserError(f"--timesteps={text}: whole numbers are needed, as in --timesteps=999,850,400") from error


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="of a trained model, or the name of one that is shipped")
    parser.add_argument("--steps", type=int, help="of the solver")
    parser.add_argument("--timesteps", default="", help="999,...: nothing is fitted, in the place of --steps")
    parser.add_argument("--config", default="", help="FILE.py or FILE.py:variant; without, the checkpoint's")
    parser.add_argument("--out", help="the file; without, solver-<steps>.json beside the checkpoint")
    parser.add_argument("--num_samples", type=int, default=Effort.num_samples, help="that are matched")
    parser.add_argument("--batch_size", type=int, default=Effort.batch_size, help="samples at once; divides them")
    parser.add_argument("--reference_steps", type=int, default=Effort.reference_steps, help="of what is matched")
    parser.add_argument("--updates", type=int, default=Effort.updates, help="of the solver")
    arguments, overrides = parser.parse_known_args(argv)
    effort = Effort(arguments.num_samples, arguments.batch_size, arguments.updates, arguments.reference_steps)
    if min(dataclasses.astuple(effort)) < 1 or effort.num_samples % effort.batch_size:
        raise UserError("numbers of samples, updates and steps are at least 1, and batches divide the samples")
    timesteps = _whole_numbers(arguments.timesteps)
    if (arguments.steps is None) == (not timesteps):
        raise UserError("give --steps=5, or --timesteps=999,... of a solver that is not fitted")
    saved = None if arguments.config else saved_settings(arguments.workdir)
    config = read_config(arguments.config, overrides, saved)
    with platforms.memory_told():
        platforms.start()
        if timesteps:
            values = by_hand(config, arguments.workdir, timesteps)
        else:
            values = fit(config, arguments.workdir, arguments.steps, effort)
    num_steps = len(values["timesteps"])
    file = Path(arguments.out) if arguments.out else local_folder(arguments.workdir) / f"solver-{num_steps}.json"
    with writing_file(file) as unfinished:
        unfinished.write_text(json.dumps(values, indent=1) + "\n")
    found = file_beside(arguments.workdir, num_steps) == file.absolute()
    use = f"--config.sample.sampler=fitted --config.sample.num_steps={num_steps}"
    logger.info(f"sample with {use}" + ("" if found else f" --config.sample.solver_file={file}"))
    print(json.dumps(values | {"file": str(file)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
