"""Numbers that say how good images and samples are. Numpy in and out; images are floats in [0, 1], channels last."""

import dm_pix
import numpy as np

SSIM_WINDOW = 11  # pixels; smaller images have no SSIM


def psnr(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of images [*batch, h, w, 3], over each image's pixels and channels: [*batch].

    Equal images give infinity.
    """
    error = np.mean((np.asarray(image, np.float64) - np.asarray(truth, np.float64)) ** 2, axis=(-3, -2, -1))
    with np.errstate(divide="ignore"):
        return -10.0 * np.log10(error)


def ssim(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of images [*batch, h, w, 3]: [*batch] (Wang et al. 2004: Gaussian windows of 11 pixels with
    a standard deviation of 1.5, constants 0.01 and 0.03, mean over colours and over the windows that fit).

    Raises:
      ValueError: the images are smaller than a window.
    """
    if min(image.shape[-3:-1]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs images of at least {SSIM_WINDOW} pixels a side, not {image.shape}")
    flat = [np.asarray(x, np.float32).reshape(-1, *x.shape[-3:]) for x in (image, truth)]
    return np.asarray(dm_pix.ssim(*flat)).reshape(image.shape[:-3])


def total_variation(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """Total variation distance between observed counts [k] and a known distribution [k]: 0 equal, 1 disjoint.

    Raises:
      ValueError: there is nothing to count.
    """
    counts, probabilities = np.asarray(counts, np.float64), np.asarray(probabilities, np.float64)
    if counts.sum() <= 0:
        raise ValueError("total variation of no counts at all")
    return float(0.5 * np.abs(counts / counts.sum() - probabilities / probabilities.sum()).sum())


def mode_shares(pixels: np.ndarray, modes: np.ndarray, radius: float = 0.25) -> np.ndarray:
    """For each mode, the share [k] of pixels [p, 3] that lie within `radius` (Euclidean, colour units) of what that
    mode would look like there, [k, p, 3].

    A sample is clean if one share is close to 1. A mean colour would hide a face in two tones, each of another mode.
    """
    return np.mean(np.linalg.norm(pixels - modes, axis=-1) <= radius, axis=-1)


def nearest_mode(pixels: np.ndarray, modes: np.ndarray) -> int:
    """The mode [k, p, 3] that pixels [p, 3] are nearest to, by mean squared distance."""
    return int(np.argmin(np.mean((pixels - modes) ** 2, axis=(-2, -1))))
