"""Diffusion with Forward Models in JAX."""

import sys

if sys.argv[:1] == ["-m"]:  # Python is about to run a module of this package as a command
    from dfm_jax import interrupts

    interrupts.end_commands_in_one_line()
