"""Scores of models whose target views are not recorded in colour: what they sample against what was recorded.

Letters: `n` samples, `k` views of one scene, `h w` pixels.
"""

from typing import Any

import jax
import numpy as np

from dfm_jax.evaluation.image_metrics import psnr
from dfm_jax.evaluation.scores import SceneSamples
from dfm_jax.evaluation.spread import LARGEST_PSNR
from dfm_jax.forward_models.protocol import RecordingModel
from dfm_jax.structs import Example


def recorded_scores(model: RecordingModel, example: Example, samples: SceneSamples) -> dict[str, Any]:
    """Fields of `SceneScores` of one scene, in the units of its records as pictures: PSNR in dB.

    Args:
      example: without batch axis, with what was measured of its target views.
    """
    at_target = jax.tree.map(lambda x: x[:, len(example.context.valid)], samples.views)
    seen = np.asarray(model.recorded_views(at_target, example.near, example.far))  # [n, h, w, 3]
    truth = (np.asarray(model.truth(jax.tree.map(lambda x: x[None], example)))[0, 0] + 1) / 2
    return {
        "scene_psnr": [_psnr(*pair) for pair in zip(seen, samples.x0, strict=True)],
        "observation_psnr": [_psnr(x0, truth) for x0 in samples.x0],
        "estimate_psnr": _psnr(samples.estimate, truth),
    }


def _psnr(images: np.ndarray, truth: np.ndarray) -> float | None:
    """None where the truth is not known."""
    return float(min(LARGEST_PSNR, psnr(images, truth))) if np.isfinite(truth).all() else None
