"""A linear model and made-up batches, for the loop around the step."""

import dataclasses
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from configs import toy
from dfm_jax.config.reading import from_dict
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.train_state import create
from dfm_jax.training import loop
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.setup import TrainSetup
from dfm_jax.training.step import train_step

# What `fingerprints.of_split` says of the data set that batches are said to come from.
SPLIT = {"scenes": 12, "frames": 156, "holdout": 0, "index": "1234", "files": "5678"}
ROOT = pathlib.Path(__file__).resolve().parents[1]


class Batches:
    """Batch n depends on n alone; `at` maps batch numbers to something to do when they are read."""

    def __init__(self, start, at):
        self._next, self._at = start, at

    def __next__(self):
        n, self._next = self._next, self._next + 1
        scale = self._at.get(n, lambda: 1.0)()
        x = np.random.default_rng(n).normal(size=(4, 3)).astype(np.float32)
        return {"x": x * np.float32(scale or 1), "index": np.arange(4, dtype=np.int32) + 4 * n}

    def close(self):
        pass


@dataclasses.dataclass
class LinearData:
    """A `TrainData`."""

    at: dict = dataclasses.field(default_factory=dict)
    fingerprint: dict = dataclasses.field(default_factory=lambda: dict(SPLIT))

    def batches(self, start_step):
        return Batches(start_step, self.at)

    def scene_names(self, step):
        return [f"scene of batch {step - 1}"]

    def evaluation_example(self, num_scenes):
        return "example"


def linear_setup(config):
    tx = make_optimizer(config.train.optimizer)

    def loss(params, example, key):
        noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(example["index"])
        return jnp.mean((example["x"] @ params["w"] - 1 + noise) ** 2), {"noise": jnp.mean(noise)}

    return TrainSetup(
        init=lambda key: create({"w": jax.random.normal(key, (3,))}, tx),
        step=partial(train_step, tx=tx, loss=loss, accumulate=1, ema_decay=0.9, ema_every=1),
        preview=lambda params, example, key: np.full((2, 2, 3), 7, np.uint8),
    )


def train(config, workdir, at=None, make_setup=linear_setup):
    """The real loop around the linear model; `at` maps batch numbers to something to do when they are read."""
    return loop.train(config, workdir, make_setup=make_setup, open_data=lambda _: LinearData(at or {}))


def settings(**train):
    config = toy.get_config("tiny")
    config.train.update(num_steps=6, batch_size=4, checkpoint_every=2, log_every=2, sample_every=0)
    config.train.update(train)
    config.train.optimizer.warmup_steps = 0
    return from_dict(config)


def parameters(workdir):
    return np.asarray(restore_params(workdir, which="params")[0]["w"])


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
