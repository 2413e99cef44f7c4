"""An earlier name of `python -m dfm_jax.studies.compare`."""

from dfm_jax.renamed import answer

if __name__ == "__main__":
    answer("dfm_jax.evaluation.compare_evaluations", "dfm_jax.studies.compare", "--out=DIR NAME=WORKDIR NAME=WORKDIR")
