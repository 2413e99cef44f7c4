"""What every test runs under: the CPU, no silent broadcasting between ranks, compilations kept between runs."""

import os
import pathlib

# Before jax is imported anywhere. The tests compare numbers: an accelerator's are tried only when asked for by name.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

_COMPILATION_CACHE = pathlib.Path(__file__).resolve().parents[1] / ".jax_cache"

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(_COMPILATION_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
