"""What a view of a sample shows of what the context hides, as the modules of each data set read it."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

UNSEEN = -1  # instead of a case: the view does not tell
# A sample is clean if this share of the pixels that depend on what is hidden shows one and the same case.
CLEAN_SHARE = 0.9


@dataclasses.dataclass(frozen=True)
class Reading:
    """Of `n` samples of one scene at `t` views."""

    modes: Int[np.ndarray, "n t"]  # number of the case in `KnownOdds.odds`, or `UNSEEN`
    clean: Bool[np.ndarray, "n t"]  # whether the view shows that case, and no mixture
    scalars: Mapping[str, Float[np.ndarray, "n"]]  # attributes by name, of view 0; NaN where it does not tell


def square(pose: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, "4 4"]:
    return np.vstack([pose, [0, 0, 0, 1]])
