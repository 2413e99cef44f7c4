"""A hook on what layers return, through which whoever compiles a model says where it lies."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
from flax import linen as nn
from jax import Array


@contextlib.contextmanager
def placed(place: Callable[[Array], Array]) -> Iterator[None]:
    """While a model is traced in this context, every array that one of its layers returns passes through `place`.

    A compiler that is told nothing may split layers instead of examples, and send activations between devices.
    """

    def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        result = call(*args, **kwargs)
        return place(result) if context.method_name == "__call__" and isinstance(result, jax.Array) else result

    with nn.intercept_methods(intercept):
        yield
