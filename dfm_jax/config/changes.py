"""Another way to sample with the same model: a config with some of its settings changed, by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from dfm_jax.config.reading import from_dict
from dfm_jax.config.renamed import current_name
from dfm_jax.config.sampling import SampleConfig
from dfm_jax.config.schema import Config
from dfm_jax.errors import UserError

SHORT = {"steps": "num_steps"}  # names that a call may use for a setting's own
# Settings that `--mode=sample` alone heeds.
OF_COMMANDS = ("num_scenes", "autoregressive_step", "video_frames", "video_path", "scenes_in_3d", "reference_scenes")


def with_sampling(config: Config, changes: Mapping[str, Any], *, of_commands: bool = False) -> Config:
    """The config with other settings of `sample`, or another `seed`; those that are None stay as they are.

    Args:
      changes: by name, such as {'num_steps': 20, 'seed': 3}; of a group, such as `target_camera`, a mapping with some
        of its settings.

      of_commands: whether those that `--mode=sample` alone heeds can be changed.

    Raises:
      UserError: there is no such setting, or it cannot have this value.
    """
    values = dataclasses.asdict(config)
    known = [field.name for field in dataclasses.fields(SampleConfig) if of_commands or field.name not in OF_COMMANDS]
    given: dict[str, str] = {}  # by setting, the name that it was given by
    for name, value in changes.items():
        setting = current_name(f"sample.{SHORT.get(name, name)}").removeprefix("sample.")
        if setting not in ("seed", *known):
            raise UserError(f"{name!r} is no setting of sampling: these are {', '.join(['seed', *SHORT, *known])}")
        if value is None:
            continue
        if (other := given.setdefault(setting, name)) != name:
            raise UserError(f"{other!r} and {name!r} are the same setting of sampling: give one of them")
        place = values if setting == "seed" else values["sample"]
        value = value.item() if hasattr(value, "item") else value  # numbers of numpy
        place[setting] = (place[setting] or {}) | dict(value) if isinstance(value, Mapping) else value
    return from_dict(values)


def with_evaluation(config: Config, changes: Mapping[str, Any]) -> Config:
    """The config with other settings of `evaluate`; those that are None stay as they are.

    Raises:
      UserError: a setting cannot have its value.
    """
    values = dataclasses.asdict(config)
    values["evaluate"] |= {name: value for name, value in changes.items() if value is not None}
    return from_dict(values)
