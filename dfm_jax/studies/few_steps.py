"""What few sampling steps cost: quality against time, of fitted solvers and of those that are not.

    python -m dfm_jax.studies.few_steps --workdir=W [--seeds=0,1,2] [--solver_files=A.json,B.json]
        [--points=fitted:5,unipc:5] [--beside=NAME=few_steps.json,...] [--config.FIELD=VALUE ...]

Samples `evaluate.num_samples` scenes behind each of `evaluate.num_scenes` contexts of the evaluation split, for each
seed: by the solvers that are fitted to the model (where there are files), and by others with steps even in log-SNR; a
student by `consistency` at high noise; or only by those of `--points` and `--solver_files`. Of each, in the scenes'
renderings as in `--mode=evaluate`: the context view in dB; where the odds are known (toy), total variation to them,
mode purity, and how many novel views agree; purity in what diffusion ended with is `purity_of_x0`. `seconds` are those
of a sample without its scene, of the fastest batch. Writes `few_steps.json`, as it goes, and `few_steps.png` to
`<workdir>/few_steps/`; the last line on standard output is that JSON. With `--beside`, the plot shows other models as
well, a student's teacher say, by the JSON that was written of each.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dfm_jax.config import FITTED, SAMPLERS, Config
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.pages import plots
from dfm_jax.runs import log
from dfm_jax.runs.barriers import by_first, from_first, is_first
from dfm_jax.runs.output_folders import writing_to
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.solver_files import file_beside, read
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.arguments import run_sweep
from dfm_jax.studies.calibration import parse_seeds
from dfm_jax.studies.sampling_quality import SampledScenes, of_honest_draws, quality, sample_all, seconds_in_turn

logger = logging.getLogger(__name__)

OURS = ("few_steps.png", "few_steps.json")
STEPS = {"fitted": (2, 3, 4, 5), "dpm-solver++": (2, 3, 4, 5, 8, 10, 15), "unipc": (3, 4, 5, 8, 10)}
STUDENT = "consistency"
STEPS_OF_STUDENTS = {STUDENT: (1, 2, 3, 4)}
TIMED = 3  # batches


@dataclasses.dataclass(frozen=True)
class Point:
    """A way to sample, by its name."""

    name: str
    settings: dict[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        return {"name": self.name, "sampler": self.settings["sampler"], "num_steps": self.settings["num_steps"]}


def sweep(
    config: Config,
    workdir: str,
    folder: Path,
    *,
    seeds: Sequence[int],
    chosen: str,
    files: Sequence[str],
    at_once: int,
    beside: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Measures every point, writes the folder, and returns the numbers. The first process does it.

    Args:
      beside: records of other models, for the plot.

    Raises:
      UserError: the model has no scenes or no colours, or is deterministic, there is no checkpoint or data set, a file
        is no solver, another process is at it, or the folder cannot be written.
    """
    require_scenes(config, "few_steps")
    require_colours(config, "few_steps")
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has no sampling steps")
    trained, config = restore_trained(config, workdir), with_data_set(config)
    steps = STEPS_OF_STUDENTS if config.sample.sampler == STUDENT else STEPS
    measured = points(workdir, chosen, files, steps)

    def write() -> dict[str, Any]:
        scenes = SampledScenes.to_evaluate(config)
        source = made_from.model_and_data(trained.params, trained.step, scenes.data)
        about = {"step": trained.step, "made_from": source, "seeds": list(seeds)}
        about |= {"num_samples": len(_of_all(scenes, seeds).pairs)} | of_honest_draws(_of_all(scenes, seeds))
        records: list[dict[str, Any]] = []
        finishing = trained.sampled_with(sampler="ddim").diffusion()
        with tqdm(total=len(measured) * len(seeds), unit="seed", desc="few steps") as bar:
            for point in measured:
                records.append(point.record | _measure(trained, point, scenes, seeds, finishing, at_once, bar.update))
                (folder / OURS[1]).write_text(json.dumps(about | {"records": records}, indent=1) + "\n")
        plots.few_steps(folder / OURS[0], [*records, *beside], about.get("total_variation_of_honest_draws"))
        return about | {"records": records}

    with by_first(writing_to(folder, "measuring few steps", f"what was measured is in {folder}")):
        return from_first(write)


def points(workdir: str, chosen: str, files: Sequence[str], steps: Mapping[str, Sequence[int]] = STEPS) -> list[Point]:
    """The points of `sampler:steps,...` and of files; without either, of `steps` of each sampler.

    Raises:
      UserError: there is no such sampler, or a file is no solver.
    """
    if chosen:
        named = [part.rpartition(":") for part in chosen.split(",")]
    elif files:
        named = []
    else:
        named = [(sampler, ":", str(n)) for sampler, numbers in steps.items() for n in numbers]
        named = [each for each in named if each[0] != FITTED or file_beside(workdir, int(each[2])).exists()]
    found = []
    for sampler, _, number in named:
        if sampler not in SAMPLERS or not number.isdigit():
            raise UserError(f"--points={chosen}: SAMPLER:STEPS,... is needed, with one of {', '.join(SAMPLERS)}")
        spacing = "high-noise" if sampler == STUDENT else "log-snr"  # the levels that students are made for
        settings = {"sampler": sampler, "spacing": spacing, "num_steps": int(number), "solver_file": ""}
        found.append(Point(sampler, settings))
    for file in files:
        settings = {"sampler": FITTED, "num_steps": len(read(file)["timesteps"]), "solver_file": file}
        found.append(Point(Path(file).stem, settings))
    return found


def _measure(
    trained: Sampler,
    point: Point,
    scenes: SampledScenes,
    seeds: Sequence[int],
    finishing: DiffusionSampler,
    at_once: int,
    told: Callable[[int], Any],
) -> dict[str, Any]:
    """The numbers of a point: of every seed, and of the samples of all together."""
    diffusion = trained.sampled_with(**point.settings).diffusion()
    drawn, seconds = [], []
    for seed in seeds:
        *images, times = sample_all(diffusion, finishing, scenes, seed, at_once)
        drawn.append(images)
        seconds += times
        told(1)
    measured = [quality(scenes, *images) for images in drawn]
    if len(seconds) <= TIMED:  # the first call compiles
        seconds += seconds_in_turn({"": diffusion}, scenes, TIMED, at_once)[""]
    together = quality(_of_all(scenes, seeds), *(_joined(scenes, parts) for parts in zip(*drawn, strict=True)))
    return together | {"seconds": min(seconds[1:]), "of_seeds": measured}


def _of_all(scenes: SampledScenes, seeds: Sequence[int]) -> SampledScenes:
    return dataclasses.replace(scenes, num_samples=scenes.num_samples * len(seeds))


def _joined(scenes: SampledScenes, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Images [s * n, ...] of each seed as those of all seeds, scene by scene."""
    by_scene = [x.reshape(len(scenes.views), scenes.num_samples, *x.shape[1:]) for x in parts]
    return np.concatenate(by_scene, axis=1).reshape(-1, *parts[0].shape[1:])


def other_records(given: str) -> list[dict[str, Any]]:
    """The records in files of `NAME=few_steps.json,...`, by these names.

    Raises:
      UserError: there is no such file, or it is another.
    """
    found = []
    for part in filter(None, given.split(",")):
        name, _, file = part.partition("=")
        try:
            records = json.loads(Path(file).read_text())["records"]
            for record in records:
                plotted = {"num_steps": int(record["num_steps"]), "seconds": float(record["seconds"])}
                found.append(record | plotted | {"name": f"{name}: {record['name']}"})
        except (OSError, ValueError, KeyError, TypeError) as error:
            needed = "NAME=few_steps.json,... is needed, with files that this command wrote"
            raise UserError(f"--beside={given}: {needed}; {file or 'no file'}: {error}") from error
    return found


def table(result: dict[str, Any]) -> str:
    """The numbers as lines of text: of all seeds together, and their range over the seeds."""
    columns = ("total_variation", "purity", "purity_of_x0", "novel_view_agreement", "context_psnr")
    columns = [name for name in columns if name in result["records"][0]]
    lines = [f"{'':<24}{'steps':>6}" + "".join(f"{name:>28}" for name in columns) + f"{'ms a sample':>14}"]
    for record in result["records"]:
        line = f"{record['name']:<24}{record['num_steps']:>6}"
        for name in columns:
            values = [each[name] for each in record["of_seeds"]]
            line += f"{f'{record[name]:.4g} ({min(values):.4g}-{max(values):.4g})':>28}"
        lines.append(line + f"{1e3 * record['seconds']:>14.3g}")
    if honest := result.get("total_variation_of_honest_draws"):
        lines.append(
            f"{result['num_samples']} samples in all; as many honest draws: total variation {honest:.4f} on average"
        )
    return "\n".join(lines)


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--points", default="")
    parser.add_argument("--solver_files", default="")
    parser.add_argument("--beside", default="")
    parser.add_argument("--batch_size", type=int, default=0)
    own, rest = parser.parse_known_args(argv)
    files = [file for file in own.solver_files.split(",") if file]
    own_settings = {"seeds": parse_seeds(own.seeds), "chosen": own.points, "files": files, "at_once": own.batch_size}
    measure = partial(sweep, **own_settings, beside=other_records(own.beside))
    result, folder = run_sweep(rest, __doc__, measure, name="few_steps", ours=OURS, marker=OURS[1])
    logger.info(f"{table(result)}\nlook at {folder / OURS[0]}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
