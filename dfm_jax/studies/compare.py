"""Models side by side: what each sampled for the same contexts, in numbers and in one picture.

    python -m dfm_jax.studies.compare --out=DIR NAME=WORKDIR NAME=WORKDIR ...

Every WORKDIR has been sampled (`--mode=sample`) with the same data, seed and number of scenes. Writes a picture and a
JSON file to DIR, prints a table on standard error and the numbers, as one JSON object, as its last line. Where the
data set knows which pixels the context hides (toy), the hidden part and the rest are also measured alone.

Numbers are means over scenes: of a single sample (the mean over samples), and of the best of them by that number. PSNR
counts the pixels of a part; SSIM and LPIPS need whole images, so the other pixels are replaced by the truth's.
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
from dfm_jax.evaluation.image_metrics import psnr, ssim
from dfm_jax.models import lpips
from dfm_jax.runs import log
from dfm_jax.runs.output_folders import check_room, replacing
from dfm_jax.runs.result_files import reading
from dfm_jax.sampling.trained import outdated
from dfm_jax.studies.arguments import named_runs
from dfm_jax.visualization.pictures import grid, write_png

logger = logging.getLogger(__name__)

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # images [n, h, w, 3], truth, part -> [n]
HIGHER_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False}
SAMPLES_SHOWN = 4


@dataclasses.dataclass(frozen=True)
class SampledScene:
    """One scene of one run, at target view 0; images in [0, 1]."""

    name: str
    context: np.ndarray  # [h, w, 3] the context view
    truth: np.ndarray  # [h, w, 3]
    samples: np.ndarray  # [n, h, w, 3]
    hidden: np.ndarray | None  # [h, w] bool, what the context hides, if that is known


def load_run(workdir: Path) -> list[SampledScene]:
    """What a run sampled.

    Raises:
      UserError: it has not been sampled.
    """
    folder = workdir / "samples"
    if not (folder / "samples.json").is_file():
        raise UserError(f"{folder} holds no samples: run --mode=sample with --workdir={workdir} first")
    again = f"run --mode=sample with --workdir={workdir} again"
    with reading(folder / "samples.json", again):
        scenes = [(str(scene["name"]), folder / scene["arrays"]) for scene in _parse(folder)["scenes"]]
    found = []
    for name, path in scenes:
        with reading(path, again), np.load(path) as arrays:
            images = {key: _images(arrays[key], dims) for key, dims in (("context", 3), ("truth", 3), ("samples", 4))}
            found.append(SampledScene(name, **images, hidden=arrays.get("hidden")))
    return found


def notes(workdirs: Mapping[str, Path], runs: Mapping[str, list[SampledScene]]) -> list[str]:
    """What must be known of the samples to read the numbers, a line each."""
    lines = []
    for name, workdir in workdirs.items():
        if what := outdated(workdir, json.loads((workdir / "samples" / "samples.json").read_text())):
            lines.append(f"{name}: the samples are {what}: run --mode=sample again to compare that")
    counts = {name: len(scenes[0].samples) for name, scenes in runs.items()}
    if len(set(counts.values())) > 1:
        of_each = ", ".join(f"{name} of {count}" for name, count in counts.items())
        lines.append(f"the best of more samples is better: {of_each}")
    if more := [f"{name} of {count}" for name, count in counts.items() if count > SAMPLES_SHOWN]:
        lines.append(f"comparison.png shows the first {SAMPLES_SHOWN} samples ({', '.join(more)})")
    return lines


def _parse(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "samples.json").read_text(encoding="utf-8"))


def _images(array: np.ndarray, dims: int) -> np.ndarray:
    if array.ndim != dims or array.shape[-1] != 3 or not np.isfinite(array).all():
        raise ValueError(f"an array of shape {array.shape} holds no images, or numbers that are not finite")
    return array


def check_same_scenes(runs: Mapping[str, list[SampledScene]]) -> None:
    """Raises UserError unless all runs were sampled behind the same images."""
    (first_name, first), *others = runs.items()
    for name, scenes in others:
        same = len(scenes) == len(first) and all(
            a.name == b.name and a.truth.shape == b.truth.shape and np.array_equal(a.truth, b.truth)
            for a, b in zip(first, scenes, strict=True)
        )
        if not same:
            raise UserError(
                f"{name} and {first_name} were not sampled on the same views: sample both with the same data, seed, "
                "image_size and --config.sample.num_scenes"
            )


def metrics() -> dict[str, Metric]:
    """The measures by name.

    Raises:
      UserError: the weights of LPIPS are not there.
    """
    distance = lpips.load_default()
    fill = lambda images, truth, part: np.where(part[..., None], images, truth)
    return {
        "psnr": lambda images, truth, part: np.array([psnr(x[part][None], truth[part][None]) for x in images]),
        "ssim": lambda images, truth, part: np.array([float(ssim(fill(x, truth, part), truth)) for x in images]),
        "lpips": lambda images, truth, part: np.array([float(distance(fill(x, truth, part), truth)) for x in images]),
    }


def measure(scenes: list[SampledScene], measures: Mapping[str, Metric]) -> dict[str, dict[str, float]]:
    """{part: {metric: mean over scenes, metric_best: the same of the best sample}}; parts are 'all', and 'visible' and
    'hidden' where they are known."""
    rows: dict[str, dict[str, list[float]]] = {}
    for scene in scenes:
        parts = {"all": np.ones(scene.truth.shape[:2], bool)}
        if scene.hidden is not None:
            parts |= {"visible": ~scene.hidden, "hidden": scene.hidden}
        for part, mask in parts.items():
            for name, metric in measures.items():
                values = metric(scene.samples, scene.truth, mask)
                best = values.max() if HIGHER_IS_BETTER[name] else values.min()
                row = rows.setdefault(part, {})
                row.setdefault(name, []).append(float(values.mean()))
                row.setdefault(f"{name}_best", []).append(float(best))
    return {part: {name: float(np.mean(values)) for name, values in row.items()} for part, row in rows.items()}


def picture(runs: Mapping[str, list[SampledScene]]) -> np.ndarray:
    """A row a scene: the context view, the truth at the target view, and the first samples of each run; uint8."""
    shown = {name: min(SAMPLES_SHOWN, len(scenes[0].samples)) for name, scenes in runs.items()}
    columns = ["context", "truth"]
    for name, count in shown.items():
        columns += [name] + [f"{name} {j + 1}" for j in range(1, count)]
    rows = []
    for i, scene in enumerate(next(iter(runs.values()))):
        samples = [image for name, count in shown.items() for image in runs[name][i].samples[:count]]
        rows.append([scene.context, scene.truth, *samples])
    return grid(rows, columns, side=128)


def table(results: Mapping[str, dict[str, dict[str, float]]]) -> str:
    """For a person: a line for each part and run."""
    lines = [f"{'part':9}{'run':16}{'PSNR':>8}{'best':>8}{'SSIM':>8}{'best':>8}{'LPIPS':>8}{'best':>8}"]
    for part in next(iter(results.values())):
        for run, parts in results.items():
            numbers = [parts[part][f"{name}{kind}"] for name in HIGHER_IS_BETTER for kind in ("", "_best")]
            formats = ("8.2f", "8.2f", "8.3f", "8.3f", "8.3f", "8.3f")
            cells = "".join(format(number, style) for number, style in zip(numbers, formats, strict=True))
            lines.append(f"{part:9}{run:16}{cells}")
    return "\n".join(lines)


def compare(workdirs: Mapping[str, Path], out: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Measures the runs, {name: workdir}, and writes the picture and the numbers to `out`.

    Raises:
      UserError: a run has not been sampled, they were sampled on different views, or LPIPS has no weights.
    """
    runs = {name: load_run(workdir) for name, workdir in workdirs.items()}
    check_same_scenes(runs)
    for line in notes(workdirs, runs):
        logger.info(line)
    check_room(out)
    measures = metrics()
    results = {name: measure(scenes, measures) for name, scenes in runs.items()}
    with replacing(out, ("comparison.png", "comparison.json"), "comparing") as folder:
        write_png(folder / "comparison.png", picture(runs))
        (folder / "comparison.json").write_text(json.dumps(results, indent=1) + "\n")
    return results


@log.command
def main(argv: list[str]) -> int:
    workdirs, out = named_runs(argv, __doc__)
    platforms.start()
    results = compare(workdirs, out)
    logger.info(table(results))
    print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
