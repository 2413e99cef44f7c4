"""Settings from a config file: `configs/*.py` are plain `ml_collections` documents, and `from_dict` turns one into a
`Config`. It refuses, by name, every field that is missing, unknown or of the wrong type, and what does not go together.
`with_defaults` fills in what a file does not state.
"""

import contextlib
import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from dfm_jax.config.limits import IsPath
from dfm_jax.config.model import ENCODERS, MODELS, EncoderConfig, ForwardModelConfig, model_name
from dfm_jax.config.schema import Config
from dfm_jax.errors import UserError
from dfm_jax.paths import expand_home

# Parts that are of one of several kinds, whose `name` says which.
KINDS = {EncoderConfig: ("encoder", ENCODERS), ForwardModelConfig: ("model", MODELS)}


class ConfigError(UserError):
    """A setting is missing, unknown, of the wrong type or inconsistent with another one."""


def from_dict(values: Mapping[str, Any]) -> Config:
    """Typed settings from a (nested) mapping such as a ConfigDict.

    Raises:
      ConfigError: naming at once all fields that are missing, unknown, or have a value that they cannot have; if there
        are none, the first that do not go together.
    """
    problems: list[str] = []
    config = _build(Config, with_defaults(values), "", problems)
    problems = problems or _broken_rules(config)[:1]
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError("the config cannot be used:\n  " + "\n  ".join(problems))
    return config


def with_defaults(values: Any, section: type = Config) -> Any:
    """A (nested) mapping of settings with those that are not stated as they are by default, as dicts. What is no group
    of settings, and fields that there are not, stay for `from_dict` to refuse."""
    if not hasattr(values, "items"):
        return values
    types, complete = _types(section), dict(values.items())
    for field in dataclasses.fields(section):
        if field.default is not dataclasses.MISSING:
            group = dataclasses.is_dataclass(field.default)
            complete.setdefault(field.name, dataclasses.asdict(field.default) if group else field.default)
        if types[field.name] == ForwardModelConfig and hasattr(complete.get(field.name), "items"):
            complete[field.name] = {**complete[field.name], "name": model_name(complete[field.name])}
        if kind := _group(types[field.name], value := complete.get(field.name)):
            complete |= {} if value is None else {field.name: with_defaults(value, kind)}
    return complete


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """A (nested) mapping or dataclass of settings by dotted names, such as 'train.optimizer.b1'."""
    values = dataclasses.asdict(values) if dataclasses.is_dataclass(values) else values
    flat = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _build(cls: type, values: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping) and not hasattr(values, "keys"):
        problems.append(f"{f'config.{prefix}'.rstrip('.')} must be a group of fields, not {values!r}")
        return None
    types = _types(cls)
    kind = "".join(f" of {what} {values['name']!r}" for what, kinds in KINDS.values() if cls in kinds.values())
    problems += [
        f"config.{prefix}{k} is not a setting{kind} (known here: {', '.join(types)})" for k in values if k not in types
    ]
    made = {}
    for name, hint in types.items():
        where = f"config.{prefix}{name}"
        if name not in values:
            problems.append(f"{where} is missing")
        elif hint in KINDS:
            made[name] = _build_kind(hint, values[name], f"{prefix}{name}.", problems)
        elif group := _group(hint, values[name]):
            absent = values[name] is None and group is not hint  # an optional group
            made[name] = None if absent else _build(group, values[name], f"{prefix}{name}.", problems)
        else:
            made[name] = _value(hint, values[name], where, problems)
    return cls(**made) if len(made) == len(types) else None


@functools.cache
def _types(cls: type) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(cls)}
    return {name: hint for name, hint in typing.get_type_hints(cls, include_extras=True).items() if name in fields}


def _build_kind(hint: Any, values: Any, prefix: str, problems: list[str]) -> Any:
    """The one of several kinds of settings whose name the values give."""
    if not hasattr(values, "get"):
        problems.append(f"config.{prefix.rstrip('.')} must be a group of fields, not {values!r}")
    elif group := _group(hint, values):
        return _build(group, values, prefix, problems)
    else:
        problems.append(f"config.{prefix}name must be one of {', '.join(KINDS[hint][1])}, not {_name(values)!r}")
    return None


def _name(values: Any) -> Any:
    return values.get("name") if hasattr(values, "get") else None


def _group(kind: Any, value: Any) -> type | None:
    """The dataclass of a field that is a group of fields, also an optional one; None for all others. Of several kinds
    it is the one that the `name` in the value says."""
    if kind in KINDS:
        with contextlib.suppress(KeyError, TypeError):  # no name, or none that there is
            return KINDS[kind][1][_name(value)]
        return None
    options = (kind, *typing.get_args(kind))
    groups = [option for option in options if isinstance(option, type) and dataclasses.is_dataclass(option)]
    return groups[0] if groups else None


def _value(hint: Any, value: Any, where: str, problems: list[str]) -> Any:
    """A value as its type says, within its limits."""
    if typing.get_origin(hint) is Literal:
        words = typing.get_args(hint)
        if value not in words:
            known = ", ".join(word or "''" for word in words)
            problems.append(f"{where} must be one of {known}, not {value!r}")
        return value
    kind, *limits = typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problems.append(f"{where} must be {kind.__name__}, not {value!r}")
        return value
    for limit in limits:
        if isinstance(limit, IsPath):
            value = expand_home(value)
        elif problem := limit.problem(value):
            problems.append(f"{where} {problem}")
    return value


def _broken_rules(section: Any, prefix: str = "config.") -> list[str]:
    """Of a section and all below it, what should hold between fields and does not."""
    broken = []
    for name, value in vars(section).items():
        if dataclasses.is_dataclass(value):
            broken += _broken_rules(value, f"{prefix}{name}.")
    rules = section.rules() if hasattr(section, "rules") else []
    return broken + [prefix + message for holds, message in rules if not holds]
