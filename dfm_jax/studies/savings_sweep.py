"""What rendering less costs: quality against time, of samples for which work is left out.

    python -m dfm_jax.studies.savings_sweep --workdir=W [--seeds=0,1,2] [--savings='A=1 B=2; A=2']
        [--config.FIELD=VALUE ...]

Samples `evaluate.num_samples` scenes behind each of `evaluate.num_scenes` contexts of the evaluation split, for each
seed, as the config says, with nothing left out; and then in ways that leave work out, from the same noise. They are
those of `--savings`, settings of `config.sample` by their names, or what the model allows. Of each:

    speed      how many times as fast a sample without its scene is, in the median of rounds in which all take turns
    psnr       of the samples against those with nothing left out, median, dB; `same`, the share at 20 dB or above
    context_psnr, total_variation, purity, novel_view_agreement   of the scenes behind them (`sampling_quality.quality`)

Writes `savings.json`, as it goes, and `savings.png` to `<workdir>/savings/`; the last line on standard output is that
JSON.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dfm_jax.config import Config
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.pages import plots
from dfm_jax.runs import log
from dfm_jax.runs.barriers import by_first, from_first, is_first
from dfm_jax.runs.output_folders import writing_to
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.arguments import run_sweep
from dfm_jax.studies.calibration import parse_seeds
from dfm_jax.studies.sampling_quality import SampledScenes, of_honest_draws, quality, sample_all, seconds_in_turn
from dfm_jax.studies.steps_sweep import compare

logger = logging.getLogger(__name__)

OURS = ("savings.png", "savings.json")
ROUNDS = 5
NOTHING = {"coarse_pass": "coarse", "kept_samples": 1.0, "marching_schedule": ""}  # left out
Savings = dict[str, Any]  # settings of `config.sample`


def sweep(
    config: Config, workdir: str, folder: Path, seeds: Sequence[int], chosen: Sequence[Savings]
) -> dict[str, Any]:
    """Measures every way, writes the folder, and returns the numbers. The first process does it.

    Raises:
      UserError: the model has no scenes or no colours, or is deterministic, a setting is not known or not possible,
        there is no checkpoint or data set, another process is at it, or the folder cannot be written.
    """
    require_scenes(config, "savings_sweep")
    require_colours(config, "savings_sweep")
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has no sampling steps")
    trained, config = restore_trained(config, workdir), with_data_set(config)
    exact = trained.sampled_with(**NOTHING)
    ways = [exact, *(exact.sampled_with(**savings) for savings in chosen or possible_savings(config))]
    names = ["nothing left out", *map(_name, chosen or possible_savings(config))]

    def write() -> dict[str, Any]:
        scenes = SampledScenes.to_evaluate(config)
        about = {"step": trained.step, "num_samples": len(scenes.pairs), "seeds": list(seeds)}
        about["made_from"] = made_from.model_and_data(trained.params, trained.step, scenes.data)
        about |= of_honest_draws(scenes)
        result = {}
        for records in _measured(dict(zip(names, ways, strict=True)), scenes, seeds):
            result = about | {"records": records}
            (folder / OURS[1]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        plots.quality_over_speed(folder / OURS[0], result["records"], about.get("total_variation_of_honest_draws"))
        return result

    with by_first(writing_to(folder, "measuring savings", f"what was measured is in {folder}")):
        return from_first(write)


def possible_savings(config: Config) -> list[Savings]:
    """What can be left out of a model's work, from little to much."""
    marching = config.model.ray_marching
    even, fine = marching.num_coarse, marching.num_fine
    half, quarter = max(3, even // 2), max(3, even // 4)
    if not fine:
        few = [f"0:{3 * even // 4}", f"0:{half}"]
        made, coarser = str(even), str(half)
    else:
        few = [f"0:{even}+{fine // 2}", f"0:{even}+{fine // 4}", f"0:{half}+{fine // 2}", f"0:{half}+{fine // 4}"]
        made, coarser = f"{even}+{fine // 2}", f"{half}+{fine // 4}"
    from_levels = [f"0:{made},{level}:{coarser}/2" for level in (0.95, 0.9, 0.85, 0.75, 0.6)]
    steps = [*few, *from_levels, f"0:{made},0.75:{coarser}/2,0.9:{quarter}{f'+{fine // 4}' if fine else ''}/4"]
    schedules = [{"marching_schedule": schedule} for schedule in steps]
    kept = [{"kept_samples": share} for share in (0.75, 0.5, 0.25, 0.125)]
    if not fine:
        return schedules
    if config.model.proposal is not None:
        return kept + schedules
    return [*kept, {"coarse_pass": "fine"}, *({"coarse_pass": "fine"} | schedule for schedule in schedules)]


def _name(savings: Savings) -> str:
    return " ".join(f"{name}={value}" for name, value in savings.items())


def _measured(
    ways: Mapping[str, Sampler], scenes: SampledScenes, seeds: Sequence[int]
) -> Iterator[list[dict[str, Any]]]:
    """The records of the first ways, one more each time; the last time with the speeds of all."""
    samplers = {name: way.diffusion() for name, way in ways.items()}
    exact = next(iter(samplers.values()))
    full: dict[int, np.ndarray] = {}  # samples of each seed, with nothing left out
    records = []
    with tqdm(total=len(samplers) * len(seeds), unit="seed", desc="savings") as bar:
        for name, sampler in samplers.items():
            of_seeds = []
            for seed in seeds:
                x0, views, _ = sample_all(sampler, exact, scenes, seed)
                near = compare(x0, full.setdefault(seed, x0), None, len(x0))
                of_seeds.append(near | quality(scenes, x0, views))
                bar.update()
            means = {key: float(np.mean([each[key] for each in of_seeds])) for key in of_seeds[0]}
            records.append({"name": name} | means | {"of_seeds": of_seeds})
            yield records
    seconds = {name: np.array(each) for name, each in seconds_in_turn(samplers, scenes, ROUNDS).items()}
    base = next(iter(seconds.values()))
    for record in records:
        mine = seconds[record["name"]]
        record |= {"seconds": float(np.median(mine)), "speed": float(np.median(base / mine))}
    yield records


def table(result: Mapping[str, Any]) -> str:
    """The numbers as lines of text: means over the seeds, and their range."""
    columns = ("psnr", "same", "context_psnr", "total_variation", "purity", "novel_view_agreement")
    columns = [name for name in columns if name in result["records"][0]]
    width = 2 + max(len(record["name"]) for record in result["records"])
    lines = [" " * width + f"{'speed':>8}" + "".join(f"{name:>26}" for name in columns)]
    for record in result["records"]:
        line = f"{record['name']:<{width}}{record['speed']:>8.2f}"
        for name in columns:
            values = [each[name] for each in record["of_seeds"]]
            line += f"{f'{record[name]:.4g} ({min(values):.4g}-{max(values):.4g})':>26}"
        lines.append(line)
    if honest := result.get("total_variation_of_honest_draws"):
        lines.append(f"{result['num_samples']} honest draws: total variation {honest:.4f} on average")
    return "\n".join(lines)


def parse_savings(text: str) -> list[Savings]:
    """Of `coarse_pass=fine kept_samples=0.5; marching_schedule=0:16`, which are two.

    Raises:
      UserError: it is none.
    """
    found = []
    for way in filter(str.strip, text.split(";")):
        parts = [part.partition("=") for part in way.split()]
        if not all(name and value for name, _, value in parts):
            raise UserError(f"--savings={text}: NAME=VALUE of config.sample are needed, with spaces between them")
        found.append({name: _value(value) for name, _, value in parts})
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--savings", default="")
    own, rest = parser.parse_known_args(argv)
    measure = partial(sweep, seeds=parse_seeds(own.seeds), chosen=parse_savings(own.savings))
    result, folder = run_sweep(rest, __doc__, measure, name="savings", ours=OURS, marker=OURS[1])
    logger.info(f"{table(result)}\nlook at {folder / OURS[0]}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
