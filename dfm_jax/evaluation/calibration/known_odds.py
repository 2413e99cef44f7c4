"""Data sets whose hidden attributes follow known odds, so that samples can be compared with them.

To add one: a module beside `toy_modes` that reads the attributes off samples, and an entry in `KINDS`. Evaluation then
ranks its attributes (`scalars` in `metrics.json`), and `python -m dfm_jax.studies.calibration` measures them over
seeds.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.evaluation.calibration import toy_modes

# (attributes of the scene's record, poses [t, 3, 4], intrinsics [t, 3, 3], samples [n, t, h, w, 3]) -> [n] of each
# attribute, NaN where a sample does not tell.
Read = Callable[[Mapping[str, Any], np.ndarray, np.ndarray, np.ndarray], Mapping[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class KnownOdds:
    """A kind of scenes, and the attributes of theirs that a context view leaves open, each one number."""

    recognises: Callable[[SceneDataset], bool]
    likely: Mapping[str, np.ndarray]  # of each attribute: values that are equally likely, [r] (`honest_draws.of_odds`)
    truth: Callable[[Mapping[str, Any]], Mapping[str, float]]  # of a scene's record; NaN where it has none
    read: Read


KINDS = (KnownOdds(toy_modes.has_known_odds, toy_modes.LIKELY, toy_modes.true_scalars, toy_modes.read_scalars),)


def known_odds(data: SceneDataset) -> KnownOdds | None:
    """Of a data set, whatever it is called; None: nothing is known."""
    return next((kind for kind in KINDS if kind.recognises(data)), None)
