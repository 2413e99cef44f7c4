"""What the samples of one scene say together: their mean, their spread, and the truth among them.

Letters: `n` samples, `t` target views, `h w` pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from dfm_jax.evaluation import uncertainty
from dfm_jax.evaluation.image_metrics import psnr

LARGEST_PSNR = 99.0  # dB; of equal images, so that it is a number in JSON
COLOURS = ("red", "green", "blue")
# Numbers of a scene that are compared, of its samples [n] and its truth; NaN where one has none.
Scalars = Mapping[str, tuple[np.ndarray, float]]


def spread_scores(
    samples: Float[np.ndarray, "n t h w 3"],
    truth: Float[np.ndarray, "t h w 3"],
    seed: int,
    scalars: Scalars | None = None,
    inside: Bool[np.ndarray, "t h w"] | None = None,
) -> dict[str, Any]:
    """Fields of `SceneScores`; of a single sample, which has no spread, all are None.

    Args:
      seed: of the ties that are broken at random.
      scalars: attributes of the scene that are known to be uncertain, by name; None: the mean colours of target view 0.
      inside: pixels that count; None: all.
    """
    names = ("mean_sample_psnr", "ause", "aurc", "coverage", "places", "scalars")
    if len(samples) < 2:
        return dict.fromkeys(names)
    rng = np.random.default_rng(seed)
    mean = samples.mean(0)
    error, spread = np.abs(mean - truth).mean(-1), np.sqrt(samples.var(0).mean(-1))
    inside = np.ones(truth.shape[:3], bool) if inside is None else inside
    pixels = uncertainty.places(samples[:, inside].reshape(len(samples), -1), truth[inside].reshape(-1), rng)
    if scalars is None:
        means = samples[:, 0].mean((1, 2)), truth[0].mean((0, 1))
        scalars = {name: (means[0][:, i], float(means[1][i])) for i, name in enumerate(COLOURS)}
    known = {name: (x[np.isfinite(x)], y) for name, (x, y) in scalars.items()}
    of_scalar = lambda x, y: uncertainty.places(x[:, None], np.array([y], x.dtype), rng).item()
    places = {name: of_scalar(x, y) for name, (x, y) in known.items() if len(x) and np.isfinite(y)}
    of_view = lambda image, true, part: min(psnr(image[None, part], true[None, part]), LARGEST_PSNR)
    values = (
        [float(of_view(*view)) if view[2].any() else None for view in zip(mean, truth, inside, strict=True)],
        *(uncertainty.sparsification(spread[inside], error[inside]) if inside.any() else (None, None)),
        uncertainty.coverage(pixels) if inside.any() else None,
        places,
        {name: [float(v) if np.isfinite(v) else None for v in x] for name, (x, _) in scalars.items()},
    )
    return dict(zip(names, values, strict=True))
