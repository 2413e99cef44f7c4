"""How exactly a model's products in float32 are computed (`model.matmul_precision`)."""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax

from dfm_jax.config.model import ForwardModelConfig


def exact_products(config: ForwardModelConfig) -> contextlib.AbstractContextManager:
    """The context in which to trace a model with these settings. ('default' leaves a setting of jax as it is.)"""
    exact = config.matmul_precision == "highest"
    return jax.default_matmul_precision("highest") if exact else contextlib.nullcontext()


def with_products(method: Callable) -> Callable:
    """A method of a model that has a `config`, traced in that context."""

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with exact_products(self.config):
            return method(self, *args, **kwargs)

    return call
