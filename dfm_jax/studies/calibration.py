"""Whether samples have the odds that their data set's hidden attributes are known to have, over several seeds.

    python -m dfm_jax.studies.calibration --workdir=toy [--seeds=0,1,2] [--config.FIELD=VALUE ...]

Draws `evaluate.num_samples` images of target view 0 behind each of `evaluate.num_scenes` contexts, for each seed, and
reads the hidden attributes off them. Of each attribute the table has, for every seed and for all together:

    coverage   share of truths in central intervals of the samples: of the scenes' own truths, and of all truths that
               the odds allow, whose noise is smaller (`evaluation/calibration/honest_draws.py`)
    ranks p    probability of rank histograms as uneven by chance, of both, ties broken at random
    TV         of discrete attributes: total variation between the samples and the odds

and beside them what as many draws of the odds themselves come to, simulated. Seeds have the same scenes, so that all
together know no more truths of their own. Writes `calibration.json` and the table to `<workdir>/calibration/`; the
last line on standard output is that JSON.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.config import Config
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration import calibrate, honest_draws
from dfm_jax.evaluation.calibration.known_odds import KnownOdds, known_odds
from dfm_jax.evaluation.image_metrics import total_variation
from dfm_jax.evaluation.uncertainty import places
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.runs import log
from dfm_jax.runs.barriers import by_first, from_first, is_first
from dfm_jax.runs.output_folders import replacing
from dfm_jax.sampling.diffusion_sampler import Params
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.arguments import run_sweep

logger = logging.getLogger(__name__)

OURS = ("calibration.json", "calibration.txt")
ALL, HONEST = "all", "honest draws"
MOST_KINDS = 20  # an attribute with more values is continuous, and has no total variation


def sweep(config: Config, workdir: str, folder: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Measures every seed, writes the folder, and returns the numbers. The first process does it.

    Raises:
      UserError: the model has no scenes or no colours, or is deterministic, there is no checkpoint or data set, the
        data's odds are not known, another process is at it, or the folder cannot be written.
    """
    require_scenes(config, "calibration")
    require_colours(config, "calibration")
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has one answer, and no odds")
    trained, config = restore_trained(config, workdir), with_data_set(config)

    def measured() -> dict[str, Any]:
        data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        kind = known_odds(data)
        if kind is None:
            raise UserError(f"the odds of {data.path} are not known: calibration is of toy scenes and their like")
        source = made_from.model_and_data(trained.params, trained.step, data)
        return _measured(config, trained.params, kind, data, seeds) | {"step": trained.step, "made_from": source}

    with by_first(replacing(folder, OURS, "measuring calibration")) as building:
        result = from_first(measured)
        from_first(partial(_write, building, result))
    return result


def _measured(
    config: Config, params: Params, kind: KnownOdds, data: SceneDataset, seeds: Sequence[int]
) -> dict[str, Any]:
    views = evaluation_views.evaluation_views(config.data, num_scenes=config.evaluate.num_scenes, fewer=True)
    count = len(views) * config.evaluate.num_samples
    drawn: dict[int, dict[str, np.ndarray]] = {}
    for seed in seeds:
        images = calibrate.sample_images(dataclasses.replace(config, seed=seed), params, views, config.sample, count)
        drawn[seed] = read_samples(kind, data, views, images)
        logger.info(f"seed {seed}: {count} samples")
    attributes = attributes_of(kind, drawn, true_values(kind, data, views))
    return {"num_scenes": len(views), "num_samples": count, "seeds": list(seeds), "attributes": attributes}


def _write(folder: Path, result: Mapping[str, Any]) -> None:
    (folder / OURS[0]).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / OURS[1]).write_text(table(result) + "\n", encoding="utf-8")


def read_samples(
    kind: KnownOdds, data: SceneDataset, views: Sequence[tuple[int, ViewIndices]], images: np.ndarray
) -> dict[str, np.ndarray]:
    """The attributes [scenes, samples] that `calibrate.sample_images` [samples * scenes, h, w, 3] show."""
    by_scene = images.reshape(-1, len(views), *images.shape[1:]).swapaxes(0, 1)
    found = []
    for (number, indices), samples in zip(views, by_scene, strict=True):
        scene, frames = data.scene(number), indices.target[:1]
        poses, intrinsics = scene.camera_to_world[frames, :3], scene.intrinsics[frames]
        found.append(kind.read(scene.attributes, poses, intrinsics, samples[:, None]).scalars)
    return {name: np.stack([each[name] for each in found]) for name in found[0]}


def true_values(kind: KnownOdds, data: SceneDataset, views: Sequence[tuple[int, ViewIndices]]) -> dict[str, np.ndarray]:
    """The attributes [scenes] of the scenes themselves."""
    truths = [kind.truth(data.scene(number).attributes) for number, _ in views]
    return {name: np.array([truth[name] for truth in truths]) for name in truths[0]}


def attributes_of(
    kind: KnownOdds, drawn: Mapping[int, Mapping[str, np.ndarray]], truth: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Of each attribute a record of each seed, and of the samples of all together."""
    found: dict[str, dict[str, Any]] = {}
    for name, likely in kind.likely.items():
        records = {}
        for seed, values in drawn.items():
            of_truths = {"of_truths": honest_draws.ranks(_places(values[name], truth[name], seed))}
            records[str(seed)] = of_truths | _of_odds(values[name], likely, seed)
        found[name] = records | {ALL: _of_odds(np.concatenate([x[name] for x in drawn.values()]), likely, 0)}
    return found


def _places(samples: np.ndarray, truth: np.ndarray, seed: int) -> np.ndarray:
    """Of the truths [m] among samples [m, n]; without scenes that do not tell."""
    rng, told = np.random.default_rng(seed), np.isfinite(truth) & np.isfinite(samples).any(1)
    of_scene = lambda row, true: places(row[np.isfinite(row)][:, None], np.array([true]), rng).item()
    return np.array([of_scene(row, true) for row, true in zip(samples[told], truth[told], strict=True)])


def _of_odds(samples: np.ndarray, likely: np.ndarray, seed: int) -> dict[str, Any]:
    """Of samples [m, n] of one attribute, against its odds."""
    record = {"of_odds": honest_draws.of_odds(samples, likely, seed)}
    values, counts = np.unique(likely, return_counts=True)
    if len(values) <= MOST_KINDS:
        shown = samples[np.isfinite(samples)]
        odds = (counts / counts.sum()).tolist()
        record["counts"] = [int((shown == value).sum()) for value in values]
        record["total_variation"] = total_variation(np.array(record["counts"]), np.array(odds))
        record["total_variation_of_honest_draws"] = honest_draws.expected_total_variation(len(shown), odds)
        record["total_variation_limit"] = honest_draws.total_variation_limit(len(shown), odds)
    return record


def table(result: Mapping[str, Any]) -> str:
    """The numbers as lines of text."""
    lines = [f"{result['num_samples']} samples behind {result['num_scenes']} contexts for each seed"]
    for name, records in result["attributes"].items():
        levels = records[ALL]["of_odds"]["levels"]
        columns = [f"{level:.0%}" for level in levels]
        lines += [
            "",
            name,
            _line("", *(f"truths {x}" for x in columns), "p", *(f"odds {x}" for x in columns), "p", "TV"),
        ]
        for seed, record in records.items():
            lines += _lines(seed if seed == ALL else f"seed {seed}", record)
    return "\n".join(lines)


def _lines(title: str, record: Mapping[str, Any]) -> list[str]:
    """The numbers, and those of honest draws below: the level, and the standard deviation from it."""
    blank = [] if "of_truths" in record else [""] * (len(record["of_odds"]["levels"]) + 1)
    groups, honest = [*blank], [*blank]
    for group in (record[name] for name in ("of_truths", "of_odds") if name in record):
        groups += [*(f"{x:.3f}" for x in group["coverage"]), "" if group["p"] is None else f"{group['p']:.3f}"]
        honest += [f"{x:.2f}+-{y:.3f}" for x, y in zip(group["levels"], group["spread"], strict=True)] + [""]
    if "total_variation" in record:
        groups.append(f"{record['total_variation']:.3f}")
        honest.append(f"{record['total_variation_of_honest_draws']:.3f}")
    return [_line(title, *groups), _line(f"  {HONEST}", *honest)]


def _line(title: str, *cells: str) -> str:
    return (f"{title:<14}" + "".join(f"{cell:>12}" for cell in cells)).rstrip()


def parse_seeds(text: str) -> list[int]:
    """Of `0,1,2`.

    Raises:
      UserError: they are no different whole numbers of at least 0.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={text}: different whole numbers from 0 are needed, as in --seeds=0,1,2")
    return seeds


@log.command
def main(argv: Sequence[str]) -> int:
    parser = Parser(add_help=False)
    parser.add_argument("--seeds", default="0,1,2")
    own, rest = parser.parse_known_args(argv)
    measure = partial(sweep, seeds=parse_seeds(own.seeds))
    result, folder = run_sweep(rest, __doc__, measure, name="calibration", ours=OURS, marker=OURS[0])
    logger.info(f"{table(result)}\nlook at {folder / OURS[0]}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
