"""Diffusion with Forward Models in JAX."""

import sys

# Python is about to run a module of this package as a command: argv has its path once that is found.
if sys.argv[:1] == ["-m"] and any(word.startswith(f"{__name__}.") for word in sys.orig_argv):
    from dfm_jax import interrupts

    interrupts.end_commands_in_one_line()
