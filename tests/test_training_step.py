"""The training step's laws, on linear regression: cheap, and its gradients are known."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dfm_jax.config import OptimizerConfig
from dfm_jax.runs.train_state import create
from dfm_jax.training.optimizers import clip_by_global_norm, learning_rate_schedule, make_optimizer
from dfm_jax.training.step import train_step, update_average

OPTIMIZER = OptimizerConfig(
    learning_rate=0.1,
    warmup_steps=2,
    decay_steps=8,
    b1=0.9,
    b2=0.99,
    clip_norm=1.0,
    ema_decay=0.9,
)


def noisy_regression(params, example, key):
    """Per-example noise is keyed by the example's index, as the real loss does it."""
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(example["index"])
    error = jnp.einsum("bc,c->b", example["x"], params["w"]) + params["b"] - example["y"] + 0.1 * noise
    return jnp.mean(error**2), {"absolute_error": jnp.mean(jnp.abs(error))}


def batch(n=8, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.float32([1, -2, 3]), "index": np.arange(n, dtype=np.int32)}


def new_state(tx):
    return create({"w": jnp.zeros(3), "b": jnp.zeros(())}, tx)


def make_step(tx, loss=noisy_regression, accumulate=1, ema_decay=0.9, ema_every=1):
    return partial(train_step, tx=tx, loss=loss, accumulate=accumulate, ema_decay=ema_decay, ema_every=ema_every)


def test_the_step_descends_and_counts():
    tx = make_optimizer(OPTIMIZER)
    state, step = new_state(tx), jax.jit(make_step(tx))
    losses = []
    for _ in range(10):
        state, metrics = step(state, batch(), jax.random.key(0))
        losses.append(float(metrics["loss"]))
    assert int(state.step) == 10
    assert losses[-1] < 0.7 * losses[0]
    assert bool(metrics["finite"])
    assert {"loss", "gradient_norm", "learning_rate", "finite", "absolute_error"} == set(metrics)


def test_accumulated_micro_batches_equal_the_whole_batch():
    tx = optax.sgd(0.1)
    whole, whole_metrics = make_step(tx)(new_state(tx), batch(), jax.random.key(3))
    for accumulate in (2, 4, 8):
        parts, metrics = make_step(tx, accumulate=accumulate)(new_state(tx), batch(), jax.random.key(3))
        for a, b in zip(jax.tree.leaves((whole, whole_metrics)), jax.tree.leaves((parts, metrics)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)


def test_clipping_is_optaxs_and_leaves_small_gradients_alone():
    gradients = {"a": jnp.array([3.0, 4.0]), "b": jnp.array([[12.0]])}  # norm 13
    for max_norm in (1.0, 12.9, 13.1):
        ours, theirs = (
            clip.update(gradients, clip.init(gradients))[0]
            for clip in (clip_by_global_norm(max_norm), optax.clip_by_global_norm(max_norm))
        )
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), ours, theirs)
    zero = jax.tree.map(jnp.zeros_like, gradients)
    jax.tree.map(np.testing.assert_array_equal, clip_by_global_norm(1.0).update(zero, optax.EmptyState())[0], zero)


def test_the_gradient_norm_is_reported_unclipped():
    tx = optax.chain(clip_by_global_norm(1.0), optax.sgd(1.0))
    state, metrics = make_step(tx)(new_state(tx), batch(), jax.random.key(0))
    moved = float(optax.tree.norm(jax.tree.map(jnp.subtract, state.params, new_state(tx).params)))
    assert float(metrics["gradient_norm"]) > 2
    assert moved == pytest.approx(1, rel=1e-5)


def test_each_step_has_its_own_randomness_and_repeats_exactly():
    tx = optax.sgd(0.0)
    step = jax.jit(make_step(tx))
    first, a = step(new_state(tx), batch(), jax.random.key(0))
    _, b = step(first, batch(), jax.random.key(0))
    _, again = step(new_state(tx), batch(), jax.random.key(0))
    assert float(a["loss"]) != float(b["loss"])
    assert float(a["loss"]) == float(again["loss"])


@pytest.mark.parametrize("where", ["loss", "gradients"])
def test_what_is_not_finite_is_flagged(where):
    def bad(params, example, key):
        value, metrics = noisy_regression(params, example, key)
        # sqrt at 0 has a finite value and an infinite slope.
        return (value * jnp.nan if where == "loss" else value + jnp.sqrt(params["b"])), metrics

    tx = make_optimizer(OPTIMIZER)
    _, metrics = make_step(tx, loss=bad)(new_state(tx), batch(), jax.random.key(0))
    assert not bool(metrics["finite"])
    assert bool(np.isfinite(metrics["loss"])) == (where == "gradients")


def test_the_average_starts_as_a_copy_ramps_up_and_moves_every_kth_step():
    tx = optax.sgd(0.1)
    state = new_state(tx)
    assert state.ema["w"] is not state.params["w"]
    step = make_step(tx, ema_decay=0.5, ema_every=2)
    first, _ = step(state, batch(), jax.random.key(0))
    np.testing.assert_array_equal(first.ema["w"], state.params["w"])
    second, _ = step(first, batch(), jax.random.key(0))
    decay = 2 / 11  # (1 + n) / (10 + n) at the first update
    np.testing.assert_allclose(second.ema["w"], (1 - decay) * second.params["w"], rtol=1e-5)
    late = update_average({"w": jnp.zeros(1)}, {"w": jnp.ones(1)}, jnp.int32(100), decay=0.5, every=2)
    np.testing.assert_allclose(late["w"], [0.5])


def test_a_first_moment_in_bfloat16_takes_half_the_memory_and_nearly_the_same_path():
    exact, rounded = (
        make_optimizer(dataclasses.replace(OPTIMIZER, first_moment_dtype=name)) for name in ("float32", "bfloat16")
    )
    states = [new_state(exact), new_state(rounded)]
    steps = [jax.jit(make_step(tx)) for tx in (exact, rounded)]
    for _ in range(6):
        states = [step(state, batch(), jax.random.key(0))[0] for step, state in zip(steps, states, strict=True)]
    first, second = (optax.tree.get(states[1].opt_state, name) for name in ("mu", "nu"))
    assert {x.dtype for x in jax.tree.leaves(first)} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves((second, states[1].params))} == {jnp.dtype("float32")}
    assert float(np.max(np.abs(states[0].params["w"] - states[1].params["w"]))) > 0
    # Bfloat16 has 8 bits: 0.004 in each of six steps.
    np.testing.assert_allclose(states[0].params["w"], states[1].params["w"], rtol=0.02)


def test_learning_rate_warms_up_then_falls_along_half_a_cosine():
    rates = np.array([learning_rate_schedule(OPTIMIZER)(n) for n in range(14)])
    np.testing.assert_allclose(rates[:3], [0, 0.05, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates[6], 0.05, rtol=1e-5)
    np.testing.assert_allclose(rates[10:], 0, atol=1e-8)


def test_the_reported_learning_rate_is_the_one_that_was_used():
    tx = make_optimizer(OPTIMIZER)
    state = new_state(tx)
    for n in range(4):
        state, metrics = make_step(tx)(state, batch(), jax.random.key(0))
        assert float(metrics["learning_rate"]) == pytest.approx(float(learning_rate_schedule(OPTIMIZER)(n)))
