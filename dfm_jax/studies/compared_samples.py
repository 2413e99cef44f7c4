"""What models sampled (`--mode=sample`) for the same contexts, with the same data, seed and number of scenes, side by
side. Where the data set knows which pixels the context hides (toy), the hidden part and the rest are measured alone as
well.

Numbers are means over scenes: of a single sample (the mean over samples), and of the best of them by that number. PSNR
counts the pixels of a part; SSIM and LPIPS need whole images, so the other pixels are replaced by the truth's.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.evaluation.image_metrics import SSIM_WINDOW, psnr, ssim
from dfm_jax.models import lpips
from dfm_jax.runs.result_files import reading
from dfm_jax.sampling.trained import outdated
from dfm_jax.visualization.pictures import grid

MARK = "samples.json"  # of a folder that `--mode=sample` wrote
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


def load_run(folder: Path) -> list[SampledScene]:
    """What `--mode=sample` wrote to a folder.

    Raises:
      UserError: it is damaged.
    """
    again = "run --mode=sample again"
    with reading(folder / MARK, again):
        scenes = [(str(scene["name"]), folder / scene["arrays"]) for scene in _parse(folder)["scenes"]]
    found = []
    for name, path in scenes:
        with reading(path, again), np.load(path) as arrays:
            images = {key: _images(arrays[key], dims) for key, dims in (("context", 3), ("truth", 3), ("samples", 4))}
            found.append(SampledScene(name, **images, hidden=arrays.get("hidden")))
    return found


def notes(
    workdirs: Mapping[str, str], folders: Mapping[str, Path], runs: Mapping[str, list[SampledScene]]
) -> list[str]:
    """What must be known of the samples to read the numbers, a sentence each."""
    lines = []
    for name, workdir in workdirs.items():
        if what := outdated(workdir, _parse(folders[name])):
            lines.append(f"{name}: the samples are {what}; run --mode=sample again to compare that.")
    counts = {name: len(scenes[0].samples) for name, scenes in runs.items()}
    if len(set(counts.values())) > 1:
        of_each = ", ".join(f"{name} of {count}" for name, count in counts.items())
        lines.append(f"The best of more samples is better: {of_each}.")
    if more := [f"{name} {count}" for name, count in counts.items() if count > SAMPLES_SHOWN]:
        lines.append(f"Pictures are of the first {SAMPLES_SHOWN} samples (there are: {', '.join(more)}).")
    return lines


def _parse(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MARK).read_text(encoding="utf-8"))


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


def metrics(size: int) -> tuple[dict[str, Metric], list[str]]:
    """The measures of images of so many pixels a side, by name; and why others are left out, a sentence each."""
    fill = lambda images, truth, part: np.where(part[..., None], images, truth)
    found: dict[str, Metric] = {
        "psnr": lambda images, truth, part: np.array([psnr(x[part][None], truth[part][None]) for x in images])
    }
    left_out = []
    if size >= SSIM_WINDOW:
        of_one = lambda x, truth, part: float(ssim(fill(x, truth, part), truth))
        found["ssim"] = lambda images, truth, part: np.array([of_one(x, truth, part) for x in images])
    else:
        left_out.append(f"SSIM is left out: it needs {SSIM_WINDOW} pixels a side, and these are {size}.")
    try:
        distance = lpips.load_default()
    except UserError as reason:
        left_out.append(f"LPIPS is left out: {reason}.")
    else:
        of_pair = lambda x, truth, part: float(distance(fill(x, truth, part), truth))
        found["lpips"] = lambda images, truth, part: np.array([of_pair(x, truth, part) for x in images])
    return found, left_out


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
    shown = [name for name in HIGHER_IS_BETTER if name in next(iter(results.values()))["all"]]
    lines = [f"{'part':9}{'run':16}" + "".join(f"{name.upper():>8}{'best':>8}" for name in shown)]
    for part in next(iter(results.values())):
        for run, parts in results.items():
            numbers = [parts[part][f"{name}{kind}"] for name in shown for kind in ("", "_best")]
            lines.append(f"{part:9}{run:16}" + "".join(f"{number:8.3f}" for number in numbers))
    return "\n".join(lines)
