"""Settings that have another name now. The earlier name is read wherever settings come from: config files, options,
calls and checkpoints; who typed it is told the new one, once."""

import functools
import logging
import re
from typing import Any

logger = logging.getLogger(__name__)

RENAMED = {
    "data.view_sampling.again_probability": "data.view_sampling.context_as_target_probability",
    "evaluate.protocol": "evaluate.index",
    "sample.context_memory": "sample.context_cache_gb",
}


def current_name(name: str) -> str:
    """Of a setting by its dotted name, as somebody typed it."""
    if name in RENAMED:
        _tell(name)
    return RENAMED.get(name, name)


def current_option(argument: str, option: str) -> str:
    """A word of a command line; of '--config.NAME=VALUE', where `option` is '--config', with the setting's name of
    today."""
    named = re.fullmatch(rf"(-?{option}\.)([\w.]+)(=.*)?", argument, flags=re.S)
    return argument if named is None else f"{named[1]}{current_name(named[2])}{named[3] or ''}"


def current_settings(values: Any, *, tell: bool = True) -> Any:
    """A (nested) mapping of settings, as dicts with the names of today; what is no mapping stays for others to refuse.
    A setting that has both names has the value of the earlier one: a shipped recipe gave it the other.

    Args:
      tell: whether somebody has typed these settings.
    """
    if not hasattr(values, "items"):
        return values
    values = dict(values.items())
    for old, new in RENAMED.items():
        (*path, old_field), new_field = old.split("."), new.rpartition(".")[2]
        group = values
        for part in path:
            inner = group.get(part)
            if not hasattr(inner, "items"):
                break
            group[part] = dict(inner.items())
            group = group[part]
        else:
            if old_field in group:
                group[new_field] = group.pop(old_field)
                if tell:
                    _tell(old)
    return values


@functools.cache
def _tell(name: str) -> None:
    """Once in a process."""
    logger.warning(f"config.{name} is called config.{RENAMED[name]} now")
