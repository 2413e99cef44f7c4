"""What the scores of scenes say together: a scene's numbers by name, and the means over all scenes."""

import types
from array import array
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

# Whether more of a measure is better; of others neither is.
MORE_IS_BETTER = {
    **dict.fromkeys(("context_psnr", "psnr", "ssim", "estimate_psnr", "mean_sample_psnr", "tsed", "scene_psnr"), True),
    **dict.fromkeys(("lpips", "dists", "depth_error", "chamfer", "reprojection", "reprojection_colour"), False),
    **dict.fromkeys(("contradicted", "ause", "aurc", "rotation_error", "translation_error"), False),
    "registered_views": True,
}
VIEW_MEASURES = ("psnr", "ssim", "lpips", "dists", "depth_error")  # of a sample at a view
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
    measure, `psnr_best`; None where nothing could be measured. Scenes are looked at one after the other.

    Where what is hidden has known `odds` (toy: of three colours), also `total_variation` between what samples show and
    these, `mode_purity`, the share of samples that show one case, and `novel_view_agreement`, the share of novel views
    that show the same as target view 0; of the `num_colours_read` samples whose target view 0 shows the hidden side.
    """
    known, num_samples = {}, 0
    for scene in scenes:
        num_samples += len(scene.psnr)
        for name, value in scene_row(scene).items():
            if name != "scene":
                known.setdefault(name, array("d")).extend(() if value is None else (value,))
    numbers: dict[str, float | int | None] = {name: _mean(values) for name, values in known.items()}
    numbers |= {"num_scenes": len(scenes), "num_samples": num_samples}
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
    places, samples = {}, {}
    for scene in scenes:
        for name, place in (scene.places or {}).items():
            places.setdefault(name, array("d")).append(place)
        for name in likely.keys() & (scene.scalars or {}).keys():
            samples.setdefault(name, []).append(np.array(scene.scalars[name], np.float64))
    found = {name: honest_draws.ranks(np.array(values)) for name, values in places.items()}
    for name in found.keys() & likely.keys():
        found[name]["of_odds"] = honest_draws.of_odds(np.array(samples.get(name, []), np.float64), likely[name])
    return found


def camera_counts(scenes: Sequence[SceneScores]) -> dict[str, int]:
    """Of how many samples the cameras were looked for, and of how many enough were found to be compared; none if that
    was not asked for."""
    known = lambda values: sum(x is not None for x in values or ())
    asked, found = 0, 0
    for scene in scenes:
        asked, found = asked + known(scene.registered_views), found + known(scene.rotation_error)
    return {"num_camera_samples": asked, "num_camera_samples_registered": found} if asked else {}


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
    for name in VIEW_MEASURES:
        more_is_better = MORE_IS_BETTER[name]
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
    counts, num_clean, agrees, num_novel = np.zeros(len(odds), int), 0, 0, 0
    for scene in scenes:
        for sample, clean in zip(scene.modes, scene.clean, strict=True):
            if sample[0] != UNSEEN:
                novel = [mode for mode in sample[1:] if mode != UNSEEN]
                counts[sample[0]] += 1
                num_clean += clean
                num_novel += len(novel)
                agrees += novel.count(sample[0])
    num_read = int(counts.sum())
    if not num_read:
        return {"num_colours_read": 0, "total_variation": None, "mode_purity": None, "novel_view_agreement": None}
    return {
        "num_colours_read": num_read,
        "total_variation": total_variation(counts, odds),
        "total_variation_of_honest_draws": honest_draws.expected_total_variation(num_read, odds),
        "total_variation_limit": honest_draws.total_variation_limit(num_read, odds),
        "mode_purity": num_clean / num_read,
        "novel_view_agreement": agrees / num_novel if num_novel else None,
        "num_novel_views": num_novel,
    } | {f"share_{i}": float(share) for i, share in enumerate(counts / counts.sum())}


def _mean(values: Iterable[float | None]) -> float | None:
    """Of the values that are known."""
    known = [x for x in values if x is not None]
    return float(np.mean(known)) if known else None
