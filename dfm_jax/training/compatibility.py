"""Whether a run can go on with what another one saved: its settings, and its arrays."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from dfm_jax.config import Config
from dfm_jax.config_reading import flatten
from dfm_jax.errors import UserError
from dfm_jax.training.checkpoint_files import directory_of
from dfm_jax.training.state import Params

# The fields that say what is trained: a run goes on only with the ones it began with ...
DEFINING = ("seed", "image_size", "data.name", "model", "diffusion.num_timesteps")
# ... except those that only say how it is computed, or what it began with.
INCIDENTAL = (
    "model.compute_dtype",
    "model.encoder.remat",
    "model.encoder.init_file",
    "model.ray_marching.chunk_size",
)
# What models did before a setting of theirs could be made: older runs go on.
BEFORE = {"model.proposal": None, "model.encoder.position_grid": 0}
ENCODER, ENCODER_NAME = "model.encoder", "model.encoder.name"
ABSENT = "(absent)"


def check_same_config(saved: Mapping[str, Any], config: Config, workdir: str | pathlib.Path) -> list[str]:
    """The differences that do not stop a run from going on, one 'field: saved -> now' each.

    Raises:
      UserError: listing those that do, the fields that define what is trained.
    """
    new = flatten(config)
    old = {name: value for name, value in BEFORE.items() if name in new} | flatten(saved)
    names = [name for name in {**old, **new} if old.get(name, ABSENT) != new.get(name, ABSENT)]
    if ENCODER_NAME in names:  # no setting of one kind of encoder can be compared with another kind's
        names = [name for name in names if name == ENCODER_NAME or not _below(name, (ENCODER,))]
    lines = {name: f"config.{name}: {old.get(name, ABSENT)!r} -> {new.get(name, ABSENT)!r}" for name in names}
    fatal = [lines[name] for name in names if _below(name, DEFINING) and not _below(name, INCIDENTAL)]
    if fatal:
        raise UserError(
            f"{directory_of(workdir)} holds a checkpoint of another config (saved -> now):\n  "
            + "\n  ".join(fatal)
            + "\nchoose another --workdir, or go on with the saved settings"
        )
    return [lines[name] for name in names]


def check_same_parameters(saved: Params, expected: Params, where: str) -> None:
    """Compares the names and shapes of two trees.

    Raises:
      UserError: listing every array that is missing from `saved`, unexpected in it, or of another shape.
    """
    old, new = ({_name(path): tuple(x.shape) for path, x in _leaves(tree)} for tree in (saved, expected))
    problems = [f"missing: {name} {new[name]}" for name in new if name not in old]
    problems += [f"unexpected: {name} {old[name]}" for name in old if name not in new]
    problems += [f"{name} is {old[name]}, not {new[name]}" for name in new if old.get(name, new[name]) != new[name]]
    if problems:
        raise UserError(f"the arrays in {where} are not those of this model:\n  " + "\n  ".join(problems))


def _leaves(tree: Any) -> list[tuple[tuple, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _below(name: str, groups: tuple[str, ...]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)
