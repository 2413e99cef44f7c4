"""The earlier name of `python -m dfm_jax.studies.compare_evaluations`."""

from dfm_jax.renamed import run_as

if __name__ == "__main__":
    run_as("dfm_jax.evaluation.compare_evaluations", "dfm_jax.studies.compare_evaluations")
