"""Variants of a config: named changes that combine, as in `configs/co3d.py:128,lean`."""

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from dfm_jax.errors import UserError

T = TypeVar("T")
Change = Callable[[T], None] | None  # None: the config as it stands


def names_of(variant: str) -> list[str]:
    """The names in 'pixelnerf,resnet34'; also in the earlier spelling, 'pixelnerf-resnet34'."""
    return re.split("[,-]", variant) if variant else []


def combine(config: T, variant: str, *choices: Mapping[str, Change]) -> T:
    """Changes a config as its variant says.

    Args:
      variant: names separated by commas, in any order; '' for none.
      choices: of each, a variant has one name at most. The changes are made in the order of these arguments, whatever
        the order of the names: a later choice sees what an earlier one did.

    Returns:
      the config, which is changed in place.

    Raises:
      UserError: listing all names, for one that is unknown or two that exclude each other.
    """
    names = names_of(variant)
    known = "; ".join(" or ".join(choice) for choice in choices)
    for name in names:
        if not any(name in choice for choice in choices):
            raise UserError(f"there is no variant '{name}', only {known} (combined by commas)")
    for choice in choices:
        chosen = [name for name in names if name in choice]
        if len(chosen) > 1:
            raise UserError(f"one of variants {', '.join(chosen)} at most: there are {known} (combined by commas)")
        for name in chosen:
            if change := choice[name]:
                change(config)
    return config
