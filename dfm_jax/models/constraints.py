"""A hook on what layers return, through which whoever compiles a model constrains its sharding."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn
from jax import Array


@contextlib.contextmanager
def constrain_activations(constrain: Callable[[Array], Array]) -> Iterator[None]:
    """While a model is traced in this context, every array that one of its layers returns passes through `constrain`.

    A compiler that is told nothing may split layers instead of examples, and send activations between devices.
    """

    def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        return constrain(result) if context.method_name == "__call__" and isinstance(result, jax.Array) else result

    with nn.intercept_methods(intercept):
        yield
