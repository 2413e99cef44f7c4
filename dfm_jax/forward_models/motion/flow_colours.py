"""Motion fields as colours: the hue is the direction, the saturation the speed (the colour wheel of Baker et al. 2011,
known from the Middlebury benchmark). White stays where it is."""

import numpy as np
from jaxtyping import Float

# Numbers of hues from red to yellow, to green, to cyan, to blue, to magenta, and to red again: more where eyes tell
# more of them apart.
STRETCHES = (15, 6, 4, 11, 13, 6)
CORNERS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float64)
WHEEL = np.concatenate(
    [
        (1 - steps) * CORNERS[i] + steps * CORNERS[i + 1]
        for i, count in enumerate(STRETCHES)
        for steps in [np.arange(count)[:, None] / count]
    ]
)  # [55, 3]


def colours(flow: Float[np.ndarray, "*batch h w 2"], fastest: float | None = None) -> Float[np.ndarray, "*batch h w 3"]:
    """Colours in [0, 1].

    Args:
      fastest: speed of full saturation, pixels; faster pixels are darker. None: the largest speed of all.
    """
    speed = np.linalg.norm(flow, axis=-1)
    fastest = max(float(speed.max()) if fastest is None else fastest, 1e-6)
    radius = (speed / fastest)[..., None]
    angle = np.arctan2(-flow[..., 1], -flow[..., 0]) / np.pi  # in [-1, 1]: 0 is to the left
    place = (angle + 1) / 2 * (len(WHEEL) - 1)
    before = np.floor(place).astype(int)
    share = (place - before)[..., None]
    hue = (1 - share) * WHEEL[before] + share * WHEEL[(before + 1) % len(WHEEL)]
    return np.where(radius <= 1, 1 - radius * (1 - hue), 0.75 * hue)
