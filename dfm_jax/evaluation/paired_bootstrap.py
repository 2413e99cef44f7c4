"""Whether a difference between two runs is one of the models, or of the scenes that happened to be evaluated.

Both runs were evaluated on the same examples: what counts is the difference on each. Scenes are drawn with replacement,
all examples of a scene together since they are alike, and the mean difference is computed anew; how that varies is how
it would vary over other scenes (Efron and Tibshirani 1993, chapters 8 and 13). Pure numpy.

Letters: `e` examples, `c` scenes, `m` measures.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

RESAMPLES = 10_000
LEVEL = 0.95  # of the interval
FEWEST = 5  # scenes: an interval of fewer says nothing
AT_ONCE = 2**22  # numbers of scenes that are drawn, and in memory, at a time


@dataclasses.dataclass(frozen=True)
class Difference:
    """Of one measure: the mean over the examples of which both runs know it."""

    mean: float
    low: float | None  # the central interval; None: there are too few scenes
    high: float | None
    p: float | None  # probability of a mean as far from 0 or farther, on either side, if there were no difference
    num_scenes: int

    @property
    def is_real(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and not self.low <= 0 <= self.high


def compare_paired(
    first: Float[np.ndarray, "e m"], second: Float[np.ndarray, "e m"], scenes: Sequence[str], seed: int = 0
) -> list[Difference | None]:
    """Of each measure, the second's mean minus the first's; None where no example has both.

    Args:
      first, second: NaN where a measure is not known.
      scenes: [e] names: examples of one scene are drawn together.
    """
    difference = second - first
    known = np.isfinite(difference)
    names, scene = np.unique(np.asarray(scenes), return_inverse=True)
    sums, counts = (np.zeros((len(names), difference.shape[1])) for _ in range(2))
    np.add.at(sums, scene, np.where(known, difference, 0.0))
    np.add.at(counts, scene, known)
    means = _resampled(sums, counts, np.random.default_rng(seed))
    return [_of_measure(sums[:, i], counts[:, i], means[:, i]) for i in range(difference.shape[1])]


def _resampled(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, "r m"]:
    """Means over scenes that are drawn with replacement."""
    num_scenes, parts, left = len(sums), [], RESAMPLES
    while left:
        rows = min(left, max(1, AT_ONCE // num_scenes))
        weights = _times_drawn(rng.integers(num_scenes, size=(rows, num_scenes)))
        with np.errstate(invalid="ignore"):
            parts.append((weights @ sums) / (weights @ counts))
        left -= rows
    return np.concatenate(parts)


def _times_drawn(drawn: Int[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
    rows, num_scenes = drawn.shape
    flat = drawn + num_scenes * np.arange(rows)[:, None]
    return np.bincount(flat.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def _of_measure(sums: np.ndarray, counts: np.ndarray, means: np.ndarray) -> Difference | None:
    num_scenes = int((counts > 0).sum())
    if not num_scenes:
        return None
    mean = float(sums.sum() / counts.sum())
    if num_scenes < FEWEST:
        return Difference(mean, None, None, None, num_scenes)
    means = means[np.isfinite(means)]  # where measures are seldom known, all scenes drawn may be without
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    beyond = min((means <= 0).sum(), (means >= 0).sum())
    p = min(1.0, 2 * (1 + int(beyond)) / (1 + len(means)))
    return Difference(mean, float(low), float(high), p, num_scenes)
