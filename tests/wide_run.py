"""A small model with arrays large enough to be split, trained by the real loop in one or several processes:

python -m tests.wide_run WORKDIR NUM_STEPS DATA FSDP [ADDRESS NUM_PROCESSES PROCESS_ID]
"""

import os
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from dfm_jax.runs import cluster, log
from dfm_jax.runs.train_state import create
from dfm_jax.training import loop
from dfm_jax.training.optimizers import make_optimizer
from dfm_jax.training.setup import TrainSetup
from dfm_jax.training.step import train_step
from tests.linear_run import LinearData, settings

BATCH, INPUTS, HIDDEN = 8, 64, 1024  # 64 x 1024 numbers are the fewest that are split


class Share:
    """A process's rows of batch n, which depends on n alone."""

    def __init__(self, start, index, count):
        self._next, self._index, self._count = start, index, count

    def __next__(self):
        n, self._next = self._next, self._next + 1
        rng, rows = np.random.default_rng(n), BATCH // self._count
        whole = {
            "x": rng.normal(size=(BATCH, INPUTS)).astype(np.float32),
            "y": rng.normal(size=BATCH).astype(np.float32),
            "index": np.arange(BATCH, dtype=np.int32) + BATCH * n,
        }
        return {name: x[self._index * rows : (self._index + 1) * rows] for name, x in whole.items()}

    def close(self):
        pass


class WideData(LinearData):
    def batches(self, start_step):
        return Share(start_step, jax.process_index(), jax.process_count())


def wide_setup(config):
    tx = make_optimizer(config.train.optimizer)

    def init(key):
        keys = jax.random.split(key)
        kernels = jax.random.normal(keys[0], (INPUTS, HIDDEN)) / 8, jax.random.normal(keys[1], (HIDDEN,)) / 32
        return create({"in": {"kernel": kernels[0]}, "out": {"kernel": kernels[1]}}, tx)

    def loss(params, example, key):
        noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i)))(example["index"])
        hidden = jnp.tanh(jnp.einsum("bc,cd->bd", example["x"], params["in"]["kernel"]))
        error = jnp.einsum("bd,d->b", hidden, params["out"]["kernel"]) - example["y"] + 0.1 * noise
        return jnp.mean(error**2), {}

    return TrainSetup(
        init=init,
        step=partial(train_step, tx=tx, loss=loss, accumulate=1, ema_decay=0.9, ema_every=1),
        preview=lambda params, example, key: np.full((2, 2, 3), jnp.sum(params["in"]["kernel"]) > 0, np.uint8),
    )


def run(workdir, num_steps, data, fsdp):
    """Trains; the pictures are sampled at the end."""
    optimizer = {"learning_rate": 1e-3, "decay_steps": 1000}
    config = settings(
        num_steps=num_steps,
        batch_size=BATCH,
        checkpoint_every=3,
        log_every=1,
        sample_every=num_steps,
        checkpoint_minutes=60.0,
        watchdog_minutes=2.0,
        mesh={"data": data, "fsdp": fsdp},
        optimizer=optimizer,
    )
    return loop.train(config, workdir, make_setup=wide_setup, open_data=lambda _: WideData())


if __name__ == "__main__":
    log.to_terminal()
    workdir, *numbers = sys.argv[1:5]
    if len(sys.argv) > 5:
        cluster.initialize(cluster.resolve(None, sys.argv[5], int(sys.argv[6]), int(sys.argv[7])))
    code = run(workdir, *map(int, numbers))
    sys.stdout.flush()
    sys.exit(code) if jax.process_count() == 1 else os._exit(code)
