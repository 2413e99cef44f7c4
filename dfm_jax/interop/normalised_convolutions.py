"""Convolutions with batch normalisation behind them, from state dicts of torch: checked, and folded into one."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.interop.imagenet import fold_batch_norm

BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
EPSILON = 1e-3  # of the networks that Google trained, and their ports
LISTED = 10  # problems that an error lists; a wrong file has hundreds

Params = dict[str, dict[str, np.ndarray]]
Shape = tuple[int, ...]


def folded(
    state: Mapping[str, np.ndarray],
    needed: Mapping[str, Mapping[str, Any]],
    convolution: str,
    others: Mapping[str, Shape | None],
    unused: str,
    is_not: str,
) -> Params:
    """Kernels [..., in, out] and biases, float32, by the names of `needed`.

    Args:
      needed: {convolution: {'kernel': something with a shape}}, each with batch normalisation.
      convolution: how it is called in its layer: 'conv' of 'Mixed_5b.branch1x1.conv.weight', beside 'bn'.
      others: arrays that must be there as well, and their shapes; None: of any.
      unused: regular expression of names that may be there, too.
      is_not: how the error begins: 'x.pt does not hold the weights of ...'.

    Raises:
      UserError: arrays are missing, not expected, not finite, or of other shapes.
    """
    wanted: dict[str, Shape | None] = dict(others)
    for layer, leaves in needed.items():
        *sides, inputs, outputs = leaves["kernel"].shape
        wanted[f"{layer}.{convolution}.weight"] = (outputs, inputs, *sides)
        wanted |= {f"{layer}.bn.{part}": (outputs,) for part in BATCH_NORM}
    problems = [f"missing: {name}" for name in sorted(wanted.keys() - state.keys())]
    problems += [f"unexpected: {name}" for name in state if name not in wanted and not re.fullmatch(unused, name)]
    problems += [f"not finite: {name}" for name in wanted.keys() & state.keys() if not np.isfinite(state[name]).all()]
    if not problems:
        shapes = {name: shape for name, shape in wanted.items() if shape is not None and state[name].shape != shape}
        problems = [f"{name} is {state[name].shape}, not {shape}" for name, shape in shapes.items()]
    if problems:
        more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
        lines = "\n  ".join(problems[:LISTED] + more)
        raise UserError(f"{is_not}:\n  {lines}")
    return {layer: _folded(state, layer, convolution) for layer in needed}


def channels_last(kernel: np.ndarray) -> np.ndarray:
    """[out, in, ...] to [..., in, out], float32."""
    return np.moveaxis(kernel, (0, 1), (-1, -2)).astype(np.float32)


def not_weights(path: str | Path, what: str) -> str:
    return f"{path} does not hold the weights of {what}"


def _folded(state: Mapping[str, np.ndarray], layer: str, convolution: str) -> dict[str, np.ndarray]:
    vectors = (np.asarray(state[f"{layer}.bn.{part}"], np.float64) for part in BATCH_NORM)
    weights = np.asarray(state[f"{layer}.{convolution}.weight"], np.float64)
    kernel, bias = fold_batch_norm(weights, *vectors, epsilon=EPSILON)
    return {"kernel": channels_last(kernel), "bias": bias.astype(np.float32)}
