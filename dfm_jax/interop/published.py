"""Published state dicts into our parameters and back, bit for bit.

`import_params` takes what the model reads, `leftovers` keeps what it does not, `export_state` puts both together again.
The three kinds of arrays are those of `published_names`.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.forward_models.protocol import Params, parameter_shapes
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.interop.published_names import (
    LABEL_EMBEDDING,
    LABELS,
    POSITION_CODE,
    TIME_BIAS,
    TO_OURS,
    TO_THEIRS,
    Rule,
    derived_arrays,
    published_shape,
    rules,
    taken_shapes,
    targets,
    unused_shapes,
)
from dfm_jax.interop.state_files import precision
from dfm_jax.models.dit import TOKEN_SIDE

State = Mapping[str, np.ndarray]


class StateDictError(UserError):
    """A state dict that is not the model's: names, shapes or numbers."""


def import_params(state: State, model: RadianceFieldModel) -> Params:
    """Our parameters (float32, numpy) from a published state dict.

    The embedding of the only label that the published model uses is added to the bias that it always meets.

    Raises:
      StateDictError: lists every missing, unexpected, ill-shaped or unusable array.
    """
    problems = _problems(state, model)
    if problems:
        raise StateDictError("the state dict is not that of this model:\n  " + "\n  ".join(problems))
    params = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), parameter_shapes(model))
    for rule in rules(model.config):
        fill(params, rule, state[rule.name])
    params["encoder"]["time_out"]["bias"][...] = _folded(state)
    return params


def fill(params: Params, rule: Rule, theirs: np.ndarray) -> list[str]:
    """Writes a published array into `params`; returns what is wrong with its shape."""
    parts = targets(params, rule)
    if theirs.shape != published_shape(parts):
        return [f"shape of {rule.name}: {theirs.shape}, needed {published_shape(parts)}"]
    ours = theirs.transpose(TO_OURS[theirs.ndim])
    start = 0
    for part in parts:
        part[...] = ours[start : start + part.shape[0]]
        start += part.shape[0]
    return []


def _folded(state: State) -> np.ndarray:
    """The time code's bias with the label's embedding `[width]`."""
    return np.asarray(state[TIME_BIAS], np.float32) + np.asarray(state[LABEL_EMBEDDING][0], np.float32)


def _problems(state: State, model: RadianceFieldModel) -> list[str]:
    """What is wrong with a state dict, one line each. Names outside of `model.` belong to what was wrapped around the
    model (the tables of its schedule), and are none of its business."""
    taken = taken_shapes(model)
    expected = taken | unused_shapes(model.config, taken)
    width = model.config.encoder.width
    problems = [f"missing: {name}" for name in (*taken, LABEL_EMBEDDING) if name not in state]
    derived = derived_arrays(model.config, token_side(state) or 1)
    for name, array in state.items():
        shape = array.shape
        if name == LABEL_EMBEDDING:
            needed = (max(1, *shape[:1]), width)
            problems += _array_problems(name, array, needed, read=True)
        elif name in derived:
            if not _close(array, derived[name]):
                problems.append(f"{name} {shape} holds other numbers than the published model's, which are fixed")
        elif name in expected:
            problems += _array_problems(name, array, expected[name], read=name in taken)
        elif name.startswith("model."):
            problems.append(f"unexpected: {name} {shape}")
        elif array.dtype.kind not in "biuf":
            problems.append(f"{name} holds {array.dtype}, no numbers")
    return problems


def _array_problems(name: str, array: np.ndarray, needed: tuple[int, ...], read: bool) -> list[str]:
    if array.shape != needed:
        return [f"shape of {name}: {array.shape}, needed {needed}"]
    if read and not jnp.issubdtype(array.dtype, jnp.floating):
        return [f"{name} holds {array.dtype}, not floating-point numbers"]
    if read and not np.isfinite(array).all():
        return [f"{name} holds numbers that are not finite"]
    return []


def _close(array: np.ndarray, fixed: np.ndarray) -> bool:
    same_kind = array.shape == fixed.shape and np.issubdtype(array.dtype, np.floating)
    # Codes of other libraries' sines differ in the last bits; of a file with half the bits, by that type's rounding.
    return same_kind and np.allclose(array, fixed, rtol=1e-5 + precision(array), atol=1e-5)


def token_side(state: State) -> int | None:
    """Tokens along a side of the image, from the number of position codes; None if that is not a square number, or
    there are no codes."""
    shape = np.shape(state.get(POSITION_CODE, ()))
    side = round(shape[1] ** 0.5) if len(shape) == 3 else 0
    return side if side and side * side == shape[1] else None


def leftovers(state: State, model: RadianceFieldModel) -> dict[str, np.ndarray]:
    """What export needs beside the parameters to write `state` again: the arrays that are not read, the label embedding
    and the bias that it was added to (a sum of floats cannot be undone), and codes that differ from ours in the last
    bits."""
    taken = taken_shapes(model).keys() - {TIME_BIAS}
    derived = derived_arrays(model.config, token_side(state) or 1)
    return {
        name: array
        for name, array in state.items()
        if name not in taken and not (name in derived and same_bits(array, derived[name]))
    }


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def export_arrays(params: Params, model: RadianceFieldModel) -> dict[str, np.ndarray]:
    """Our parameters (or their gradients) under the published names and in PyTorch's layout.

    The label embedding stays folded into the time code's bias.
    """
    state = {}
    for rule in rules(model.config):
        joined = np.concatenate([np.asarray(part) for part in targets(params, rule)], axis=0)
        state[rule.name] = np.ascontiguousarray(joined.transpose(TO_THEIRS[joined.ndim]))
    return state


def export_state(params: Params, model: RadianceFieldModel, kept: State) -> dict[str, np.ndarray]:
    """A whole published state dict: of an imported model, with its `leftovers`, the one it came from, bit for bit.

    What is not among the leftovers (all, for a model that was trained here) is filled in. Codes are those of the
    model's image size. The label embedding is zero: it stays in the bias, as it does where the two that were imported
    do not add up to ours. Output layers that are not read are the colour and density rows of those that are, and fine
    MLPs that nothing is rendered with are copies of the coarse ones.
    """
    state = export_arrays(params, model)
    derived = derived_arrays(model.config, model.image_size // TOKEN_SIDE)
    kept = {name: array for name, array in kept.items() if np.shape(derived.get(name, array)) == array.shape}
    if not {TIME_BIAS, LABEL_EMBEDDING} <= kept.keys() or not same_bits(_folded(kept), state[TIME_BIAS]):
        kept[TIME_BIAS] = state[TIME_BIAS]
        kept[LABEL_EMBEDDING] = np.zeros((LABELS, model.config.encoder.width), np.float32)
    state |= derived | kept
    # Output layers come last: they are rows of others.
    unused = unused_shapes(model.config, taken_shapes(model))
    for name in sorted(unused.keys() - state.keys(), key=lambda name: ".lin_out." in name):
        if ".lin_out." in name:
            state[name] = state[name.replace(".lin_out.", ".lin_out_feats.")][:4].copy()
        else:
            state[name] = state[name.replace(".mlp_fine.", ".mlp.")]
    return state
