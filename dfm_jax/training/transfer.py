"""Parameters of one stage for the next: what is taken from where, what is new, and what is dropped.

Parameters are named by their path, as in 'scene_field/coarse/out/kernel'. A rule is a list of pairs (expression over
our names, name in the source); the first expression that matches decides. Nothing is lost or left over in silence: the
result lists every name.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dfm_jax.config import INIT_RULES
from dfm_jax.errors import UserError
from dfm_jax.runs.train_state import Params

SAME = ((r"(.*)", r"\1"),)
STEM = ("encoder/noisy_stem/kernel", "encoder/clean_stem/kernel")
# The noisy stem is made of the clean one: see `_noisy_stem`. The conditioning field renders at even distances, in one
# pass, as pixelNeRF's coarse field does.
PIXELNERF = (
    (r"encoder/noisy_stem/(.*)", r"encoder/clean_stem/\1"),
    (r"conditioning_field/(.*)", r"scene_field/coarse/\1"),
    (r"(.*)", r"\1"),
)
RULES: Mapping[str, Sequence[tuple[str, str]]] = dict(zip(INIT_RULES, (SAME, PIXELNERF), strict=True))


# The part that a rule may leave new as a whole: where the field it would come from is of another size.
OPTIONAL = {"same": "", "pixelnerf": "conditioning_field"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where each of a model's parameters comes from, by their names."""

    taken: Mapping[str, str]  # our name: name in the source
    new: tuple[str, ...]  # ours that the source has not: left as they were
    dropped: tuple[str, ...]  # the source's that none of ours takes
    other_size: bool  # whether the optional part is new since its source is of another size

    def report(self) -> str:
        """A few lines for a person: groups of parameters by what happened to them."""
        moved = {ours: theirs for ours, theirs in self.taken.items() if ours != theirs}
        lines = [f"taken: {len(self.taken)} arrays" + (f", {len(moved)} of them from another place:" if moved else "")]
        lines += [f"  {ours} <- {theirs}" for ours, theirs in _groups(moved).items()]
        for title, names in (("new", self.new), ("dropped", self.dropped)):
            lines.append(f"{title}: {', '.join(_groups(dict.fromkeys(names, ''))) or 'nothing'}")
        if self.other_size:
            lines.append("  (the conditioning field is of another size than the source's field)")
        return "\n".join(lines)


def plan(source: Params, params: Params, rule: str) -> Plan:
    """What `transfer` does; shapes are enough.

    Raises:
      UserError: as `transfer`.
    """
    theirs, ours = _named(source), _named(params)
    origin = {name: _origin(name, RULES[rule]) for name in ours}
    taken = {name: origin[name] for name in ours if origin[name] in theirs}
    misfits = {name for name in taken if _shape(name, taken[name], theirs, ours) != ours[name].shape}
    optional = {name for name in taken if OPTIONAL[rule] and name.startswith(f"{OPTIONAL[rule]}/")}
    other_size = bool(misfits & optional)
    if other_size:
        taken = {name: origin[name] for name in taken if name not in optional}
    new = tuple(name for name in ours if name not in taken)
    dropped = tuple(sorted(theirs.keys() - set(taken.values())))
    problems = [f"{name} is {theirs[taken[name]].shape}, not {ours[name].shape}" for name in taken if name in misfits]
    if rule == "same":
        problems += [f"missing: {name} {ours[name].shape}" for name in new]
        problems += [f"unexpected: {name} {theirs[name].shape}" for name in dropped]
    if problems:
        hint = "; from a pixelNeRF run, set config.init_rule='pixelnerf'" if rule == "same" else ""
        raise UserError(f"config.init_from has parameters of another model{hint}:\n  " + "\n  ".join(problems))
    return Plan(taken, new, dropped, other_size)


def transfer(source: Params, params: Params, rule: str) -> tuple[Params, Plan]:
    """Puts the parameters of another run into new ones.

    Args:
      source: what the other run saved.
      params: new parameters of this run's model, with their shardings.
      rule: a name of `RULES`.

    Returns:
      the parameters, and where they come from.

    Raises:
      UserError: listing the arrays whose shapes do not fit; with 'same', also those that are missing or left over.
    """
    made = plan(source, params, rule)
    theirs, ours = _named(source), _named(params)
    taken = {name: _fit(name, from_name, theirs[from_name], ours[name]) for name, from_name in made.taken.items()}
    leaves = [taken.get(name, leaf) for name, leaf in ours.items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves), made


def _fit(name: str, source_name: str, source: Array, ours: Array) -> Array:
    """The source's array in place of ours."""
    if (name, source_name) == STEM:
        source = _noisy_stem(source, ours.shape[2])
    return jnp.copy(jax.device_put(source, ours.sharding))  # one array may go to two places, and a step donates each


def _shape(name: str, source_name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[int, ...]:
    """Of the source's array, as it would come to its place."""
    source = theirs[source_name]
    if (name, source_name) == STEM:
        return jax.eval_shape(lambda x: _noisy_stem(x, ours[name].shape[2]), source).shape
    return tuple(source.shape)


def _noisy_stem(clean: Array, channels: int) -> Array:
    """A kernel [7, 7, channels, c] for a noisy view that looks at the colours estimated for it (channels 3 to 6) as the
    clean stem [7, 7, 3, c] looks at an image, and at nothing else: so a new stage begins where the last one ended."""
    before, after = 3, channels - 6
    return jnp.pad(clean, [(0, 0), (0, 0), (before, after), (0, 0)])


def _origin(name: str, rule: Sequence[tuple[str, str]]) -> str:
    expression, template = next(pair for pair in rule if re.fullmatch(pair[0], name))
    return re.fullmatch(expression, name).expand(template)


def _named(params: Params) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _groups(pairs: Mapping[str, str]) -> dict[str, str]:
    """Names cut to two levels, each once: what a person wants to read of hundreds."""
    cut = lambda name: "/".join(name.split("/")[:2])
    return {cut(ours): cut(theirs) for ours, theirs in pairs.items()}
