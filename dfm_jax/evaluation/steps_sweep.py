"""The earlier name of `python -m dfm_jax.studies.steps_sweep`."""

from dfm_jax.renamed import run_as

if __name__ == "__main__":
    run_as("dfm_jax.evaluation.steps_sweep", "dfm_jax.studies.steps_sweep")
