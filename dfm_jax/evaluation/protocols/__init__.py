"""Protocols of other people's evaluations: what each gives and asks for, and the numbers that were published with it.

python -m dfm_jax.evaluation.protocols list
"""
