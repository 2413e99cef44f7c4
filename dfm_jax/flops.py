"""Floating-point operations of a computation, counted from the sizes of its matrix products and convolutions.

XLA's own count (`cost_analysis`) looks at the body of a loop once; here it counts as often as it runs. What is computed
again in a backward pass counts again, since it is executed again. Elementwise work is left out: in a model of this kind
it is a few per cent.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def count_flops(function: Callable, *arguments: Any) -> int:
    """Operations of one call, a multiplication and an addition counting as two; nothing is computed.

    Args:
      *arguments: arrays or their shapes (`ShapeDtypeStruct`).

    Raises:
      ValueError: for a loop whose number of rounds is not known before it runs.
    """
    return jaxpr_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def jaxpr_flops(jaxpr: Jaxpr) -> int:
    """The same of a function that is traced already."""
    return sum(map(_count_equation, jaxpr.eqns))


def _count_equation(equation: JaxprEqn) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        output_features = parameters["dimension_numbers"].rhs_spec[0]
        return 2 * _size(equation.outvars[0]) * math.prod(kernel) // kernel[output_features]
    inner = [jaxpr_flops(jaxpr) for jaxpr in _jaxprs(parameters)]
    if name == "while" and any(inner):
        raise ValueError("the operations of a while loop cannot be counted: how often it runs is not known")
    if name == "scan":
        return parameters["length"] * sum(inner)
    return max(inner) if name == "cond" else sum(inner)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _jaxprs(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    """Those of a loop's body, a condition's branches, a function that is called."""
    for value in parameters.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
