"""Evaluations (`--mode=evaluate`) of the same views, of images of one size, side by side: means over all scenes, and
whether their differences are more than the choice of the scenes.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.evaluation.evaluation_index import POSITIONS
from dfm_jax.evaluation.paired_bootstrap import LEVEL, Difference, compare_paired
from dfm_jax.evaluation.scene_store import StoredScenes
from dfm_jax.pages.evaluation_page import shortened
from dfm_jax.pages.explained_measures import EXPLAINED, OF_SAMPLES_ONLY
from dfm_jax.pages.html import formatted
from dfm_jax.runs.result_files import reading
from dfm_jax.sampling.trained import outdated
from dfm_jax.visualization.pictures import grid

MARK = "metrics.json"  # of a folder that an evaluation wrote
SCENES_SHOWN = 6
SAMPLES_SHOWN = 3

# Of numbers that networks measure: whose weights they are.
WEIGHTS = {
    **dict.fromkeys(("lpips", "pairwise_lpips"), "lpips"),
    **dict.fromkeys(("fid", "kid", "vgg_fid", "vgg_kid"), "features"),
    "fvd": "video",
    "dists": "dists",
}

OF_ALL_SCENES = ("fid", "kid", "fvd", "vgg_fid", "vgg_kid")  # which no single scene has

ODDS = (
    ("total_variation", "All that is hidden: total variation", ".3f", "between what samples show of it and its odds"),
    ("mode_purity", "All that is hidden: purity", ".1%", "samples that show one case and no mixture; a mean is none"),
    (
        "novel_view_agreement",
        "All that is hidden: agreement",
        ".1%",
        "further views that show the case of the sampled one",
    ),
)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a run's evaluation left."""

    numbers: Mapping[str, Any]  # metrics.json
    views: Sequence[Mapping[str, Any]]  # examples of protocol.json
    counts: str  # what integers in them are
    scenes: StoredScenes


def load_run(folder: Path) -> Evaluated:
    """What an evaluation wrote to a folder.

    Raises:
      UserError: it did not end, or is damaged.
    """
    cure = "run --mode=evaluate first, or again"
    with reading(folder / MARK, cure):
        numbers = dict(json.loads((folder / MARK).read_text(encoding="utf-8")))
        _check(numbers)
    with reading(folder / "protocol.json", cure):
        stored = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))
        views = [{**example, "scene": str(example["scene"])} for example in stored["examples"]]
        counts = stored.get("frames", POSITIONS)
    return Evaluated(numbers, views, counts, StoredScenes(folder))


def _check(numbers: Mapping[str, Any]) -> None:
    """Raises an error of some kind unless this is what an evaluation writes, as far as it is compared."""
    compared = [name for row in (*ODDS, *EXPLAINED) for name in (row[0], f"{row[0]}_best")]
    counts = [numbers[name] for name in ("step", "num_scenes", "num_samples")]
    for value in (*counts, *(numbers.get(name) or 0 for name in compared)):
        float(value)
    for found in (numbers.get("attributes") or {}).values():
        float(found["total_variation"])
    for found in (numbers.get("scalars") or {}).values():
        float(found.get("of_odds", found)["coverage"][1]), float(found["levels"][1]), float(found["p"] or 0)
    if not (isinstance(numbers["deterministic"], bool) and int(numbers["settings"]["num_samples"]) >= 1):
        raise ValueError("it does not say how many samples there are of a scene")


def check_same_views(runs: Mapping[str, Evaluated]) -> None:
    """Raises UserError unless all runs were evaluated on the same views, and measured alike."""
    (first_name, first), *others = runs.items()
    for name, run in others:
        if _masks(run) != _masks(first):
            raise UserError(
                f"{name} and {first_name} were not measured alike: evaluate both with the same --config.evaluate.masks"
            )
        # Integers that count different things say nothing, nor do names in different data, so that all images are
        # compared.
        comparable = run.counts == first.counts and _made_from(run, "data") == _made_from(first, "data")
        same = run.views == first.views if comparable else _scene_names(run) == _scene_names(first)
        if not same or not _same_images(run, first, 1 if comparable else len(run.views)):
            raise UserError(
                f"{name} and {first_name} were not evaluated on the same views: evaluate both with the same data and "
                f"image_size, and one with --config.evaluate.index={first.scenes.folder / 'protocol.json'}"
            )


def _masks(run: Evaluated) -> str:
    return run.numbers.get("settings", {}).get("masks", "none")


def _scene_names(run: Evaluated) -> list[str]:
    return [view["scene"] for view in run.views]


def _same_images(run: Evaluated, other: Evaluated, count: int) -> bool:
    """Whether the true views of the first scenes are the same, and their context views."""
    pairs = ((run.scenes.images(i), other.scenes.images(i)) for i in range(count))
    return all(np.array_equal(a[kind], b[kind]) for a, b in pairs for kind in ("truth", "context"))


def rows(runs: Mapping[str, Evaluated]) -> list[tuple[str, list[str], str]]:
    """What is called how, its value in each run, and what it means; of all that is known of at least one run."""
    found = _attribute_rows(runs) + _rank_rows(runs)
    for name, title, style, text in (*ODDS, *EXPLAINED):
        if _weights_differ(runs, name):
            continue
        for key, kind in ((name, ""), (f"{name}_best", ", best sample")):
            values = [_value(run.numbers, name, key) for run in runs.values()]
            if any(value is not None for value in values):
                found.append((title + kind, [formatted(value, style) for value in values], text))
    return found


def _attribute_rows(runs: Mapping[str, Evaluated]) -> list[tuple[str, list[str], str]]:
    """Of hidden attributes, where there are several: what all of them do together is among `ODDS`."""
    attributes = [run.numbers.get("attributes") or {} for run in runs.values()]
    names = dict.fromkeys(name for each in attributes for name in each)
    values = {name: [each.get(name, {}).get("total_variation") for each in attributes] for name in names}
    title, text = "{}: total variation", "between what samples show of it and its true odds"
    told = [(title.format(name.capitalize()), [formatted(x, ".3f") for x in row], text) for name, row in values.items()]
    return told if len(names) > 1 else []


def _rank_rows(runs: Mapping[str, Evaluated]) -> list[tuple[str, list[str], str]]:
    """Of numbers of whole scenes, whether their truths rank among the samples as one of them."""
    scalars = [run.numbers.get("scalars") or {} for run in runs.values()]
    found = []
    for name in dict.fromkeys(name for each in scalars for name in each):
        ranks = [each[name].get("of_odds", each[name]) if name in each else None for each in scalars]
        covered = ["" if x is None else f"{x['coverage'][1]:.1%}" for x in ranks]
        level = next(x["levels"][1] for x in ranks if x)
        found.append(
            (f"{name.capitalize()}: coverage of {level:.0%}", covered, "truths in this interval of the samples")
        )
        chances = ["" if x is None else formatted(x["p"], ".3g") for x in ranks]
        found.append((f"{name.capitalize()}: p of ranks", chances, "below 0.001 no chance makes ranks as uneven"))
    return found


def _made_from(run: Evaluated, name: str) -> Any:
    """The fingerprint of what the numbers were made from; None of nothing, or where it is not known."""
    return run.numbers.get("made_from", {}).get(name)


def _weights_differ(runs: Mapping[str, Evaluated], name: str) -> bool:
    """Whether a number was measured by networks with different weights: then the runs' have nothing in common."""
    weights = {_made_from(run, WEIGHTS.get(name, "")) for run in runs.values() if run.numbers.get(name) is not None}
    return len(weights - {None}) > 1


def notes(workdirs: Mapping[str, str], runs: Mapping[str, Evaluated]) -> list[str]:
    """What must be known of the evaluations to read the numbers, a sentence each."""
    lines = []
    for name, workdir in workdirs.items():
        if what := outdated(workdir, runs[name].numbers):
            lines.append(f"{name}: the evaluation is {what}; run --mode=evaluate again to compare that.")
    counts = {name: run.numbers["settings"]["num_samples"] for name, run in runs.items()}
    several = [f"{name} of {count}" for name, count in counts.items() if count > 1]
    if len({count for count in counts.values() if count > 1}) > 1:
        lines.append(f"The best of more samples is better: {', '.join(several)}.")
    if mixed := [title for name, title, _, _ in EXPLAINED if _weights_differ(runs, name)]:
        lines.append(f"Measured with different weights, and left out: {', '.join(mixed)}.")
    scenes = len(next(iter(runs.values())).views)
    if scenes > SCENES_SHOWN:
        lines.append(f"Pictures are of the first {SCENES_SHOWN} of {scenes} scenes.")
    if more := [f"{name} {count}" for name, count in counts.items() if count > SAMPLES_SHOWN]:
        lines.append(f"Pictures are of the first {SAMPLES_SHOWN} samples (there are: {', '.join(more)}).")
    return lines


def differences(runs: Mapping[str, Evaluated]) -> dict[str, dict[str, Difference]]:
    """Of each run but the first, by its name: what it differs from the first by, by measure, where each scene has it.

    Raises:
      UserError: scenes of a run are of another version of dfm_jax, or damaged.
    """
    measures = [key for name, *_ in EXPLAINED if name not in OF_ALL_SCENES for key in (name, f"{name}_best")]
    tables = {name: _table(run, measures) for name, run in runs.items()}
    (first_name, first), *others = runs.items()
    scenes = [view["scene"] for view in first.views]
    found = {}
    for name, run in others:
        compared = zip(measures, compare_paired(tables[first_name], tables[name], scenes), strict=True)
        found[name] = {
            measure: difference
            for measure, difference in compared
            if difference is not None and not _weights_differ({first_name: first, name: run}, _of_mean(measure))
        }
    return found


def _of_mean(measure: str) -> str:
    return measure.removesuffix("_best")


def _table(run: Evaluated, measures: Sequence[str]) -> np.ndarray:
    """[e, m] what each example scores, NaN where that is not known or means nothing."""
    rows = np.full((len(run.views), len(measures)), np.nan)
    for i in range(len(run.views)):
        numbers = {**run.numbers, **dict.fromkeys(measures), **run.scenes.row(i)}
        values = [_value(numbers, _of_mean(measure), measure) for measure in measures]
        rows[i] = [np.nan if value is None else value for value in values]
    return rows


def _value(numbers: Mapping[str, Any], name: str, key: str) -> float | None:
    """None where it means nothing: of a single sample, or of a model without samples."""
    if (numbers["deterministic"] and name in OF_SAMPLES_ONLY) or (
        key != name and numbers["settings"]["num_samples"] < 2
    ):
        return None
    return numbers.get(key)


def picture(runs: Mapping[str, Evaluated]) -> np.ndarray:
    """Two rows a scene, target view and novel view: the context view, the truth, and the first samples of each run;
    uint8."""
    shown = {name: min(SAMPLES_SHOWN, run.numbers["settings"]["num_samples"]) for name, run in runs.items()}
    columns = ["context", "truth"]
    for name, count in shown.items():
        columns += [shortened(name)] + [f"{j + 1}" for j in range(1, count)]
    first = next(iter(runs.values()))
    cells, labels = [], []
    for index in range(min(SCENES_SHOWN, len(first.views))):
        images = {name: run.scenes.images(index) for name, run in runs.items()}
        known = images[next(iter(runs))]
        for view in range(2):
            if there := view < len(known["truth"]):
                samples = [image[view] for name, count in shown.items() for image in images[name]["samples"][:count]]
                cells.append([known["context"][0] if view == 0 else None, known["truth"][view], *samples])
            else:
                cells.append([None] * len(columns))
            labels.append(shortened(first.views[index]["scene"]) if view == 0 else "novel view" if there else "")
    return grid(cells, columns, labels, side=96, rows_together=2)


def kept_numbers(run: Evaluated) -> dict[str, Any]:
    """For JSON: what is compared of an evaluation's numbers."""
    kept = [name for name, *_ in (*ODDS, *EXPLAINED)]
    kept += [f"{name}_best" for name in kept] + ["step", "num_scenes", "num_samples"]
    return {key: run.numbers[key] for key in (*kept, "attributes", "scalars") if key in run.numbers}


def as_text(table: Sequence[tuple[str, list[str], str]], names: Sequence[str]) -> str:
    """The table for a terminal."""
    wide = max(len(title) for title, _, _ in table) + 2
    lines = [" " * wide + "".join(f"{name:>16}" for name in names)]
    for title, values, _ in table:
        lines.append(f"{title:{wide}}" + "".join(f"{value.replace('&nbsp;', ' '):>16}" for value in values))
    return "\n".join(lines)


def differences_as_text(found: Mapping[str, Mapping[str, Difference]]) -> str:
    """A line for each measure of each run."""
    lines = []
    for name, of_run in found.items():
        lines.append(f"\n\n{name}, difference to the first run, with the {LEVEL:.0%} interval of a paired bootstrap")
        for measure, each in of_run.items():
            interval = "too few scenes" if each.low is None else f"{each.low:+.4f} to {each.high:+.4f}  p {each.p:.4f}"
            lines.append(f"\n{measure:34}{each.mean:+12.4f}  {interval}{'  *' if each.is_real else ''}")
    return "".join(lines)
