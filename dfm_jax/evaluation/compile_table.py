"""The earlier name of `python -m dfm_jax.profiling.compile_table`, which scripts may use."""

import runpy
import sys

NOW = "dfm_jax.profiling.compile_table"

if __name__ == "__main__":
    print(f"dfm_jax.evaluation.compile_table is {NOW} now", file=sys.stderr)
    runpy.run_module(NOW, run_name="__main__", alter_sys=True)
