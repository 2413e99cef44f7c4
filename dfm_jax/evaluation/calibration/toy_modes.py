"""The toy data set's hidden colour, read off samples: what was drawn, against the known odds.

Notation: `s` scene, `n` sample of it, `h w` pixels, `k` the possible hidden colours (modes), `p` hidden pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dfm_jax.data.loading import toy_scenes
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.evaluation.calibration.reading import CLEAN_SHARE, UNSEEN, Reading, square
from dfm_jax.evaluation.image_metrics import mode_shares, nearest_mode, total_variation
from dfm_jax.sampling.sample_summary import HiddenColours
from dfm_jax.structs import Example

NAMES = ("red", "green", "blue")  # of toy_scenes.HIDDEN_COLOURS; also colours of the page
# A view tells the mode if this share of its pixels shows nothing but what the context hides.
SMALLEST_SHARE = 1 / 64
ATTRIBUTE = "hidden colour"
# The numbers of the colours, each as often as the odds say.
_TENTHS = np.rint(10 * np.array(toy_scenes.HIDDEN_PROBABILITIES)).astype(int)
LIKELY = {ATTRIBUTE: np.repeat(np.arange(len(NAMES), dtype=np.float64), _TENTHS)}


def has_known_odds(data: SceneDataset) -> bool:
    """Whether these are toy scenes, whatever their data set is called."""
    return len(data) > 0 and data.scene(0).attributes.keys() >= toy_scenes.ATTRIBUTES


def read_hidden_colours(
    data: SceneDataset,
    names: Sequence[str],
    example: Example,
    samples: Float[np.ndarray, "s n h w 3"],
    estimates: Float[np.ndarray, "s h w 3"],
) -> HiddenColours:
    """Which hidden colour each sample of target view 0 shows, in [0, 1].

    Args:
      data: the toy split that the scenes `names` [s] of `example` come from.
    """
    chosen, clean, estimate_clean = [], [], []
    for i, (modes, hidden) in enumerate(_modes(data, names, example, samples.shape[2])):
        chosen.append([nearest_mode(sample[hidden], modes) for sample in samples[i]])
        clean.append([_is_clean(sample[hidden], modes) for sample in samples[i]])
        estimate_clean.append(_is_clean(estimates[i][hidden], modes))
    counts = np.bincount(np.ravel(chosen), minlength=len(NAMES))
    return HiddenColours(
        names=NAMES,
        probabilities=toy_scenes.HIDDEN_PROBABILITIES,
        counts=tuple(counts.tolist()),
        seen=tuple(
            tuple(NAMES[mode] if sure else "" for mode, sure in zip(*rows, strict=True))
            for rows in zip(chosen, clean, strict=True)
        ),
        purity=float(np.mean(clean)),
        total_variation=total_variation(counts, toy_scenes.HIDDEN_PROBABILITIES),
        estimate_purity=float(np.mean(estimate_clean)),
    )


def read_views(
    attributes: Mapping[str, Any],
    poses: Float[np.ndarray, "t 3 4"],
    intrinsics: Float[np.ndarray, "t 3 3"],
    samples: Float[np.ndarray, "n t h w 3"],
) -> tuple[Int[np.ndarray, "n t"], Bool[np.ndarray, "n t"]]:
    """The mode that each view of each sample of one scene shows, `UNSEEN` where it shows too little of it, and whether
    it does so cleanly.

    Args:
      attributes: of the scene's record.
      poses: of the views in the data set's own world.
    """
    modes = np.full(samples.shape[:2], UNSEEN)
    clean = np.zeros(samples.shape[:2], bool)
    for view, (pose, matrix) in enumerate(zip(poses, intrinsics, strict=True)):
        looks, hidden = _looks(attributes, pose, matrix, samples.shape[2])
        if hidden.mean() < SMALLEST_SHARE:
            continue
        for n, image in enumerate(samples[:, view]):
            modes[n, view] = nearest_mode(image[hidden], looks)
            clean[n, view] = _is_clean(image[hidden], looks)
    return modes, clean


def read(
    attributes: Mapping[str, Any],
    poses: Float[np.ndarray, "t 3 4"],
    intrinsics: Float[np.ndarray, "t 3 3"],
    samples: Float[np.ndarray, "n t h w 3"],
) -> Reading:
    """The hidden colour, by its number, that views of samples show."""
    modes, clean = read_views(attributes, poses, intrinsics, samples)
    return Reading(modes, clean, {ATTRIBUTE: np.where(modes[:, 0] == UNSEEN, np.nan, modes[:, 0])})


def true_scalars(attributes: Mapping[str, Any]) -> dict[str, float]:
    return {ATTRIBUTE: float(attributes["hidden"])}


def true_depth(
    attributes: Mapping[str, Any], poses: Float[np.ndarray, "t 3 4"], intrinsics: np.ndarray, size: int
) -> Float[np.ndarray, "t h w"]:
    """Distances along the rays of a toy scene's views; infinite where they meet nothing."""
    views = zip(poses, intrinsics, strict=True)
    return np.stack([toy_scenes.view_depth(attributes, square(pose), matrix, size) for pose, matrix in views])


def hidden_pixels(data: SceneDataset, names: Sequence[str], example: Example, size: int) -> Bool[np.ndarray, "s h w"]:
    """Which pixels of target view 0 show nothing but what the context hides."""
    return np.stack([hidden for _, hidden in _modes(data, names, example, size)])


def _modes(
    data: SceneDataset, names: Sequence[str], example: Example, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each scene what the hidden pixels of target view 0 look like in each mode, [k, p, 3], and where they are,
    [h, w] bool."""
    for i, name in enumerate(names):
        attributes = data.scene(data.names.index(name)).attributes
        intrinsics = np.asarray(example.target.camera.intrinsics[i, 0])
        yield _looks(attributes, example.target.absolute_pose[i, 0], intrinsics, size)


def likely_pictures(
    attributes: Mapping[str, Any], pose: np.ndarray, intrinsics: np.ndarray, size: int
) -> Float[np.ndarray, "r h w 3"]:
    """What a view might show, each picture equally likely: with each hidden colour as often as the odds say."""
    coverage, _ = toy_scenes.view_coverage(attributes, square(pose), intrinsics, size)
    hidden = LIKELY[ATTRIBUTE].astype(int)
    return np.stack([coverage @ toy_scenes.label_colours({**attributes, "hidden": int(k)}) for k in hidden])


def _looks(
    attributes: Mapping[str, Any], pose: np.ndarray, intrinsics: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the hidden pixels of a view look like in each mode, [k, p, 3], and where they are, [h, w] bool."""
    coverage, hidden = toy_scenes.view_coverage(attributes, square(pose), intrinsics, size)
    colours = np.stack([toy_scenes.label_colours({**attributes, "hidden": k}) for k in range(len(NAMES))])
    return coverage[hidden] @ colours, hidden


def _is_clean(pixels: np.ndarray, modes: np.ndarray) -> bool:
    return bool(mode_shares(pixels, modes).max() >= CLEAN_SHARE)
