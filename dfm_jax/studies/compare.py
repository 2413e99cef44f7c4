"""Runs side by side: how they were evaluated, whether they differ by more than chance, and what they sampled.

    python -m dfm_jax.studies.compare --out=DIR NAME=WORKDIR NAME=WORKDIR ...

Each WORKDIR was evaluated (`--mode=evaluate`) on the same views, or sampled (`--mode=sample`) with the same data, seed
and number of scenes, or both; in its place may stand the folder that such a command wrote (`--out=`). What all of them
have is compared. Runs are compared with the first by a paired bootstrap over scenes.

Writes `index.html`, pictures and `comparison.json` to DIR; prints tables on standard error and the numbers, as one JSON
object, as its last line: `evaluations` and `samples` by run, `differences` of each run from the first, and what is
`left_out`, with reasons.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax import platforms
from dfm_jax.errors import UserError
from dfm_jax.pages import comparison_page
from dfm_jax.pages.evaluation_page import page
from dfm_jax.paths import expand_home
from dfm_jax.runs import log
from dfm_jax.runs.output_folders import check_room, replacing
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.studies import compared_evaluations, compared_samples
from dfm_jax.studies.arguments import named_runs
from dfm_jax.visualization.pictures import write_png

logger = logging.getLogger(__name__)

FILES = ("comparison.png", "evaluations.png", "samples.png", "comparison.json", "index.html")


@dataclasses.dataclass(frozen=True)
class Part:
    """What is compared of the runs' evaluations, or of their samples."""

    result: dict[str, Any]  # for JSON
    html: str
    text: str  # for a terminal
    made: list[str]  # what there is of each run, a sentence each
    notes: list[str]
    file: str  # of the picture
    picture: np.ndarray


def of_evaluations(workdirs: Mapping[str, str], folders: Mapping[str, Path]) -> Part:
    runs = {name: compared_evaluations.load_run(folder) for name, folder in folders.items()}
    compared_evaluations.check_same_views(runs)
    rows, notes = compared_evaluations.rows(runs), compared_evaluations.notes(workdirs, runs)
    first, *others = runs
    found = {}
    if others:
        try:
            found = compared_evaluations.differences(runs)
        except UserError as reason:
            notes.append(f"Whether the differences are real is not known: {reason}.")
    count = len(runs[first].views)
    sheet, drawn = compared_evaluations.picture(runs), "Two rows a scene: the target view, and a novel view of it."
    html = comparison_page.evaluations(list(runs), rows, count)
    html += comparison_page.differences(first, found) if found else ""
    html += comparison_page.picture("evaluations.png", sheet.shape[1], drawn)
    result = {"evaluations": {name: compared_evaluations.kept_numbers(run) for name, run in runs.items()}}
    as_json = lambda of_run: {measure: dataclasses.asdict(each) for measure, each in of_run.items()}
    result["differences"] = {name: as_json(of_run) for name, of_run in found.items()}
    made = [
        f"{name}: {run.numbers['num_samples']} evaluated samples after {run.numbers['step']} training steps."
        for name, run in runs.items()
    ]
    text = compared_evaluations.as_text(rows, list(runs)) + compared_evaluations.differences_as_text(found)
    return Part(result, html, text, made, notes, "evaluations.png", sheet)


def of_samples(workdirs: Mapping[str, str], folders: Mapping[str, Path]) -> Part:
    runs = {name: compared_samples.load_run(folder) for name, folder in folders.items()}
    compared_samples.check_same_scenes(runs)
    scenes = next(iter(runs.values()))
    measures, left_out = compared_samples.metrics(min(scenes[0].truth.shape[:2]))
    numbers = {name: compared_samples.measure(of_run, measures) for name, of_run in runs.items()}
    sheet, drawn = (
        compared_samples.picture(runs),
        "A row a scene: the context view, the truth at the target view, samples.",
    )
    html = comparison_page.samples(numbers, len(scenes))
    html += comparison_page.picture("samples.png", sheet.shape[1], drawn)
    made = [f"{name}: {sum(len(scene.samples) for scene in of_run)} samples." for name, of_run in runs.items()]
    notes = compared_samples.notes(workdirs, folders, runs) + left_out
    return Part({"samples": numbers}, html, compared_samples.table(numbers), made, notes, "samples.png", sheet)


# What is compared: the folder of a workdir, the file that tells that there is something in it, how that is made, and by
# what.
KINDS: dict[str, tuple[str, str, Callable[[Mapping[str, str], Mapping[str, Path]], Part]]] = {
    "evaluate": ("evaluation", compared_evaluations.MARK, of_evaluations),
    "sample": ("samples", compared_samples.MARK, of_samples),
}


def compare(workdirs: Mapping[str, str], out: Path) -> tuple[dict[str, Any], str]:
    """Compares runs, {name: workdir}, and writes the page, pictures and numbers to `out`.

    Returns:
      the numbers, and tables of them for a terminal.

    Raises:
      UserError: there is nothing that all of them have, or it is not of the same views.
    """
    parts, left_out = [], {}
    for mode, (name, mark, build) in KINDS.items():
        folders = {run: _folder(workdir, name, mark) for run, workdir in workdirs.items()}
        if missing := [run for run, folder in folders.items() if folder is None]:
            if len(missing) < len(workdirs):
                run = missing[0]
                left_out[name] = f"{run} has none: run --mode={mode} with --workdir={workdirs[run]} first"
            continue
        try:
            parts.append(build(workdirs, folders))
        except UserError as reason:
            left_out[name] = str(reason)
    if not parts:
        run, workdir = next(iter(workdirs.items()))
        nothing = f"{run} was neither evaluated nor sampled: run --mode=evaluate with --workdir={workdir} first"
        raise UserError("; ".join(left_out.values()) or nothing)
    return _write(list(workdirs), parts, left_out, out)


def _folder(workdir: str, name: str, mark: str) -> Path | None:
    """Where a command wrote its results: the folder of that name in the workdir, or that very folder; None: nowhere."""
    folders = results_folder(workdir, name), Path(expand_home(workdir))
    return next((folder for folder in folders if (folder / mark).is_file()), None)


def _write(names: list[str], parts: list[Part], left_out: dict[str, str], out: Path) -> tuple[dict[str, Any], str]:
    check_room(out)
    notes = [note for part in parts for note in part.notes]
    notes += [f"Left out: {name}: {reason}." for name, reason in left_out.items()]
    for note in notes:
        logger.info(note)
    result = {key: value for part in parts for key, value in part.result.items()} | {"left_out": left_out}
    made = [sentence for part in parts for sentence in part.made]
    body = comparison_page.opening(names, made, notes) + "".join(part.html for part in parts)
    with replacing(out, FILES, "comparing") as folder:
        for part in parts:
            write_png(folder / part.file, part.picture)
        (folder / "comparison.json").write_text(json.dumps(result, indent=1) + "\n")
        (folder / "index.html").write_text(page("Comparison", body), encoding="utf-8")
    return result, "\n\n".join(part.text for part in parts)


@log.command
def main(argv: list[str]) -> int:
    workdirs, out = named_runs(argv, __doc__)
    platforms.start()
    result, text = compare(workdirs, out)
    logger.info(text)
    logger.info(f"look at {out / 'index.html'}")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
