"""Parameters of a model's shapes, for measuring: no checkpoint is needed."""

import math

import jax
from jax import Array

from dfm_jax.forward_models.protocol import ForwardModel, Params, parameter_shapes

BIAS = 0.1


def synthetic_parameters(model: ForwardModel, key: Array) -> Params:
    """A model's parameters of ordinary size, none of them zero; to be compiled.

    New ones will not do: their closed gates multiply by zeros, which takes some devices less power and so less time.
    Nor would drawing each on its own: all are cut from the same random numbers, which compiles in a moment.
    """
    shapes = parameter_shapes(model)
    largest = max(x.size for x in jax.tree.leaves(shapes))
    noise = jax.random.uniform(key, (largest,), minval=-(3**0.5), maxval=3**0.5)  # of variance 1

    def cut(path: tuple, leaf: jax.ShapeDtypeStruct) -> Array:
        is_kernel = jax.tree_util.keystr(path[-1:], simple=True) == "kernel"
        # A stack of blocks, or of attention heads, is no part of what a column sums over: good enough for all of them.
        scale = 1 / math.sqrt(math.prod(leaf.shape[-4:-1])) if is_kernel else BIAS
        return (scale * noise[: leaf.size]).reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(cut, shapes)
