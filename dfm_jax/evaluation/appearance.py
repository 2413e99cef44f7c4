"""How strong the colours of pictures are. Numpy in and out; images are floats in [0, 1], channels last."""

import numpy as np


def appearance(images: np.ndarray) -> dict[str, float]:
    """Of images [*batch, h, w, 3]: `saturation` is that of HSV, (max - min) / max of a pixel's colours, averaged over
    pixels by their value (black has none); `contrast` the standard deviation of the grey values of an image."""
    value, least = images.max(-1), images.min(-1)
    grey = images.mean(-1)
    return {
        "saturation": float((value - least).sum() / max(value.sum(), 1e-6)),
        "contrast": float(grey.std((-2, -1)).mean()),
    }
