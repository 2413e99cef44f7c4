"""What an evaluation found: the numbers of each scene on disk, and those of all of them.

<workdir>/evaluation/settings.json           what the numbers below were made from, with fingerprints
<workdir>/evaluation/scenes/00007.json       a scene that is done: `SceneScores`
<workdir>/evaluation/scenes/00007.npz        its images, 8 bits, for distances of distributions and the page
<workdir>/evaluation/scenes/00007.csv        a row a sample and view
<workdir>/evaluation/scenes.csv              a row a scene
<workdir>/evaluation/metrics.json            everything, with what was skipped and left out, and why
"""

import csv
import dataclasses
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.loading import toy_scenes
from dfm_jax.evaluation.calibration.toy_modes import UNSEEN
from dfm_jax.evaluation.image_metrics import total_variation
from dfm_jax.evaluation.scores import SceneScores
from dfm_jax.runs import earlier_results
from dfm_jax.runs.result_files import reading

logger = logging.getLogger(__name__)

# Measures of a sample at a view, and whether more is better.
VIEW_MEASURES = {"psnr": True, "ssim": True, "lpips": False, "depth_error": False}
SAMPLE_MEASURES = ("context_psnr", "scene_psnr", "reprojection", "reprojection_colour", "contradicted")
SCENE_MEASURES = ("estimate_psnr", "variance", "pairwise_lpips")


RESULTS = ("scenes/*.json", "sweep/*.json", "metrics.json")  # of which one is enough not to be lost
AGAIN = "remove it and run --mode=evaluate again, which measures its scene anew"


class StoredScenes:
    """The scenes of an evaluation that are done, to read."""

    def __init__(self, folder: Path):
        self.folder = folder

    def done(self) -> set[int]:
        """Numbers of the scenes of which every file is there: emptying the folder may have been interrupted, too."""
        stems = [{path.stem for path in (self.folder / "scenes").glob(f"*.{end}")} for end in ("json", "npz", "csv")]
        return {int(stem) for stem in set.intersection(*stems)}

    def scores(self, index: int) -> SceneScores:
        path = self.folder / "scenes" / f"{index:05d}.json"
        with reading(path, AGAIN):
            return SceneScores(**json.loads(path.read_text(encoding="utf-8")))

    def images(self, index: int) -> dict[str, np.ndarray]:
        """uint8 [..., h, w, 3] by name: `context` [v], `samples` [n, t], `truth` [t] and `estimate`."""
        path = self.folder / "scenes" / f"{index:05d}.npz"
        with reading(path, AGAIN), np.load(path) as arrays:
            return dict(arrays)


class SceneStore(StoredScenes):
    """The scenes of the evaluation that is running; they stay when it is interrupted."""

    def __init__(self, folder: Path, made_from: Mapping[str, Any]):
        """Opens the folder; what it holds that was made from something else stays there until `complete` is called, as
        is said. Then it is set aside."""
        place, message = earlier_results.place_for(folder, made_from, RESULTS)
        super().__init__(place)
        self._final = folder
        earlier_results.open_for(place, made_from, RESULTS)
        if message:
            logger.info(message)
        (place / "scenes").mkdir(exist_ok=True)

    def complete(self) -> None:
        """All files are there: they take their place."""
        if self.folder != self._final:
            if message := earlier_results.put_in_place(self._final):
                logger.info(message)
            self.folder = self._final

    def write(self, index: int, scores: SceneScores, images: Mapping[str, np.ndarray]) -> None:
        """Stores a scene; it counts as done when the last of its files is complete.

        Args:
          images: [..., h, w, 3] in [0, 1], by name.
        """
        stem = self.folder / "scenes" / f"{index:05d}"
        quantised = {name: np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for name, x in images.items()}
        np.savez_compressed(stem.with_suffix(".npz"), **quantised)
        _write_csv(stem.with_suffix(".csv"), _view_rows(scores))
        unfinished = stem.with_suffix(".incomplete")
        unfinished.write_text(json.dumps(dataclasses.asdict(scores)) + "\n")
        unfinished.replace(stem.with_suffix(".json"))


def summarise(scenes: Sequence[SceneScores]) -> dict[str, float | int | None]:
    """Means over all scenes, each counting once: of the mean over its samples, `psnr`, and of its best sample by that
    measure, `psnr_best`; None where nothing could be measured.

    On toy also `total_variation` between the hidden colours drawn and their odds, `mode_purity`, the share of samples
    of one colour, and `novel_view_agreement`, the share of novel views that show the same colour as target view 0; of
    the `num_colours_read` samples whose target view 0 shows the hidden side.
    """
    rows = [scene_row(scene) for scene in scenes]
    numbers: dict[str, float | int | None] = {
        name: _mean(row[name] for row in rows) for name in rows[0] if name != "scene"
    }
    numbers |= {"num_scenes": len(scenes), "num_samples": sum(len(scene.psnr) for scene in scenes)}
    if scenes[0].modes is not None:
        numbers |= _calibration(scenes)
    return numbers


def scene_row(scene: SceneScores) -> dict[str, Any]:
    """The numbers of one scene by name."""
    row: dict[str, Any] = {"scene": scene.name}
    for name, more_is_better in VIEW_MEASURES.items():
        values = getattr(scene, name)
        samples = [] if values is None else [x for x in map(_mean, values) if x is not None]
        row[name] = _mean(samples)
        row[f"{name}_best"] = (max if more_is_better else min)(samples, default=None)
    row |= {name: _mean(getattr(scene, name)) for name in SAMPLE_MEASURES}
    return row | {name: getattr(scene, name) for name in SCENE_MEASURES}


def write_scene_table(path: Path, scenes: Sequence[SceneScores]) -> None:
    _write_csv(path, [scene_row(scene) for scene in scenes])


def _view_rows(scene: SceneScores) -> list[dict[str, Any]]:
    rows = []
    for j, values in enumerate(scene.psnr):
        for view in range(len(values)):
            row = {"sample": j, "target": view}
            row |= {name: getattr(scene, name) and getattr(scene, name)[j][view] for name in VIEW_MEASURES}
            row |= {name: getattr(scene, name)[j] for name in SAMPLE_MEASURES}
            if scene.modes is not None:
                row["hidden_colour"] = scene.modes[j][view]
            rows.append(row)
    return rows


def _calibration(scenes: Sequence[SceneScores]) -> dict[str, float | int | None]:
    """Of the samples whose target view 0 shows the hidden side; without numbers if there is none."""
    read = [
        (sample, clean)
        for scene in scenes
        for sample, clean in zip(scene.modes, scene.clean, strict=True)
        if sample[0] != UNSEEN
    ]
    if not read:
        return {"num_colours_read": 0, "total_variation": None, "mode_purity": None, "novel_view_agreement": None}
    counts = np.bincount([sample[0] for sample, _ in read], minlength=len(toy_scenes.HIDDEN_COLOURS))
    agrees = [novel == sample[0] for sample, _ in read for novel in sample[1:] if novel != UNSEEN]
    return {
        "num_colours_read": len(read),
        "total_variation": total_variation(counts, toy_scenes.HIDDEN_PROBABILITIES),
        "total_variation_of_honest_draws": honest_total_variation(len(read)),
        "mode_purity": _mean([clean for _, clean in read]),
        "novel_view_agreement": _mean(agrees),
        "num_novel_views": len(agrees),
    } | {f"share_{i}": float(share) for i, share in enumerate(counts / counts.sum())}


def honest_total_variation(count: int) -> float:
    """What `count` draws from the true odds differ from them by on average, each count approximately normal."""
    return 0.5 * sum(math.sqrt(2 * p * (1 - p) / (math.pi * count)) for p in toy_scenes.HIDDEN_PROBABILITIES)


def honest_limit(count: int, share: float = 0.95) -> float:
    """The total variation to the true odds that this share of experiments of `count` honest draws stays below."""
    draws = np.random.default_rng(0).multinomial(count, toy_scenes.HIDDEN_PROBABILITIES, size=20_000) / count
    return float(np.quantile(0.5 * np.abs(draws - toy_scenes.HIDDEN_PROBABILITIES).sum(1), share))


def _mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are known."""
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
