"""Which frames become context and target: the rules' promises, over many draws."""

import dataclasses
import itertools

import numpy as np
import pytest

from dfm_jax.config import ViewSamplingConfig
from dfm_jax.config.data import VIEW_RULES
from dfm_jax.data.loading import toy_scenes, view_sampling
from dfm_jax.data.loading.view_sampling import Frames
from dfm_jax.errors import UserError

CONFIG = ViewSamplingConfig(
    rule="realestate10k",
    min_frame_gap=10,
    max_frame_gap=18,
    min_context=1,
    max_context=3,
    num_target=2,
)


def config(**changes):
    return dataclasses.replace(CONFIG, **changes)


def draws(settings, poses, count=400, **options):
    frames = Frames.without_holes(poses)
    return [view_sampling.sample_views(np.random.default_rng(i), frames, settings, **options) for i in range(count)]


def clip(n):
    return np.tile(np.eye(4), (n, 1, 1))


def toy_ring():
    """The front, and 36 azimuths around it."""
    return toy_scenes.orbit_pose(np.append(0.0, np.deg2rad(np.arange(0, 360, 10) + 5)))


POSES = {"realestate10k": clip(60), "co3d": clip(60), "captures": toy_ring(), "toy": toy_ring(), "video": clip(60)}


@pytest.mark.parametrize("rule", POSES)
def test_no_frame_occurs_twice_and_counts_are_in_range(rule):
    counts = set()
    for draw in draws(config(rule=rule), POSES[rule]):
        frames = np.concatenate([draw.context, draw.target])
        assert len(set(frames)) == len(frames)
        assert frames.min() >= 0 and frames.max() < len(POSES[rule])
        assert len(draw.target) == 2
        counts.add(len(draw.context))
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("rule", POSES)
def test_the_same_generator_draws_the_same(rule):
    first, second = draws(config(rule=rule), POSES[rule], 20), draws(config(rule=rule), POSES[rule], 20)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(np.append(a.context, a.target), np.append(b.context, b.target))


@pytest.mark.parametrize("rule", POSES)
@pytest.mark.parametrize("views", [(1, 1, 1), (1, 3, 2), (2, 2, 3), (3, 5, 4)])
@pytest.mark.parametrize("gap", [(1, 1), (1, 4), (5, 9)])
def test_a_scene_of_the_fewest_frames_can_be_drawn_from(rule, views, gap):
    counts = {"min_context": views[0], "max_context": views[1], "num_target": views[2]}
    settings = config(rule=rule, min_frame_gap=gap[0], max_frame_gap=gap[1], **counts)
    n = view_sampling.min_frames(settings)
    poses = toy_scenes.orbit_pose(np.linspace(0, 2 * np.pi, n, endpoint=False))
    for draw in draws(settings, poses, 50):
        assert len(set(np.append(draw.context, draw.target))) == len(draw.context) + views[2]
        assert views[0] <= len(draw.context) <= views[1]


def test_a_clip_has_every_gap_in_both_directions_equally_often():
    gaps = np.array([draw.target[0] - draw.context[0] for draw in draws(config(), clip(60), 4000)])
    assert set(np.abs(gaps)) == set(range(10, 19))
    assert (gaps > 0).mean() == pytest.approx(0.5, abs=0.04)  # five standard deviations of a share of 4000 draws
    assert np.bincount(np.abs(gaps))[10:].max() < 1.35 * 4000 / 9


def test_a_short_clip_has_the_gaps_that_fit():
    gaps = {abs(draw.target[0] - draw.context[0]) for draw in draws(config(), clip(13))}
    assert gaps == {10, 11, 12}


def test_further_views_of_a_clip_lie_between_context_and_target():
    for draw in draws(config(), clip(60)):
        low, high = sorted((draw.context[0], draw.target[0]))
        for frame in (*draw.context[1:], *draw.target[1:]):
            assert low < frame < high


def test_further_views_of_a_clip_with_no_room_between_are_the_nearest():
    for draw in draws(config(min_frame_gap=1, max_frame_gap=1, min_context=2, max_context=2), clip(60)):
        low, high = sorted((draw.context[0], draw.target[0]))
        for frame in (*draw.context[1:], *draw.target[1:]):
            assert low - 2 <= frame <= high + 2


def test_gaps_on_an_orbit_wrap_around_and_hold_both_ways_round():
    some = draws(config(rule="co3d"), clip(24), 2000)
    assert {draw.context[0] for draw in some} == set(range(24))
    assert {(draw.target[0] - draw.context[0]) % 24 for draw in some} == set(range(10, 15))
    ahead = np.mean([draw.target[0] > draw.context[0] for draw in some])
    assert ahead == pytest.approx(0.5, abs=0.05)  # four standard deviations of a share of 2000 draws


def test_context_counts_of_an_orbit_are_equally_frequent():
    counts = np.bincount([len(draw.context) for draw in draws(config(rule="co3d"), clip(60), 3000)])
    np.testing.assert_allclose(counts[1:] / 3000, 1 / 3, atol=0.04)  # four standard deviations of a share of 3000 draws


def test_toy_shows_the_front_and_asks_for_the_back():
    poses = toy_ring()
    azimuth = np.append(0, np.arange(0, 360, 10) + 5)
    from_front = np.minimum(azimuth, 360 - azimuth)
    some = draws(config(rule="toy", max_context=1), poses, 3000)
    assert all(list(draw.context) == [0] for draw in some)
    assert {draw.target[0] for draw in some} == set(np.flatnonzero(from_front >= 120))
    novel_in_front = np.mean([from_front[draw.target[1]] <= 60 for draw in some])
    # 3/8 on purpose, and of the other 5/8 the front's share of what is left beside the target
    assert novel_in_front == pytest.approx(3 / 8 + 5 / 8 * 12 / 35, abs=0.03)
    assert {draw.target[1] for draw in some} == set(range(1, 37))


@pytest.mark.parametrize("rule", POSES)
def test_the_given_view_is_asked_for_again_as_often_as_the_config_says(rule):
    often = config(rule=rule, context_as_target_probability=0.3)
    some = draws(often, POSES[rule], 3000)
    # Three and a half standard deviations of a share of 3000 draws.
    assert np.mean([draw.target[-1] == draw.context[0] for draw in some]) == pytest.approx(0.3, abs=0.03)
    assert all(draw.target[0] not in draw.context for draw in some)
    rng = np.random.default_rng(0)
    shown = [
        view_sampling.sample_views(rng, Frames.without_holes(POSES[rule]), often, evaluation=True) for _ in range(50)
    ]
    assert not any(frame in draw.context for draw in shown for frame in draw.target)


def shuffled_ring():
    order = np.random.default_rng(1).permutation(36)
    return order, toy_scenes.orbit_pose(np.deg2rad(10.0 * order))


def steps_apart(a, b):
    return np.minimum((a - b) % 36, (b - a) % 36)


def test_neighbours_are_the_nearest_by_pose_whatever_their_order():
    order, poses = shuffled_ring()
    for frame in range(36):
        near = view_sampling.neighbours(poses, frame)
        apart = steps_apart(order[near], order[frame])
        assert sorted(near) == sorted(set(range(36)) - {frame}) and (np.diff(apart) >= 0).all()
    turned = np.tile(np.eye(4), (3, 1, 1))  # cameras at one place differ by where they look
    turned[1:, :3, :3] = [toy_scenes.orbit_pose(angle)[:3, :3] for angle in (0.0, 3.0)]
    assert view_sampling.neighbours(turned @ np.linalg.inv(turned[1]), 1).tolist()[0] in (0, 2)


def test_views_of_a_capture_are_neighbours_by_pose():
    order, poses = shuffled_ring()
    some = draws(config(rule="captures", min_frame_gap=3, max_frame_gap=8), poses, 1500)
    apart = [steps_apart(order[draw.context[0]], order[draw.target[0]]) for draw in some]
    assert set(apart) == {2, 3, 4}  # the third to the eighth neighbour of a ring
    for draw in some:
        others = np.append(draw.context[1:], draw.target[1:])
        assert (steps_apart(order[others], order[draw.target[0]]) <= 4).all()
    assert {draw.target[0] for draw in some} == set(range(36))


def test_comparison_takes_context_from_what_is_known_and_novel_views_from_what_is_not():
    order, poses = shuffled_ring()
    held_out = np.isin(np.arange(36), [3, 10, 20])
    settings = config(rule="captures", min_frame_gap=3, max_frame_gap=8, min_context=2, num_target=3)
    drawn = [view_sampling.views_for_comparison(poses, held_out, 10, turn, settings) for turn in range(33)]
    assert all(set(draw.target) == {3, 10, 20} and draw.target[0] == 10 for draw in drawn)
    assert all(len(draw.context) == 2 and not held_out[draw.context].any() for draw in drawn)
    assert len({draw.context[0] for draw in drawn}) == 33
    assert steps_apart(order[drawn[0].context[0]], order[10]) in (2, 3, 4)


@pytest.mark.parametrize(("rule", "middle"), [("realestate10k", 14), ("co3d", 14)])
def test_evaluation_takes_the_middle_gap_and_the_fewest_context_views(rule, middle):
    for draw in draws(config(rule=rule), clip(60), 100, evaluation=True):
        assert len(draw.context) == 1
        assert abs(draw.target[0] - draw.context[0]) in (middle, 60 - middle)


def test_an_unknown_rule_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match="realestate10k, co3d, toy, captures, video, not 'kitti'"):
        view_sampling.sample_views(np.random.default_rng(0), Frames.without_holes(clip(60)), config(rule="kitti"))


def test_settings_name_every_rule():
    assert tuple(view_sampling.RULES) == VIEW_RULES


def test_a_video_runs_forwards():
    ways = lambda rule: {bool(d.target[0] > d.context[0]) for d in draws(config(rule=rule), clip(60), 40)}
    assert ways("video") == {True} and ways("realestate10k") == {True, False}


# --- holes


@pytest.mark.parametrize("rule", ["realestate10k", "co3d"])
@pytest.mark.parametrize("gap", [(1, 2), (3, 4)])
def test_gaps_count_holes_whatever_is_missing(rule, gap):
    """Over all sets of frames of a scene of 7: what is drawn is there and as far apart in the source as it may be, and
    a scene counts as usable exactly if there are such frames."""
    settings = config(rule=rule, min_frame_gap=gap[0], max_frame_gap=gap[1], max_context=2, num_target=1)
    for there in itertools.chain.from_iterable(itertools.combinations(range(7), k) for k in range(1, 8)):
        apart = {(a, b): (b - a) % 7 if rule == "co3d" else abs(b - a) for a, b in itertools.permutations(there, 2)}
        allowed = {pair for pair, gaps in apart.items() if gaps in gap or (rule == "co3d" and 7 - gaps in gap)}
        if rule == "co3d":  # and as far or farther the other way round
            allowed = {pair for pair in allowed if gap[0] <= apart[pair] <= 7 - gap[0]}
        positions = np.array(there)
        assert view_sampling.has_enough(positions, 7, settings) == bool(allowed)
        if not allowed:
            continue
        frames = Frames(clip(len(there)), positions, 7)
        for evaluation in (False, True):
            drawn = [
                view_sampling.sample_views(np.random.default_rng(i), frames, settings, evaluation) for i in range(8)
            ]
            pairs = {(there[draw.context[0]], there[draw.target[0]]) for draw in drawn}
            assert pairs <= allowed
            assert all(len({*draw.context, *draw.target}) == len(draw.context) + 1 for draw in drawn)


def test_without_holes_draws_are_those_of_earlier_versions():
    """Resumed runs see the same batches: each rule as it was when positions were all there was, draw for draw."""

    def clip_rule(rng, n, gap, context, target):
        distance = rng.integers(gap[0], min(gap[1], n - 1) + 1)
        low = rng.integers(n - distance)
        first, second = (low, low + distance) if rng.random() < 0.5 else (low + distance, low)
        count = rng.integers(context[0], min(context[1], n - target) + 1)
        rest = np.setdiff1d(np.arange(n), (first, second))
        outside = np.maximum(low - rest, rest - low - distance).clip(0)
        pool = rest[np.argsort(outside, kind="stable")][: max(count + target - 2, distance - 1)]
        return first, second, count, rng.choice(pool, count + target - 2, replace=False)

    def orbit_rule(rng, n, gap, context, target):
        distance = rng.integers(gap[0], min(gap[1], n - gap[0]) + 1)
        first = rng.integers(n)
        second = (first + (distance if rng.random() < 0.5 else -distance)) % n
        count = rng.integers(context[0], min(context[1], n - target) + 1)
        rest = np.setdiff1d(np.arange(n), (first, second))
        return first, second, count, rng.choice(rest, count + target - 2, replace=False)

    for rule, earlier in (("realestate10k", clip_rule), ("co3d", orbit_rule)):
        for n, gap in itertools.product((8, 13, 60), ((1, 1), (1, 4), (3, 40))):
            settings = config(rule=rule, min_frame_gap=gap[0], max_frame_gap=gap[1])
            for i, draw in enumerate(draws(settings, clip(n), 40)):
                first, second, count, others = earlier(np.random.default_rng(i), n, gap, (1, 3), 2)
                assert draw.context.tolist() == [first, *others[: count - 1]]
                assert draw.target.tolist() == [second, *others[count - 1 :]]
