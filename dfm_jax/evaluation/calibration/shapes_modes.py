"""What is hidden in the data set `shapes`, read off samples: side, shape, neighbour, and the heights of these.

Analysis by synthesis. The visible part of a scene and the camera are known, so all that can be hidden there is
rendered, with heights on a grid, and a sample shows what its pixels are nearest to; heights are refined between
neighbours of the grid. Every pixel that depends on what is hidden takes part, and no other.

Notation: `g` hidden geometries, `k` hypotheses (a geometry in each colour of the side), `p` pixels that depend on them,
`n` samples. A *case* is a side, a shape and a neighbour, by its number in `shapes_scenes.ODDS`.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from dfm_jax.data.loading import shapes_scenes as scenes
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.solids import rays_of
from dfm_jax.evaluation.calibration.reading import CLEAN_SHARE, UNSEEN, Reading, square
from dfm_jax.evaluation.image_metrics import total_variation
from dfm_jax.sampling.sample_summary import HiddenColours
from dfm_jax.structs import Example

FACTORS = {"hidden side": scenes.SIDES, "hidden shape": scenes.SHAPES, "hidden neighbour": scenes.NEIGHBOURS}
SIDE, SHAPE, NEIGHBOUR = FACTORS
CASE, SHAPE_HEIGHT, NEIGHBOUR_HEIGHT = "case", "height of the hidden shape", "height of the hidden neighbour"
STEP = 0.05  # of heights that are tried, which begin and end that far outside of the possible ones
RAYS = 2  # along a pixel's side
RADIUS = 0.25  # colour units: a pixel shows what it is this near to
DIFFERENT = 0.12  # colour units: two hypotheses differ in a pixel
NEARER_SHARE = 0.75  # of the pixels in which the best hypothesis and a rival differ; half of a mixture's
SMALLEST_SHARE = 1 / 150  # of the pixels: two cases can be told apart where so many differ
QUANTILES = 100

_COUNTS = np.rint(400 * scenes.ODDS).astype(int)  # all probabilities are multiples of 1/400
_CASES = np.repeat(np.arange(scenes.ODDS.size), _COUNTS.ravel())
_uniform = lambda low, high: low + (high - low) * (np.arange(QUANTILES) + 0.5) / QUANTILES
# Values that are equally likely, of each attribute.
LIKELY = {name: x.astype(float) for name, x in zip(FACTORS, np.unravel_index(_CASES, scenes.ODDS.shape), strict=True)}
LIKELY |= {CASE: _CASES.astype(float), SHAPE_HEIGHT: _uniform(*scenes.SHAPE_HEIGHT)}
LIKELY |= {NEIGHBOUR_HEIGHT: _uniform(*scenes.NEIGHBOUR_HEIGHT)}


@dataclasses.dataclass(frozen=True)
class _Hypotheses:
    """All that can be hidden in a scene, as one view shows it."""

    sides: Int[np.ndarray, "k"]
    shapes: Int[np.ndarray, "k"]
    neighbours: Int[np.ndarray, "k"]
    shape_heights: Int[np.ndarray, "k"]  # numbers on the grid; 0 where there is none
    neighbour_heights: Int[np.ndarray, "k"]
    looks: Float[np.ndarray, "k p 3"]
    pixels: Bool[np.ndarray, "h w"]  # p of them

    def cases(self) -> Int[np.ndarray, "k"]:
        return np.ravel_multi_index((self.sides, self.shapes, self.neighbours), scenes.ODDS.shape)

    def factors(self) -> tuple[np.ndarray, ...]:
        return self.sides, self.shapes, self.neighbours


def has_known_odds(data: SceneDataset) -> bool:
    """Whether these are scenes of this kind, whatever their data set is called."""
    return len(data) > 0 and data.scene(0).attributes.keys() >= scenes.ATTRIBUTES


def true_scalars(attributes: Mapping[str, Any]) -> dict[str, float]:
    case = attributes["side"], attributes["shape"], attributes["neighbour"]
    heights = {SHAPE_HEIGHT: attributes["shape_height"], NEIGHBOUR_HEIGHT: attributes["neighbour_height"]}
    there = {SHAPE_HEIGHT: attributes["shape"] > 0, NEIGHBOUR_HEIGHT: attributes["neighbour"] > 0}
    return {
        **dict(zip(FACTORS, map(float, case), strict=True)),
        CASE: float(np.ravel_multi_index(case, scenes.ODDS.shape)),
        **{name: height if there[name] else np.nan for name, height in heights.items()},
    }


def read(
    attributes: Mapping[str, Any],
    poses: Float[np.ndarray, "t 3 4"],
    intrinsics: Float[np.ndarray, "t 3 3"],
    samples: Float[np.ndarray, "n t h w 3"],
) -> Reading:
    """
    Args:
      attributes: of the scene's record.
      poses: of the views in the data set's own world.
    """
    modes, clean = np.full(samples.shape[:2], UNSEEN), np.zeros(samples.shape[:2], bool)
    scalars = {name: np.full(len(samples), np.nan) for name in LIKELY}
    for view, (pose, matrix) in enumerate(zip(poses, intrinsics, strict=True)):
        known = _hypotheses(attributes, pose, matrix, samples.shape[2])
        if not _tells(known):
            continue
        shown = samples[:, view][:, known.pixels]
        errors = _errors(shown, known.looks)
        best = errors.argmin(1)
        modes[:, view] = known.cases()[best]
        clean[:, view] = [_is_clean(*each, known) for each in zip(shown, errors, strict=True)]
        if view == 0:
            scalars = _scalars(known, errors, best)
    return Reading(modes, clean, scalars)


def true_depth(
    attributes: Mapping[str, Any], poses: Float[np.ndarray, "t 3 4"], intrinsics: np.ndarray, size: int
) -> Float[np.ndarray, "t h w"]:
    """Distances along the rays of a scene's views; infinite where they meet nothing."""
    views = zip(poses, intrinsics, strict=True)
    return np.stack([scenes.view_depth(attributes, square(pose), matrix, size) for pose, matrix in views])


def hidden_pixels(data: SceneDataset, names: Sequence[str], example: Example, size: int) -> Bool[np.ndarray, "s h w"]:
    """Which pixels of target view 0 depend on what the context hides."""
    return np.stack([_hypotheses(*view, size).pixels for view in _first_targets(data, names, example)])


def read_hidden_colours(
    data: SceneDataset,
    names: Sequence[str],
    example: Example,
    samples: Float[np.ndarray, "s n h w 3"],
    estimates: Float[np.ndarray, "s h w 3"],
) -> HiddenColours:
    """The colour of the hidden side that each sample of target view 0 shows; clean are those without any mixture.

    Args:
      data: the split that the scenes `names` [s] of `example` come from.
    """
    together = np.concatenate([samples, estimates[:, None]], axis=1)[:, :, None]  # what can be there is rendered once
    views = zip(_first_targets(data, names, example), together, strict=True)
    readings = [read(a, p[None], k[None], x) for (a, p, k), x in views]
    sides = [np.nan_to_num(reading.scalars[SIDE][:-1], nan=UNSEEN).astype(int) for reading in readings]
    clean = [reading.clean[:-1, 0] for reading in readings]
    seen = np.concatenate(sides)
    counts = np.bincount(seen[seen != UNSEEN], minlength=len(scenes.SIDES))
    return HiddenColours(
        names=scenes.SIDES,
        probabilities=tuple(scenes.SIDE_ODDS.tolist()),
        counts=tuple(counts.tolist()),
        seen=tuple(
            tuple(scenes.SIDES[side] if sure else "" for side, sure in zip(*rows, strict=True))
            for rows in zip(sides, clean, strict=True)
        ),
        purity=float(np.mean(np.concatenate(clean))),
        total_variation=total_variation(counts, scenes.SIDE_ODDS),
        estimate_purity=float(np.mean([reading.clean[-1, 0] for reading in readings])),
    )


def _first_targets(
    data: SceneDataset, names: Sequence[str], example: Example
) -> Iterator[tuple[Mapping[str, Any], np.ndarray, np.ndarray]]:
    """Attributes of each scene, and pose and intrinsics of its target view 0."""
    for i, name in enumerate(names):
        attributes = data.scene(data.names.index(name)).attributes
        yield attributes, example.target.absolute_pose[i, 0], np.asarray(example.target.camera.intrinsics[i, 0])


def _hypotheses(attributes: Mapping[str, Any], pose: np.ndarray, intrinsics: np.ndarray, size: int) -> _Hypotheses:
    origins, directions = rays_of(square(pose)[None], intrinsics, size * RAYS)
    directions = directions.reshape(1, 3, size, RAYS, size, RAYS).swapaxes(3, 4).reshape(1, 3, size**2, RAYS**2)
    tallest = {"shape_height": scenes.SHAPE_HEIGHT[1] + STEP, "neighbour_height": scenes.NEIGHBOUR_HEIGHT[1] + STEP}
    full = [{**attributes, **tallest, "shape": shape, "neighbour": 1} for shape in range(len(scenes.SHAPES))]
    visible = scenes.see_visible(attributes, origins, directions.reshape(1, 3, -1))
    hidden = visible.label == scenes.HIDDEN
    for each in full:
        hidden |= scenes.with_hidden(visible, each, origins, directions.reshape(1, 3, -1)).label >= scenes.HIDDEN
    pixels = hidden.reshape(size**2, RAYS**2).any(1)
    rays = origins, directions[:, :, pixels].reshape(1, 3, -1)
    pairs, coverage = _all_hidden(attributes, rays)
    colours = np.stack([scenes.label_colours({**attributes, "side": side}) for side in range(len(scenes.SIDES))])
    looks = np.concatenate([coverage @ each for each in colours])
    (shapes, shape_heights), (neighbours, heights) = np.array(pairs).transpose(1, 2, 0)
    repeated = (np.tile(x, len(scenes.SIDES)) for x in (shapes, neighbours, shape_heights, heights))
    sides = np.repeat(np.arange(len(scenes.SIDES)), len(pairs))
    return _Hypotheses(sides, *repeated, looks, pixels.reshape(size, size))


def _all_hidden(
    attributes: Mapping[str, Any], rays: tuple[np.ndarray, np.ndarray]
) -> tuple[list[tuple[tuple[int, int], tuple[int, int]]], Float[np.ndarray, "g p labels"]]:
    """What can be hidden, `(shape, place of its height on the grid), (neighbour, place of its height)`, and the
    coverage of the pixels that the rays [1, 3, p * RAYS^2] belong to."""
    visible = scenes.see_visible(attributes, *rays)
    see = lambda **hidden: scenes.with_hidden(visible, {**attributes, **hidden}, *rays)
    shapes = {(0, 0): visible}
    for shape in range(1, len(scenes.SHAPES)):
        for i, height in enumerate(_grid(scenes.SHAPE_HEIGHT)):
            shapes[shape, i] = see(shape=shape, neighbour=0, shape_height=height)
    neighbours = {(0, 0): visible}
    for i, height in enumerate(_grid(scenes.NEIGHBOUR_HEIGHT)):
        neighbours[1, i] = see(shape=0, neighbour=1, neighbour_height=height)
    # A neighbour changes few pixels.
    tallest = list(neighbours.values())[-1].label == scenes.PILLAR
    changed = tallest.reshape(-1, RAYS**2).any(1)
    rays_of_changed = changed.repeat(RAYS**2)
    shapes_there = {key: seen.of(rays_of_changed) for key, seen in shapes.items()}
    neighbours_there = {key: seen.of(rays_of_changed) for key, seen in neighbours.items()}
    pairs = list(itertools.product(shapes, neighbours))
    coverage = np.stack([_coverage(seen) for seen in shapes.values()]).repeat(len(neighbours), axis=0)
    coverage[:, changed] = [_coverage(shapes_there[a].behind(neighbours_there[b])) for a, b in pairs]
    return pairs, coverage


def _grid(limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return np.arange(round((high - low) / STEP) + 3) * STEP + low - STEP


def _coverage(seen: scenes.Seen) -> Float[np.ndarray, "p labels"]:
    label, shade = seen.label.reshape(-1, RAYS**2), seen.shade.reshape(-1, RAYS**2)
    of_label = [np.einsum("pr,pr->p", label == one, shade) for one in range(scenes.NUM_LABELS)]
    return np.stack(of_label, axis=-1) / np.float32(RAYS**2)


def _tells(known: _Hypotheses) -> bool:
    """Whether any two cases can be told apart, at middle heights."""
    middle = lambda limits: len(_grid(limits)) // 2
    at = (known.shapes == 0) | (known.shape_heights == middle(scenes.SHAPE_HEIGHT))
    at &= (known.neighbours == 0) | (known.neighbour_heights == middle(scenes.NEIGHBOUR_HEIGHT))
    looks = known.looks[at]
    apart = (np.linalg.norm(looks[:, None] - looks, axis=-1) > DIFFERENT).sum(-1)
    apart[np.diag_indices(len(looks))] = known.pixels.size
    return bool(apart.min() >= SMALLEST_SHARE * known.pixels.size)


def _errors(shown: Float[np.ndarray, "n p 3"], looks: Float[np.ndarray, "k p 3"]) -> Float[np.ndarray, "n k"]:
    """Mean squared distances."""
    a, b = shown.reshape(len(shown), -1).astype(np.float64), looks.reshape(len(looks), -1).astype(np.float64)
    squares = (a**2).sum(1)[:, None] - 2 * a @ b.T + (b**2).sum(1)
    return squares / shown.shape[1]


def _is_clean(shown: Float[np.ndarray, "p 3"], errors: Float[np.ndarray, "k"], known: _Hypotheses) -> bool:
    """Whether the pixels show the best hypothesis; and where its best rival of another side, shape or neighbour
    differs, rather that than the rival."""
    best = errors.argmin()
    away = np.linalg.norm(shown - known.looks[best], axis=-1)
    if np.mean(away <= RADIUS) < CLEAN_SHARE:
        return False
    for values in known.factors():
        rival = known.looks[np.where(values == values[best], np.inf, errors).argmin()]
        differ = np.linalg.norm(rival - known.looks[best], axis=-1) > DIFFERENT
        nearer = away[differ] < np.linalg.norm(shown - rival, axis=-1)[differ]
        if differ.any() and nearer.mean() < NEARER_SHARE:
            return False
    return True


def _scalars(
    known: _Hypotheses, errors: Float[np.ndarray, "n k"], best: Int[np.ndarray, "n"]
) -> dict[str, Float[np.ndarray, "n"]]:
    found = {name: values[best].astype(float) for name, values in zip(FACTORS, known.factors(), strict=True)}
    heights = {
        SHAPE_HEIGHT: (known.shape_heights, known.shapes, scenes.SHAPE_HEIGHT),
        NEIGHBOUR_HEIGHT: (known.neighbour_heights, known.neighbours, scenes.NEIGHBOUR_HEIGHT),
    }
    found[CASE] = known.cases()[best].astype(float)
    for name, (numbers, there, limits) in heights.items():
        others = [x for x in (*known.factors(), known.shape_heights, known.neighbour_heights) if x is not numbers]
        refined = [_refined(numbers, others, *each) for each in zip(errors, best.tolist(), strict=True)]
        found[name] = np.where(there[best] > 0, limits[0] + STEP * (np.array(refined) - 1), np.nan)
    return found


def _refined(numbers: np.ndarray, others: list[np.ndarray], errors: np.ndarray, best: int) -> float:
    """A place on the grid of heights: the lowest point of the parabola through the best hypothesis and its neighbours
    along the grid, all else equal."""
    line = np.flatnonzero(np.all([x == x[best] for x in others], axis=0))
    along = dict(zip(numbers[line].tolist(), errors[line].tolist(), strict=True))
    at = int(numbers[best])
    if at - 1 not in along or at + 1 not in along:
        return float(at)
    before, here, after = along[at - 1], along[at], along[at + 1]
    curvature = before - 2 * here + after
    return at + (before - after) / (2 * curvature) if curvature > 0 else float(at)
