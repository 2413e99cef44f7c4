"""Frozen parameters: part of the training state without gradient, moments or average; saved, and taken along."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.train_state import create
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.setup import TrainSetup
from dfm_jax.training.step import train_step
from tests.linear_run import settings, train

FROZEN = ("scale",)


def frozen_setup(config) -> TrainSetup:
    """A linear model behind a scale that nobody trains, which is another with each key."""
    tx = make_optimizer(config.train.optimizer)

    def loss(params, example, key):
        return jnp.mean((example["x"] @ params["w"]["kernel"] * params["scale"]["by"] - 1) ** 2), {}

    def init(key):
        params = {"scale": {"by": 1 + jax.random.uniform(key)}, "w": {"kernel": jnp.ones(3)}}
        return create(params, tx, FROZEN)

    step = partial(train_step, tx=tx, loss=loss, accumulate=2, ema_decay=0.9, ema_every=1)
    return TrainSetup(init=init, step=step, preview=lambda *_: np.zeros((2, 2, 3), np.uint8))


def test_frozen_parameters_are_used_kept_and_saved_but_not_trained(tmp_path):
    config = settings()
    train(config, tmp_path / "whole", make_setup=frozen_setup)
    for num_steps in (2, 6):
        train(settings(num_steps=num_steps), tmp_path / "parts", make_setup=frozen_setup)
    params, averaged = (restore_params(tmp_path / "whole", which=which)[0] for which in ("params", "ema"))
    jax.tree.map(np.testing.assert_array_equal, params, restore_params(tmp_path / "parts", which="params")[0])
    init_key = jax.random.split(jax.random.key(config.seed), 3)[0]
    began = frozen_setup(config).init(init_key)
    for each in (params, averaged):
        assert each.keys() == {"scale", "w"}
        np.testing.assert_array_equal(each["scale"]["by"], began.model_params["scale"]["by"])
    assert not np.allclose(params["w"]["kernel"], 1) and not np.allclose(params["w"]["kernel"], averaged["w"]["kernel"])
    with Checkpoints(tmp_path / "whole") as checkpoints:
        shapes = {item: checkpoints.shapes(6, item) for item in ("params", "opt_state", "ema", "frozen")}
    assert shapes["params"].keys() == shapes["ema"].keys() == {"w"} and shapes["frozen"].keys() == {"scale"}
    assert "scale" not in str(jax.tree_util.tree_leaves_with_path(shapes["opt_state"]))


def test_the_gradient_is_that_of_the_trained_ones():
    """Twice the scale, four times the gradient's slope: the loss sees the frozen parameters of the state."""
    config = settings()
    setup = frozen_setup(config)
    state, example = (
        setup.init(jax.random.key(0)),
        {"x": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], "index": np.arange(4)},
    )
    step = jax.jit(setup.step)
    for by in (0.0, 2.0):
        frozen = state.replace(frozen={"scale": {"by": jnp.float32(by)}})
        after, metrics = step(frozen, example, jax.random.key(1))
        # Of mean (by - 1)^2 for weights of one, in the weights [2, 1, 1] / 4.
        np.testing.assert_allclose(metrics["loss"], (by - 1) ** 2)
        expected = np.linalg.norm(2 * by * (by - 1) * np.array([0.5, 0.25, 0.25]))
        np.testing.assert_allclose(metrics["gradient_norm"], expected, rtol=1e-6)
        np.testing.assert_array_equal(after.frozen["scale"]["by"], by)


def test_a_run_that_starts_from_another_takes_its_frozen_parameters_along(tmp_path):
    train(settings(), tmp_path / "first", make_setup=frozen_setup)
    first, _, _ = restore_params(tmp_path / "first")
    for num_steps in (2, 6):  # what goes on takes those of its checkpoint, which are not those of a new state
        config = dataclasses.replace(settings(num_steps=num_steps), seed=5, init_from=str(tmp_path / "first"))
        train(config, tmp_path / "second", make_setup=frozen_setup)
    second, _, _ = restore_params(tmp_path / "second")
    np.testing.assert_array_equal(second["scale"]["by"], first["scale"]["by"])
    assert not np.array_equal(second["w"]["kernel"], first["w"]["kernel"])
