"""What commands that tests start find imported already: what `dfm_jax.main` and its modes import, but not itself, whose
flags can be defined only once. Nothing here starts a device: each command has devices of its own."""

import gc

import absl.app  # noqa: F401
import ml_collections.config_flags  # noqa: F401

import dfm_jax.commands.evaluate
import dfm_jax.commands.sample
import dfm_jax.profiling.benchmark
import dfm_jax.runs.cluster
import dfm_jax.training.loop  # noqa: F401

# A forked process need not go through all this when it collects, which would copy it as well.
gc.collect()
gc.freeze()
gc.set_threshold(50_000, 10, 10)
