"""Laws of motion fields: warping along them, and what is known of procedural things that move."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dfm_jax.config.command_line import read_config
from dfm_jax.errors import UserError
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.motion import flow_colours, moving, splatting
from dfm_jax.forward_models.motion.model import Motion
from dfm_jax.forward_models.motion.moving_model import MovingModel, Pair
from dfm_jax.profiling.synthetic import synthetic_example
from tests.forward_model_cases import ROOT, config_of, random_params
from tests.tiny import jit

SIZE = 8
splat, look_up, warp = jit(splatting.splat), jit(splatting.look_up), jit(splatting.warp)
displacement = jit(splatting.displacement, static_argnums=2)


def random(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def everywhere(x: float, y: float) -> jax.Array:
    return jnp.tile(jnp.float32([x, y]), (1, SIZE, SIZE, 1))


def small_flow() -> jax.Array:
    """By less than a pixel, and not at the border."""
    inside = jnp.pad(jnp.ones((1, SIZE - 2, SIZE - 2, 1)), ((0, 0), (1, 1), (1, 1), (0, 0)))
    return 0.9 * inside * jnp.tanh(random(1, SIZE, SIZE, 2))


@pytest.fixture(scope="module")
def model() -> MovingModel:
    return MovingModel.from_config(config_of("motion"))


@pytest.fixture(scope="module")
def example(model) -> Pair:
    return model.generate(0, np.arange(12), held_out=True)


def true_motion(example: Pair) -> Motion:
    """The signal behind examples, as one sample of each: leaves [s, 1, ...]."""
    appearance = np.zeros_like(example.frame)
    opaque = np.ones_like(example.truth.thing)
    motion = Motion(example.frame, example.truth.flow, 6 * example.truth.thing, opaque, appearance)
    return jax.tree.map(lambda x: jnp.asarray(x)[:, None], motion)


def test_a_shift_by_whole_pixels_is_that_of_numpy_inside():
    image = random(1, SIZE, SIZE, 3)
    shifted = splat(image, everywhere(2, -1))
    expected = np.roll(image, (-1, 2), axis=(1, 2))
    np.testing.assert_allclose(shifted[:, :-1, 2:], expected[:, :-1, 2:], atol=1e-6)
    assert not np.any(shifted[:, -1]) and not np.any(shifted[:, :, :2])  # nothing arrives there


def test_weights_are_conserved_where_nothing_leaves_the_image():
    values = random(1, SIZE, SIZE, 2, seed=1)
    summed = splat(values, small_flow()).sum((1, 2))
    np.testing.assert_allclose(summed, values.sum((1, 2)), atol=1e-4)  # 64 numbers, summed in another order


def test_looking_up_is_the_transpose_of_splatting():
    flow, a, b = small_flow(), random(1, SIZE, SIZE, 1, seed=1), random(1, SIZE, SIZE, 1, seed=2)
    places = flow + np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), axis=-1)[None]
    there, back = jnp.sum(splat(a, flow) * b), jnp.sum(a * look_up(b, places))
    np.testing.assert_allclose(there, back, rtol=1e-4)  # 64 products, summed in another order


def test_gradients_of_a_warp_are_finite_differences():
    image, importance, wanted = random(1, 4, 4, 3), random(1, 4, 4, seed=1), random(1, 4, 4, 3, seed=2)
    flow = 0.5 + 0.4 * jnp.tanh(random(1, 4, 4, 2, seed=3))  # between pixels, where kernels have no kink

    directions = random(1, 4, 4, 2, seed=4), random(1, 4, 4, seed=5)

    @jit
    def error_and_slope(step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of the warp after a step along the directions, and its derivative by the step."""

        def error(step: jax.Array) -> jax.Array:
            moved = (x + step * along for x, along in zip((flow, importance), directions, strict=True))
            return jnp.sum(jnp.square(splatting.warp(image, *moved)[0] - wanted))

        return jax.value_and_grad(error)(step)

    (below, _), (_, slope), (above, _) = map(error_and_slope, (-1e-2, 0.0, 1e-2))
    np.testing.assert_allclose(slope, (above - below) / 2e-2, rtol=1e-2)  # so wide a step, in single precision


def test_of_two_that_arrive_at_one_place_the_more_important_is_seen():
    image = jnp.zeros((1, SIZE, SIZE, 1)).at[0, 3, 2].set(1.0).at[0, 3, 5].set(-1.0)
    flow = everywhere(0, 0).at[0, 3, 2, 0].set(3.0)  # arrives where the other one stays
    of_mover = lambda more: jnp.zeros((1, SIZE, SIZE)).at[0, 3, 2].set(more)
    seen = [float(warp(image, flow, of_mover(more))[0][0, 3, 5, 0]) for more in (0.0, 2.0, 20.0)]
    np.testing.assert_allclose(seen[0], 0, atol=1e-6)
    assert seen[0] < seen[1] < seen[2] and seen[2] > 1 - 1e-6
    shares = splatting.visibility(flow, of_mover(np.log(3.0)))[0]
    np.testing.assert_allclose([shares[3, 2], shares[3, 5], shares[1, 1]], [0.75, 0.25, 1], atol=1e-6)


def test_nothing_moves_without_a_flow_and_appearance_fills_what_nothing_arrives_at(model):
    frame, appearance = jnp.tanh(random(1, SIZE, SIZE, 3)), jnp.full((1, SIZE, SIZE, 3), 0.25)
    importance, observe = jnp.abs(random(1, SIZE, SIZE)), jit(model.observe)
    still = Motion(frame, everywhere(0, 0), importance, jnp.ones_like(importance), appearance)
    np.testing.assert_allclose(observe({}, still, jnp.ones(1)).rgb, frame, atol=1e-6)
    np.testing.assert_allclose(observe({}, still.replace(flow=everywhere(3, 1)), jnp.zeros(1)).rgb, frame, atol=1e-6)
    gone = observe({}, still.replace(flow=everywhere(3, 0)), jnp.ones(1))
    np.testing.assert_allclose(gone.rgb[:, :, :3], 0.25, atol=1e-6)
    np.testing.assert_allclose(gone.rgb[:, :, 3:], frame[:, :, :-3], atol=1e-6)


def test_times_add_up_where_all_moves_alike():
    flow, image = everywhere(1, -1), random(1, SIZE, SIZE, 3)
    moved = lambda time, steps=0: displacement(flow, jnp.array([time]), steps)
    np.testing.assert_allclose(moved(2.0) + moved(0.5), moved(2.5), atol=1e-6)
    np.testing.assert_allclose(moved(2.5, steps=5), moved(2.5), atol=1e-5)
    twice = splat(splat(image, moved(1.0)), moved(2.0))
    np.testing.assert_allclose(twice, splat(image, moved(3.0)), atol=1e-6)


def test_pixels_drift_around_the_centre_of_a_whirl():
    """Euler's method is of first order: half as long steps, half the error."""
    centred = np.stack(np.meshgrid(np.arange(17), np.arange(17)), axis=-1)[None].astype(np.float32) - 8
    turn = lambda angle: np.float32([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    whirl, wanted = jnp.asarray(centred @ turn(np.pi / 2).T), centred @ turn(1.0).T - centred
    inside = np.linalg.norm(centred, axis=-1) < 4
    moved = [np.asarray(displacement(whirl, jnp.ones(1), steps)) for steps in (20, 40)]
    errors = [np.abs(each - wanted)[inside].max() for each in moved]
    assert errors[1] < 0.15 and 1.8 < errors[0] / errors[1] < 2.2


def test_the_true_flow_carries_things_to_where_they_are_later(model, example):
    seen = jit(model.observe)({}, jax.tree.map(lambda x: x[:, 0], true_motion(example)), jnp.ones(12))
    error = np.abs(seen.rgb - example.later).mean(-1)
    still = np.abs(example.frame - example.later).mean(-1)
    inside = seen.coverage > 0.99  # and not what was hidden
    assert error[inside].mean() < 0.4 * still[inside].mean()  # what is left are borders of things, between two pixels


def test_a_true_signal_has_no_error_and_a_known_direction(model, example):
    truth = true_motion(example)
    found = model.signal_errors({}, example, truth)
    np.testing.assert_array_equal(found["endpoint_error"], 0)
    things = moving.make_things(0, np.arange(12), model.size, held_out=True)
    np.testing.assert_array_equal(model.read_values({}, example, truth)[:, 0], things.direction)
    mean = truth.replace(flow=jnp.broadcast_to(4 * jnp.float32(moving.ODDS @ moving.HEADINGS), truth.flow.shape))
    assert np.all(model.read_values({}, example, mean) == -1)  # the mean of all directions is none
    worse = model.signal_errors({}, example, mean)
    assert np.all(worse["endpoint_error_of_thing"] > 2) and np.all(worse["warped_error_at_1"] > 0)


def test_directions_follow_their_odds_and_do_not_show():
    things = moving.make_things(0, np.arange(2000), 20)
    shares = np.bincount(things.direction) / 2000
    np.testing.assert_allclose(shares, moving.ODDS, atol=0.05)  # four standard deviations
    seen = [x.reshape(2000, -1) for x in (things.centre, things.texture, things.ground)]
    for shown in (x / x.std(0) for x in seen):
        of_each = [shown[things.direction == i].mean(0) for i in range(3)]
        # Standard errors of means over 400 numbers or more that spread by 1: five of them.
        np.testing.assert_allclose(of_each, np.tile(shown.mean(0), (3, 1)), atol=0.25)


def test_training_never_sees_the_truth(model, example):
    shown = model.generate(0, np.arange(4))
    assert not any(np.any(x) for x in jax.tree.leaves(shown.truth)) and np.any(example.truth.flow)


def test_a_regression_on_frames_of_a_data_set_sees_the_context_alone():
    config = read_config(str(ROOT / "configs" / "motion.py:frames,regression,tiny"), ["--config.image_size=8"])
    model, example = make_model(config), synthetic_example(config, 2)
    earlier, later = model.frames(example)
    np.testing.assert_allclose(earlier, 2 * example.context.images[:, 0] - 1, atol=1e-6)
    np.testing.assert_allclose(later, 2 * example.target.images[:, 0] - 1, atol=1e-6)

    @jit
    def flow(frame: jax.Array, x_t: jax.Array) -> jax.Array:
        return model.infer(params, frame, x_t, jnp.array([3, 900])).signal.flow

    params = random_params(model)
    np.testing.assert_array_equal(flow(earlier, later), flow(earlier, 0 * later))
    dropped = model.frames(model.drop_context(example, jnp.array([True, False])))[0]
    differ = np.abs(flow(earlier, later) - flow(dropped, later)).max((1, 2, 3))
    assert differ[0] > 0.01 and differ[1] == 0


def test_colours_of_a_flow_tell_directions_and_speeds():
    right, left, still = ([1.0, 0.0], [-1.0, 0.0], [0.0, 0.0])
    shown = flow_colours.colours(np.array([[right, left, still, [0.5, 0.0]]]))
    np.testing.assert_allclose(shown[0, 2], 1)  # white
    assert shown[0, 0].argmax() == 0 and shown[0, 1].argmin() == 0  # red and cyan
    np.testing.assert_allclose(shown[0, 3], 0.5 + 0.5 * shown[0, 0])  # half as saturated


@pytest.mark.parametrize(
    ("variant", "override", "told"),
    [
        ("tiny", "loss.estimate=1", "loss.estimate must be 0 with model.name='motion', which has no such term"),
        ("regression", "sample.guidance=3", "sample.guidance must be 1.0 with model.deterministic"),
        ("frames", "data.view_sampling.num_target=2", "max_context and num_target must be 1: motion is of pairs"),
    ],
)
def test_what_would_be_ignored_is_refused(variant, override, told):
    with pytest.raises(UserError, match=re.escape(told)):
        read_config(str(ROOT / "configs" / f"motion.py:{variant}"), [f"--config.{override}"])


def test_a_regression_on_frames_evaluates_as_many_scenes_as_frames_do():
    config = read_config(str(ROOT / "configs" / "motion.py:frames,regression"), [])
    assert config.evaluate.num_scenes == 6 and config.data.split != config.data.eval_split
