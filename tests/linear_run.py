"""A linear model and made-up batches, for the loop around the step."""

import importlib.util
import pathlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfm_jax.config.reading import from_dict
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.runs.train_state import create
from dfm_jax.training import loop
from dfm_jax.training.optimizers import make_optimizer
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


def linear_job(config):
    tx = make_optimizer(config.train.optimizer)

    def loss(params, example, key):
        noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(example["index"])
        return jnp.mean((example["x"] @ params["w"] - 1 + noise) ** 2), {"noise": jnp.mean(noise)}

    return loop.Job(
        init=lambda key: create({"w": jax.random.normal(key, (3,))}, tx),
        step=partial(train_step, tx=tx, loss=loss, accumulate=1, ema_decay=0.9, ema_every=1),
        preview=lambda params, example, key: np.full((2, 2, 3), 7, np.uint8),
    )


def install(monkeypatch):
    """Puts the linear job in place of the real one; returns what to do at which batch, to be filled in."""
    at = {}
    monkeypatch.setattr(loop, "build", linear_job)
    monkeypatch.setattr(loop, "_prepare_data", lambda config, _: (config, dict(SPLIT)))
    monkeypatch.setattr(loop.pipeline, "training_batches", lambda *_, start_step, **__: Batches(start_step, at))
    monkeypatch.setattr(loop.pipeline, "evaluation_examples", lambda *_, **__: ("examples", ["a scene"]))
    monkeypatch.setattr(loop.pipeline, "scene_names", lambda *_, step, **__: [f"scene of batch {step}"])
    return at


def settings(**train):
    spec = importlib.util.spec_from_file_location("toy", ROOT / "configs" / "toy.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config("tiny")
    config.train.update(num_steps=6, batch_size=4, checkpoint_every=2, log_every=2, sample_every=0)
    config.train.update(train)
    config.train.optimizer.warmup_steps = 0
    return from_dict(config)


def parameters(workdir):
    return np.asarray(restore_params(workdir, which="params")[0]["w"])


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
