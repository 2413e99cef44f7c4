"""What the scores of scenes say together: a scene's numbers by name, and the means over all scenes."""

import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dfm_jax.evaluation.best_of import BEST_OF, expected_best
from dfm_jax.evaluation.calibration import honest_draws
from dfm_jax.evaluation.calibration.known_odds import KnownOdds
from dfm_jax.evaluation.calibration.reading import UNSEEN
from dfm_jax.evaluation.image_metrics import total_variation
from dfm_jax.evaluation.scores import SceneScores
from dfm_jax.evaluation.uncertainty import LEVELS

# Measures of a sample at a view, and whether more is better.
VIEW_MEASURES = {"psnr": True, "ssim": True, "lpips": False, "dists": False, "depth_error": False}
SAMPLE_MEASURES = (
    "context_psnr",
    "scene_psnr",
    "reprojection",
    "reprojection_colour",
    "contradicted",
    "chamfer",
    "tsed",
    "rotation_error",
    "translation_error",
    "registered_views",
)
SCENE_MEASURES = ("estimate_psnr", "variance", "pairwise_lpips", "ause", "aurc")


def summarise(scenes: Sequence[SceneScores], odds: Sequence[float] = ()) -> dict[str, float | int | None]:
    """Means over all scenes, each counting once: of the mean over its samples, `psnr`, and of its best sample by that
    measure, `psnr_best`; None where nothing could be measured.

    Where what is hidden has known `odds` (toy: of three colours), also `total_variation` between what samples show and
    these, `mode_purity`, the share of samples that show one case, and `novel_view_agreement`, the share of novel views
    that show the same as target view 0; of the `num_colours_read` samples whose target view 0 shows the hidden side.
    """
    rows = [scene_row(scene) for scene in scenes]
    numbers: dict[str, float | int | None] = {
        name: _mean(row[name] for row in rows) for name in rows[0] if name != "scene"
    }
    numbers |= {"num_scenes": len(scenes), "num_samples": sum(len(scene.psnr) for scene in scenes)}
    numbers |= camera_counts(scenes)
    if len(odds) and scenes[0].modes is not None:
        numbers |= _calibration(scenes, odds)
    return numbers


def calibration_of_scalars(
    scenes: Sequence[SceneScores], likely: Mapping[str, np.ndarray] = types.MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """Of numbers of whole scenes, which are independent of each other as pixels are not, by name: how the truths rank
    among the samples (`honest_draws.ranks`); and `of_odds`, how all that the odds allow do, where these are `likely`,
    values by name."""
    found = {}
    for name in dict.fromkeys(name for scene in scenes for name in scene.places or ()):
        found[name] = honest_draws.ranks(np.array([s.places[name] for s in scenes if name in (s.places or ())]))
        if name in likely:
            samples = [scene.scalars[name] for scene in scenes if name in (scene.scalars or ())]
            found[name]["of_odds"] = honest_draws.of_odds(np.array(samples, np.float64), likely[name])
    return found


def camera_counts(scenes: Sequence[SceneScores]) -> dict[str, int]:
    """Of how many samples the cameras were looked for, and of how many enough were found to be compared; none if that
    was not asked for."""
    asked = [x for scene in scenes for x in scene.registered_views or () if x is not None]
    found = [x for scene in scenes for x in scene.rotation_error or () if x is not None]
    return {"num_camera_samples": len(asked), "num_camera_samples_registered": len(found)} if asked else {}


def odds_of_attributes(scenes: Sequence[SceneScores], known: KnownOdds) -> dict[str, dict[str, Any]]:
    """How often samples show each value of a hidden attribute, by its name: `values` and their `odds`, `shares` of the
    `num_samples` that tell, `total_variation` between the two, its mean `of_honest_draws` and the `limit` that 95 % of
    such draws stay below. None at all if no sample tells."""
    shown = [sample[0] for scene in scenes for sample in scene.modes or () if sample[0] != UNSEEN]
    if not shown:
        return {}
    found = {}
    for axis, (name, values) in enumerate(known.factors.items()):
        odds = known.odds.sum(tuple(other for other in range(known.odds.ndim) if other != axis)).tolist()
        counts = np.bincount(np.unravel_index(shown, known.odds.shape)[axis], minlength=len(odds))
        found[name] = {
            "values": list(values),
            "odds": odds,
            "shares": (counts / len(shown)).tolist(),
            "num_samples": len(shown),
            "total_variation": total_variation(counts, odds),
            "of_honest_draws": honest_draws.expected_total_variation(len(shown), odds),
            "limit": honest_draws.total_variation_limit(len(shown), odds),
        }
    return found


def scene_row(scene: SceneScores) -> dict[str, Any]:
    """The numbers of one scene by name."""
    row: dict[str, Any] = {"scene": scene.name}
    for name, more_is_better in VIEW_MEASURES.items():
        values = getattr(scene, name)
        samples = [] if values is None else [x for x in map(_mean, values) if x is not None]
        row[name] = _mean(samples)
        row[f"{name}_best"] = (max if more_is_better else min)(samples, default=None)
        for count in (count for count in BEST_OF if count <= len(scene.psnr)):
            enough = len(samples) >= count
            best = expected_best(samples, count, more_is_better=more_is_better) if enough else None
            row[f"{name}_best_of_{count}"] = best
    row |= {name: _mean(getattr(scene, name) or []) for name in (*SAMPLE_MEASURES, "mean_sample_psnr")}
    for i, level in enumerate(LEVELS):
        row[f"coverage_{100 * level:.0f}"] = scene.coverage[i] if scene.coverage else None
    return row | {name: getattr(scene, name) for name in SCENE_MEASURES}


def view_rows(scene: SceneScores) -> list[dict[str, Any]]:
    """The numbers of one scene, a row a sample and view."""
    rows = []
    for j, values in enumerate(scene.psnr):
        for view in range(len(values)):
            row = {"sample": j, "target": view}
            row |= {name: getattr(scene, name) and getattr(scene, name)[j][view] for name in VIEW_MEASURES}
            row |= {name: getattr(scene, name) and getattr(scene, name)[j] for name in SAMPLE_MEASURES}
            if scene.modes is not None:
                row["hidden_colour"] = scene.modes[j][view]
            rows.append(row)
    return rows


def _calibration(scenes: Sequence[SceneScores], odds: Sequence[float]) -> dict[str, float | int | None]:
    """Of the samples whose target view 0 shows the hidden side; without numbers if there is none."""
    read = [
        (sample, clean)
        for scene in scenes
        for sample, clean in zip(scene.modes, scene.clean, strict=True)
        if sample[0] != UNSEEN
    ]
    if not read:
        return {"num_colours_read": 0, "total_variation": None, "mode_purity": None, "novel_view_agreement": None}
    counts = np.bincount([sample[0] for sample, _ in read], minlength=len(odds))
    agrees = [novel == sample[0] for sample, _ in read for novel in sample[1:] if novel != UNSEEN]
    return {
        "num_colours_read": len(read),
        "total_variation": total_variation(counts, odds),
        "total_variation_of_honest_draws": honest_draws.expected_total_variation(len(read), odds),
        "mode_purity": _mean([clean for _, clean in read]),
        "novel_view_agreement": _mean(agrees),
        "num_novel_views": len(agrees),
    } | {f"share_{i}": float(share) for i, share in enumerate(counts / counts.sum())}


def _mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are known."""
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None
