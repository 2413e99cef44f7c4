"""The earlier name of `python -m dfm_jax.studies.guidance_sweep`."""

from dfm_jax.renamed import run_as

if __name__ == "__main__":
    run_as("dfm_jax.evaluation.guidance_sweep", "dfm_jax.studies.guidance_sweep")
