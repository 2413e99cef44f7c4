"""Which frames of a scene are context and which are targets.

Notation: `n` frames in the order of capture; the *gap* is the distance between context view 0 and target view 0,
counted in frames of the source: holes count, but are never chosen. Target view 0 is the one that diffusion will noise;
further targets are novel views. All rules are functions of a random generator and the scene's frames alone. By the rule
for captures, whose frames are in no order, the gap is the place of context view 0 among the *neighbours* of target view
0: all other frames, the nearest by pose first.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from dfm_jax.config import ViewSamplingConfig
from dfm_jax.errors import UserError

FRONT = np.deg2rad(60)  # toy: half the range of azimuths that counts as front, and as back
FRONT_SHARE = 3 / 8  # toy: novel views drawn from the front; the rest come from anywhere


@dataclasses.dataclass(frozen=True)
class ViewIndices:
    context: np.ndarray  # [c] indices of frames, min_context <= c <= max_context
    # [t] of the targets; no frame occurs twice in context and target together, unless
    # `context_as_target_probability` asks for it
    target: np.ndarray


@dataclasses.dataclass(frozen=True)
class Frames:
    """The frames of a scene that may be chosen."""

    camera_to_world: np.ndarray  # [n, 4, 4]
    positions: np.ndarray  # [n] among all frames of the source in the order of capture, increasing
    num_source_frames: int  # n and as many as there are holes

    @classmethod
    def without_holes(cls, camera_to_world: np.ndarray) -> "Frames":
        return cls(camera_to_world, np.arange(len(camera_to_world)), len(camera_to_world))

    def __len__(self) -> int:
        return len(self.camera_to_world)

    def index(self, position: int) -> int:
        """Of the frame at that position, which must not be a hole."""
        return int(np.searchsorted(self.positions, position))


@dataclasses.dataclass(frozen=True)
class Rule:
    """How views are chosen, and what that asks of a scene. `RULES` has all."""

    # The views of one example, from a generator, the frames, the settings, and whether it is for evaluation.
    sample: Callable[[np.random.Generator, Frames, ViewSamplingConfig, bool], ViewIndices]
    min_frames: Callable[[ViewSamplingConfig], int]  # that the smallest gap needs in a scene without holes
    # The possible gaps, increasing, of a scene of which `is_there` [num_source_frames] says where no hole is; None: the
    # gap is no number of frames of the source.
    gaps: Callable[[np.ndarray, ViewSamplingConfig], Iterable[int]] | None = None
    # As `views_for_comparison`; None: a scene is compared once, on views that are sampled.
    compare: Callable[[np.ndarray, np.ndarray, int, int, ViewSamplingConfig], ViewIndices] | None = None


def rule_of(config: ViewSamplingConfig) -> Rule:
    """Raises:
    UserError: the rule is unknown.
    """
    if config.rule not in RULES:
        raise UserError(f"config.data.view_sampling.rule must be one of {', '.join(RULES)}, not '{config.rule}'")
    return RULES[config.rule]


def sample_views(
    rng: np.random.Generator, frames: Frames, config: ViewSamplingConfig, evaluation: bool = False
) -> ViewIndices:
    """Draws the views of one example from a scene that `has_enough`.

    For evaluation the gap is the middle of those that are possible (not for toy, which knows no gap), and there are as
    few context views as the config allows.

    Raises:
      UserError: the rule is unknown.
    """
    views = rule_of(config).sample(rng, frames, config, evaluation)
    if not evaluation and config.context_as_target_probability and rng.random() < config.context_as_target_probability:
        return ViewIndices(views.context, np.append(views.target[:-1], views.context[0]))
    return views


def min_frames(config: ViewSamplingConfig) -> int:
    """Frames that a scene without holes needs.

    Raises:
      UserError: the rule is unknown.
    """
    return max(rule_of(config).min_frames(config), config.min_context + config.num_target)


def counts_frames(config: ViewSamplingConfig) -> bool:
    """Whether the rule's gap is a number of frames of the source."""
    return rule_of(config).gaps is not None


def has_enough(positions: np.ndarray, num_source_frames: int, config: ViewSamplingConfig) -> bool:
    """Whether examples can be sampled from a scene with frames at these positions [n], as in `Frames`.

    Raises:
      UserError: the rule is unknown.
    """
    gaps = rule_of(config).gaps
    if len(positions) == num_source_frames or gaps is None:
        return len(positions) >= min_frames(config)
    possible = gaps(_is_there(positions, num_source_frames), config)
    return len(positions) >= config.min_context + config.num_target and any(True for _ in possible)


def views_for_comparison(
    camera_to_world: np.ndarray, held_out: np.ndarray, target: int, turn: int, config: ViewSamplingConfig
) -> ViewIndices:
    """Views by the rule for captures, for comparing what is made of frame `target` with the truth.

    Context views come from the frames that are not held out, the first at the middle gap; novel views are the target's
    neighbours, held out ones first. The same for the same arguments.

    Args:
      held_out: [n] frames that training never sees; if there are none, context views come from all others.
      turn: how often the same target was compared before; context view 0 is another one then.
    """
    near = neighbours(camera_to_world, target)
    known = near[~held_out[near]]
    gap = (config.min_frame_gap + min(config.max_frame_gap, len(known))) // 2
    context = np.roll(known, -(min(gap, len(known)) - 1 + turn))[: config.min_context]
    rest = near[~np.isin(near, context)]
    rest = rest[np.argsort(~held_out[rest], kind="stable")]
    return ViewIndices(context, np.append(target, rest[: config.num_target - 1]))


def neighbours(camera_to_world: np.ndarray, frame: int) -> np.ndarray:
    """The other frames [n - 1], the nearest first.

    Near is: a short way apart, measured by how far all cameras [n, 4, 4] spread, and looking in the same direction.
    """
    positions, axes = camera_to_world[:, :3, 3], camera_to_world[:, :3, 2]
    scale = np.sqrt(((positions - positions.mean(0)) ** 2).sum(-1).mean())
    away = np.linalg.norm(positions - positions[frame], axis=-1) / max(scale, 1e-12)
    turned = np.arccos(np.clip(axes @ axes[frame], -1, 1))
    order = np.argsort(away + turned, kind="stable")
    return order[order != frame]


def _clip(
    rng: np.random.Generator,
    frames: Frames,
    config: ViewSamplingConfig,
    evaluation: bool,
    *,
    only_forwards: bool = False,
) -> ViewIndices:
    """A clip: the target lies a gap ahead of the context, or behind it where nothing moves. All further views come from
    the stretch between the two, or, where that is too short, from the frames nearest to it."""
    n, is_there = len(frames), _is_there(frames.positions, frames.num_source_frames)
    gap = _gap(rng, tuple(_gaps_of_a_clip(is_there, config)), evaluation)
    lows = np.flatnonzero(is_there[:-gap] & is_there[gap:])
    low = int(lows[rng.integers(len(lows))])
    high = low + gap
    forwards = rng.random() < 0.5 or only_forwards
    context, target = map(frames.index, (low, high) if forwards else (high, low))
    num_context = _num_context(rng, n, config, evaluation)

    rest = np.setdiff1d(np.arange(n), (context, target))
    outside = np.maximum(low - frames.positions[rest], frames.positions[rest] - high).clip(0)
    further = num_context - 1 + config.num_target - 1
    pool = rest[np.argsort(outside, kind="stable")][: max(further, np.count_nonzero(outside == 0))]
    others = rng.choice(pool, further, replace=False)
    return _view_indices(context, target, others, num_context)


def _co3d(rng: np.random.Generator, frames: Frames, config: ViewSamplingConfig, evaluation: bool) -> ViewIndices:
    """An orbit, whose last frame is followed by its first: the target lies a gap ahead of context view 0 or behind it,
    and the smallest gap or more from it the other way round; all further views come from anywhere."""
    n, is_there = len(frames), _is_there(frames.positions, frames.num_source_frames)
    gap = _gap(rng, tuple(_gaps_of_an_orbit(is_there, config)), evaluation)
    ahead, behind = ((frames.positions + way) % frames.num_source_frames for way in (gap, -gap))
    contexts = np.flatnonzero(is_there[ahead] | is_there[behind])
    context = int(contexts[rng.integers(len(contexts))])
    ways = (ahead, behind) if rng.random() < 0.5 else (behind, ahead)  # the second one where the first ends in a hole
    target = frames.index(next(way[context] for way in ways if is_there[way[context]]))
    num_context = _num_context(rng, n, config, evaluation)
    rest = np.setdiff1d(np.arange(n), (context, target))
    others = rng.choice(rest, num_context - 1 + config.num_target - 1, replace=False)
    return _view_indices(context, target, others, num_context)


def _captures(rng: np.random.Generator, frames: Frames, config: ViewSamplingConfig, evaluation: bool) -> ViewIndices:
    """Photographs in any order: context view 0 is a neighbour of the target, by the gap; all further views come from
    the target's neighbours up to the largest gap."""
    n = len(frames)
    target = int(rng.integers(n))
    near = neighbours(frames.camera_to_world, target)
    gap = _gap(rng, _allowed(config, n - 1), evaluation)
    num_context = _num_context(rng, n, config, evaluation)
    further = num_context - 1 + config.num_target - 1
    pool = np.delete(near, gap - 1)[: max(further, config.max_frame_gap - 1)]
    others = rng.choice(pool, further, replace=False)
    return _view_indices(int(near[gap - 1]), target, others, num_context)


def _toy(rng: np.random.Generator, frames: Frames, config: ViewSamplingConfig, evaluation: bool) -> ViewIndices:
    """Around a scene whose frame 0 is the front: the target shows the back. Novel views come from the front with a
    fixed share, so that what is hidden cannot leak into it unseen; further context views come from the front too."""
    n, azimuth = len(frames), _azimuth(frames.camera_to_world)
    front = np.abs(azimuth) <= FRONT
    back = np.abs(azimuth) >= np.pi - FRONT
    free = np.arange(n) != 0

    def take(preferred: np.ndarray) -> int:
        choices = np.flatnonzero(free & preferred) if (free & preferred).any() else np.flatnonzero(free)
        frame = int(rng.choice(choices))
        free[frame] = False
        return frame

    anywhere = np.ones(n, bool)
    target = [take(back)]
    target += [take(front if rng.random() < FRONT_SHARE else anywhere) for _ in range(config.num_target - 1)]
    context = [0] + [take(front) for _ in range(_num_context(rng, n, config, evaluation) - 1)]
    return ViewIndices(np.array(context), np.array(target))


def _is_there(positions: np.ndarray, num_source_frames: int) -> np.ndarray:
    """[num_source_frames] bool: no hole."""
    is_there = np.zeros(num_source_frames, bool)
    is_there[positions] = True
    return is_there


def _allowed(config: ViewSamplingConfig, longest: int) -> range:
    return range(config.min_frame_gap, min(config.max_frame_gap, longest) + 1)


def _gaps_of_a_clip(is_there: np.ndarray, config: ViewSamplingConfig) -> Iterable[int]:
    """Those between two frames that are no holes, increasing."""
    allowed = _allowed(config, len(is_there) - 1)
    return allowed if is_there.all() else (gap for gap in allowed if (is_there[:-gap] & is_there[gap:]).any())


def _gaps_of_an_orbit(is_there: np.ndarray, config: ViewSamplingConfig) -> Iterable[int]:
    allowed = _allowed(config, len(is_there) - config.min_frame_gap)
    return allowed if is_there.all() else (gap for gap in allowed if (is_there & np.roll(is_there, gap)).any())


def _gap(rng: np.random.Generator, possible: Sequence[int], evaluation: bool) -> int:
    if evaluation:
        middle = (possible[0] + possible[-1]) // 2
        return min(possible, key=lambda gap: abs(gap - middle))
    return possible[int(rng.integers(len(possible)))]


def _num_context(rng: np.random.Generator, n: int, config: ViewSamplingConfig, evaluation: bool) -> int:
    most = min(config.max_context, n - config.num_target)
    return config.min_context if evaluation else int(rng.integers(config.min_context, most + 1))


def _view_indices(context: int, target: int, others: np.ndarray, num_context: int) -> ViewIndices:
    return ViewIndices(np.append(context, others[: num_context - 1]), np.append(target, others[num_context - 1 :]))


def _azimuth(camera_to_world: np.ndarray) -> np.ndarray:
    """[n] azimuth of each camera's position around the world's z axis, from frame 0's, in [-pi, pi)."""
    angle = np.arctan2(camera_to_world[:, 1, 3], camera_to_world[:, 0, 3])
    return (angle - angle[0] + np.pi) % (2 * np.pi) - np.pi


RULES: Mapping[str, Rule] = {
    "realestate10k": Rule(_clip, lambda config: config.min_frame_gap + 1, gaps=_gaps_of_a_clip),
    "co3d": Rule(_co3d, lambda config: 2 * config.min_frame_gap, gaps=_gaps_of_an_orbit),
    "toy": Rule(_toy, lambda config: 1),
    "captures": Rule(_captures, lambda config: config.min_frame_gap + 1, compare=views_for_comparison),
    "video": Rule(
        functools.partial(_clip, only_forwards=True), lambda config: config.min_frame_gap + 1, gaps=_gaps_of_a_clip
    ),
}
