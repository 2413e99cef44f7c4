"""Evaluations side by side: the diffusion model and pixelNeRF, say, in one table and one picture.

    python -m dfm_jax.studies.compare_evaluations --out=DIR NAME=WORKDIR NAME=WORKDIR ...

Every WORKDIR has been evaluated (`--mode=evaluate`) on the same views of images of one size. Writes `index.html`,
`comparison.png` and `comparison.json` to DIR; prints a table on standard error and the numbers as its last line.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax import platforms
from dfm_jax.errors import UserError
from dfm_jax.evaluation.evaluation_index import POSITIONS
from dfm_jax.evaluation.scene_store import StoredScenes
from dfm_jax.pages.evaluation_page import EXPLAINED, OF_SAMPLES_ONLY, formatted, page, shortened
from dfm_jax.runs import log
from dfm_jax.runs.output_folders import check_room, replacing
from dfm_jax.runs.result_files import reading
from dfm_jax.sampling.trained import outdated
from dfm_jax.studies.arguments import named_runs
from dfm_jax.visualization.pictures import grid, write_png

logger = logging.getLogger(__name__)

SCENES_SHOWN = 6
SAMPLES_SHOWN = 3

# Of numbers that networks measure: whose weights they are.
WEIGHTS = {
    **dict.fromkeys(("lpips", "pairwise_lpips"), "lpips"),
    **dict.fromkeys(("fid", "kid", "vgg_fid", "vgg_kid"), "features"),
}

ODDS = (
    ("total_variation", "Hidden side: total variation", ".3f", "between the sampled colours and the true odds"),
    ("mode_purity", "Hidden side: purity", ".1%", "samples whose hidden side is of one colour; a mean has none"),
    ("novel_view_agreement", "Hidden side: agreement", ".1%", "further views that show the colour of the sampled one"),
)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """What a run's evaluation left."""

    numbers: Mapping[str, Any]  # metrics.json
    views: Sequence[Mapping[str, Any]]  # examples of protocol.json
    counts: str  # what integers in them are
    scenes: StoredScenes


def load_run(workdir: Path) -> Evaluated:
    """Raises UserError if the run has not been evaluated to the end."""
    folder = workdir / "evaluation"
    cure = f"run --mode=evaluate with --workdir={workdir} first"
    with reading(folder / "metrics.json", cure):
        numbers = dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))
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
    if not (isinstance(numbers["deterministic"], bool) and int(numbers["settings"]["num_samples"]) >= 1):
        raise ValueError("it does not say how many samples there are of a scene")


def check_same_views(runs: Mapping[str, Evaluated]) -> None:
    """Raises UserError unless all runs were evaluated on the same views."""
    (first_name, first), *others = runs.items()
    for name, run in others:
        # Integers that count different things say nothing, nor do names in different data, so that all images are
        # compared.
        comparable = run.counts == first.counts and _made_from(run, "data") == _made_from(first, "data")
        same = run.views == first.views if comparable else _scene_names(run) == _scene_names(first)
        if not same or not _same_images(run, first, 1 if comparable else len(run.views)):
            raise UserError(
                f"{name} and {first_name} were not evaluated on the same views: evaluate both with the same data and "
                f"image_size, and one with --config.evaluate.index={first.scenes.folder / 'protocol.json'}"
            )


def _scene_names(run: Evaluated) -> list[str]:
    return [view["scene"] for view in run.views]


def _same_images(run: Evaluated, other: Evaluated, count: int) -> bool:
    """Whether the true views of the first scenes are the same, and their context views."""
    pairs = ((run.scenes.images(i), other.scenes.images(i)) for i in range(count))
    return all(np.array_equal(a[kind], b[kind]) for a, b in pairs for kind in ("truth", "context"))


def rows(runs: Mapping[str, Evaluated]) -> list[tuple[str, list[str], str]]:
    """What is called how, its value in each run, and what it means; of all that is known of at least one run."""
    found = []
    for name, title, style, text in (*ODDS, *EXPLAINED):
        if _weights_differ(runs, name):
            continue
        for key, kind in ((name, ""), (f"{name}_best", ", best sample")):
            values = [_value(run.numbers, name, key) for run in runs.values()]
            if any(value is not None for value in values):
                found.append((title + kind, [formatted(value, style) for value in values], text))
    return found


def _made_from(run: Evaluated, name: str) -> Any:
    """The fingerprint of what the numbers were made from; None of nothing, or where it is not known."""
    return run.numbers.get("made_from", {}).get(name)


def _weights_differ(runs: Mapping[str, Evaluated], name: str) -> bool:
    """Whether a number was measured by networks with different weights: then the runs' have nothing in common."""
    weights = {_made_from(run, WEIGHTS.get(name, "")) for run in runs.values() if run.numbers.get(name) is not None}
    return len(weights - {None}) > 1


def notes(workdirs: Mapping[str, Path], runs: Mapping[str, Evaluated]) -> list[str]:
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


def compare(workdirs: Mapping[str, Path], out: Path) -> tuple[dict[str, Any], list[tuple[str, list[str], str]]]:
    """Writes the page, the picture and the numbers to `out`; returns the numbers by run, and the rows of the table.

    Raises:
      UserError: a run has not been evaluated, or they were evaluated on different views.
    """
    runs = {name: load_run(workdir) for name, workdir in workdirs.items()}
    check_same_views(runs)
    check_room(out)
    sheet, table, told = picture(runs), rows(runs), notes(workdirs, runs)
    for line in told:
        logger.info(line)
    kept = [name for name, *_ in (*ODDS, *EXPLAINED)]
    kept += [f"{name}_best" for name in kept] + ["step", "num_scenes", "num_samples"]
    result = {name: {key: run.numbers[key] for key in kept if key in run.numbers} for name, run in runs.items()}
    with replacing(out, ("comparison.png", "comparison.json", "index.html"), "comparing") as folder:
        write_png(folder / "comparison.png", sheet)
        (folder / "comparison.json").write_text(json.dumps(result, indent=1) + "\n")
        body = _body(runs, table, sheet.shape[1], told)
        (folder / "index.html").write_text(page("Comparison", body), encoding="utf-8")
    return result, table


def _body(
    runs: Mapping[str, Evaluated], table: Sequence[tuple[str, list[str], str]], width: int, told: Sequence[str]
) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in runs)
    lines = "".join(
        f"<tr><td>{escape(title)}</td>{''.join(f'<td>{value}</td>' for value in values)}"
        f'<td class="text">{escape(text)}</td></tr>'
        for title, values, text in table
    )
    made = "; ".join(
        f"{escape(name)}: {run.numbers['num_samples']} samples after {run.numbers['step']} training steps"
        for name, run in runs.items()
    )
    return f"""<h1>{escape(" and ".join(runs))}</h1>
<p class="lead">On the same views of {len(next(iter(runs.values())).views)} scenes. {made}.</p>
<p>{escape(" ".join(told))}</p>
<p>A model that must give one answer mixes all that could be there: its PSNR against the truth is high, and no scene
looks like that. A sample commits itself, often to something else than the truth, which PSNR punishes. What tells the
two apart is whether the best of some samples meets the truth, FID and KID, and on toy scenes whether the hidden side
is of one colour (purity) in the right share of the samples (total variation).</p>
<div class="scroll"><table><thead><tr><th></th>{heads}<th class="text">What it is</th></tr></thead>
<tbody>{lines}</tbody></table></div>
<h2>Samples</h2>
<p>Two rows a scene: the target view, and a novel view of the same scenes.</p>
<img src="comparison.png" alt="Samples of each run" style="max-width:100%;width:{width}px">
"""


def as_text(table: Sequence[tuple[str, list[str], str]], names: Sequence[str]) -> str:
    """The table for a terminal."""
    wide = max(len(title) for title, _, _ in table) + 2
    lines = [" " * wide + "".join(f"{name:>16}" for name in names)]
    for title, values, _ in table:
        lines.append(f"{title:{wide}}" + "".join(f"{value.replace('&nbsp;', ' '):>16}" for value in values))
    return "\n".join(lines)


@log.command
def main(argv: list[str]) -> int:
    workdirs, out = named_runs(argv, __doc__)
    platforms.start()
    result, table = compare(workdirs, out)
    logger.info(as_text(table, list(workdirs)))
    logger.info(f"look at {out / 'index.html'}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
