"""Data sets whose hidden attributes follow known odds, so that samples can be compared with them.

To add one: a generator (`data/loading/generators.py`), a module beside `toy_modes` that reads the attributes off
samples, and an entry in `KINDS`. Evaluation then compares cases with their odds, also attribute by attribute, and ranks
the attributes (`attributes` and `scalars` in `metrics.json`), and `python -m dfm_jax.studies.calibration` measures them
over seeds.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dfm_jax.data.loading import shapes_scenes, toy_scenes
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.evaluation.calibration import shapes_modes, toy_modes
from dfm_jax.evaluation.calibration.reading import Reading
from dfm_jax.sampling.sample_summary import HiddenColours
from dfm_jax.structs import Example

# Of the attributes of a scene's record, poses [t, 3, 4] and intrinsics [t, 3, 3] of views, and samples [n, t, h, w, 3]
Read = Callable[[Mapping[str, Any], np.ndarray, np.ndarray, np.ndarray], Reading]
# or the size of images, which gives true distances [t, h, w] along rays, infinite where they meet nothing.
Depth = Callable[[Mapping[str, Any], np.ndarray, np.ndarray, int], np.ndarray]
# Of data, names of its scenes [s], an example, samples [s, n, h, w, 3] and estimates [s, h, w, 3] of target view 0
Summarise = Callable[[SceneDataset, Sequence[str], Example, np.ndarray, np.ndarray], HiddenColours]
# or the size of images, which gives the pixels [s, h, w] that depend on what is hidden.
Mask = Callable[[SceneDataset, Sequence[str], Example, int], np.ndarray]


@dataclasses.dataclass(frozen=True)
class KnownOdds:
    """A kind of scenes, and the attributes of theirs that a context view leaves open, each one number.

    Attributes:
      recognises: scenes of this kind, whatever their data set is called.
      factors: discrete attributes by name, and what their values are called.
      odds: of all cases, an axis a factor; a case has the number that it has among all, row by row.
      likely: of each attribute, values that are equally likely, [r] (`honest_draws.of_odds`).
      truth: the attributes of a scene's record; NaN where it has none.
      colours: what samples say of the first factor, for the page of samples.
    """

    recognises: Callable[[SceneDataset], bool]
    factors: Mapping[str, Sequence[str]]
    odds: np.ndarray
    likely: Mapping[str, np.ndarray]
    truth: Callable[[Mapping[str, Any]], Mapping[str, float]]
    read: Read
    depth: Depth
    colours: Summarise
    hidden_pixels: Mask


TOY = KnownOdds(
    recognises=toy_modes.has_known_odds,
    factors={toy_modes.ATTRIBUTE: toy_modes.NAMES},
    odds=np.array(toy_scenes.HIDDEN_PROBABILITIES),
    likely=toy_modes.LIKELY,
    truth=toy_modes.true_scalars,
    read=toy_modes.read,
    depth=toy_modes.true_depth,
    colours=toy_modes.read_hidden_colours,
    hidden_pixels=toy_modes.hidden_pixels,
)
SHAPES = KnownOdds(
    recognises=shapes_modes.has_known_odds,
    factors=shapes_modes.FACTORS,
    odds=shapes_scenes.ODDS,
    likely=shapes_modes.LIKELY,
    truth=shapes_modes.true_scalars,
    read=shapes_modes.read,
    depth=shapes_modes.true_depth,
    colours=shapes_modes.read_hidden_colours,
    hidden_pixels=shapes_modes.hidden_pixels,
)
KINDS = (TOY, SHAPES)


def known_odds(data: SceneDataset) -> KnownOdds | None:
    """Of a data set, whatever it is called; None: nothing is known."""
    return next((kind for kind in KINDS if kind.recognises(data)), None)
