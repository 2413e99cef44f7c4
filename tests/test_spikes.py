"""Steps with spikes of the gradient norm are left out and counted, where the config says so."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dfm_jax.runs.train_state import create
from dfm_jax.training import loop
from dfm_jax.training.optimizers import MEAN_OVER, MOST_IN_A_ROW, skip_spikes
from dfm_jax.training.step import train_step
from tests.linear_run import parameters, settings, train
from tests.tiny import jit

FACTOR = 4.0


def loss(params, example, key):
    del key
    return jnp.sum(params["w"] * jnp.mean(example, axis=0)), {}


TX = skip_spikes(optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01)), FACTOR)
step = jit(partial(train_step, key=jax.random.key(0), tx=TX, loss=loss, accumulate=1, ema_decay=0.9, ema_every=1))


def gradient(norm):
    """A batch whose gradient has this norm."""
    return jnp.full((2, 4), norm / 2)


@pytest.fixture(scope="module")
def settled():
    """A state that has seen enough gradients of norm 1."""
    state = create({"w": jnp.ones(4)}, TX)
    for _ in range(MEAN_OVER):
        state, metrics = step(state, gradient(1.0))
        assert not metrics["skipped"]
    return state


def test_a_spike_leaves_all_but_the_step_as_it_was(settled):
    after, metrics = step(settled, gradient(FACTOR * 1.01))
    assert metrics["skipped"] and metrics["finite"]
    assert after.step == settled.step + 1
    for old, new in ((settled.params, after.params), (settled.ema, after.ema)):
        jax.tree.map(np.testing.assert_array_equal, old, new)
    jax.tree.map(np.testing.assert_array_equal, settled.opt_state.inner, after.opt_state.inner)
    assert after.opt_state.mean_norm == settled.opt_state.mean_norm


def test_what_is_no_spike_is_an_ordinary_step(settled):
    after, metrics = step(settled, gradient(FACTOR * 0.99))
    assert not metrics["skipped"]
    inner = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.01))
    updates, _ = inner.update({"w": gradient(FACTOR * 0.99)[0]}, settled.opt_state.inner, settled.params)
    np.testing.assert_allclose(after.params["w"], settled.params["w"] + updates["w"], rtol=1e-6)
    assert 1 < after.opt_state.mean_norm < 1.1


def test_before_an_average_is_known_nothing_is_a_spike():
    state = create({"w": jnp.ones(4)}, TX)
    for norm in (1.0, 100.0):
        state, metrics = step(state, gradient(norm))
        assert not metrics["skipped"]


def test_what_lasts_is_no_spike(settled):
    state, skipped = settled, []
    for _ in range(MOST_IN_A_ROW + 1):
        state, metrics = step(state, gradient(100.0))
        skipped.append(bool(metrics["skipped"]))
    assert skipped == [True] * MOST_IN_A_ROW + [False]


def test_a_run_says_and_counts_what_it_leaves_out(tmp_path, capsys):
    at = {MEAN_OVER + 20: lambda: 1e6}
    optimizer = {"skip_spikes": 50.0, "learning_rate": 1e-3, "decay_steps": 1000}
    run = settings(num_steps=MEAN_OVER + 40, checkpoint_every=1000, log_every=20, optimizer=optimizer)
    assert train(run, tmp_path, at) == loop.EXIT_DONE
    errors = capsys.readouterr().err
    assert f"step {MEAN_OVER + 21} is left out: its gradient norm, " in errors
    assert f"scenes scene of batch {MEAN_OVER + 20}" in errors
    assert "; 1 steps left out for their gradients" in errors.splitlines()[-1]
    assert np.all(np.abs(parameters(tmp_path)) < 10)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["skipped"]] == [MEAN_OVER + 40]
