"""The earlier name of `python -m dfm_jax.profiling.compile_table`."""

from dfm_jax.renamed import run_as

if __name__ == "__main__":
    run_as("dfm_jax.evaluation.compile_table", "dfm_jax.profiling.compile_table")
