"""The pages that `python -m dfm_jax.data.inspect` writes."""
