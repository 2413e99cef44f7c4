"""Few numbers among many that are nothing like the others: cameras and points that a reconstruction got wrong.

Both rules leave everything alone unless few deviate: what more cameras share is part of the scene.
"""

import numpy as np

MAX_SHARE = 0.2  # of values that can be outliers
MAX_ISOLATED = 0.1  # share of positions that can be; or one of five or more
FENCE = 3.0  # interquartile ranges from the middle half, as is usual for what is "far out"
ISOLATION = 5.0  # times as far from the middle as any other camera


def outlying(values: np.ndarray, factor: float) -> np.ndarray:
    """Which of positive values [n], as ratios, lie far outside of what the middle half spans, by a factor more, since
    there may be no span at all (cameras on a circle); what is not finite does, too."""
    finite = np.isfinite(values) & (values > 0)
    if not finite.any():
        return np.zeros(len(values), bool)
    logs = np.log(values, where=finite, out=np.full(len(values), np.inf))
    low, high = np.percentile(logs[finite], (25, 75))
    reach = FENCE * (high - low) + np.log(factor)
    odd = ~finite | (logs < low - reach) | (logs > high + reach)
    return odd & (odd.mean() <= MAX_SHARE)


def isolated(positions: np.ndarray) -> np.ndarray:
    """Which of positions [n, 3] are ISOLATION times as far from the middle of all as any other."""
    away = np.abs(positions - np.median(positions, axis=0)).max(-1)
    order = np.argsort(away)
    sorted_away = away[order]
    jumps = (sorted_away[1:] > ISOLATION * sorted_away[:-1]) & (sorted_away[:-1] > 0)
    most = max(int(MAX_ISOLATED * len(away)), len(away) >= 5)
    jumps[: max(0, len(jumps) - most)] = False
    found = np.zeros(len(away), bool)
    if jumps.any():
        found[order[np.argmax(jumps) + 1 :]] = True
    return found
