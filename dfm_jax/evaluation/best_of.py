"""The best of N samples: how good the nearest of so many is, whichever N of them one has."""

import math
from collections.abc import Sequence

import numpy as np

# Of how many samples the best one is looked for, where there are as many.
BEST_OF = (1, 5, 10, 20, 100)


def expected_best(values: Sequence[float], count: int, *, more_is_better: bool) -> float:
    """The mean over all choices of `count` of the values of the best one of each choice.

    The i-th smallest value (from 1) is the largest of `C(i - 1, count - 1)` of the `C(n, count)` choices. With all
    values this is the best; with one, their mean.

    Raises:
      ValueError: there are fewer than `count` values.
    """
    if not 1 <= count <= len(values):
        raise ValueError(f"the best of {count} among {len(values)}")
    ordered = np.sort(np.asarray(values, np.float64))
    if not more_is_better:
        ordered = ordered[::-1]
    choices = math.comb(len(ordered), count)
    weights = [math.comb(i, count - 1) / choices for i in range(len(ordered))]
    return float(np.dot(weights, ordered))
