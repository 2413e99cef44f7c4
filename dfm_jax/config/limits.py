"""What values a setting can have. They are part of its type (`Annotated`), and hold wherever settings are read.

Every number has a range, so that none of them (a zero, a nan, a slip of ten digits) comes to light long after the start
as something else. Upper ends are far above what is useful, and below what arithmetic or memory can hold.
"""

import dataclasses
import math
from typing import Annotated


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers from `least` to `most`; without `least` itself if it is `open_below`, and so on."""

    least: float
    most: float
    open_below: bool = False
    open_above: bool = False
    off: float | None = None  # a value outside that switches something off, or leaves a choice to the program

    def problem(self, value: float) -> str:
        """What the value must be and is not; '' if all is well."""
        low = value > self.least if self.open_below else value >= self.least
        high = value < self.most if self.open_above else value <= self.most
        if value == self.off or (math.isfinite(value) and low and high):
            return ""
        low, high = "above" if self.open_below else "at least", "below" if self.open_above else "at most"
        alone = "" if self.off is None else f"{self.off}, or "
        return f"must be {alone}{low} {_plain(self.least)} and {high} {_plain(self.most)}, not {value!r}"


@dataclasses.dataclass(frozen=True)
class IsPath:
    """A file or folder; a leading '~' stands for the user's home."""


def _plain(number: float) -> str:
    return f"{number:,}".replace(",", "_") if isinstance(number, int) else f"{number:g}"


# Steps and frames. 32 bits count them, and at most two such numbers are added.
Count = Annotated[int, Range(1, 2**30)]
CountOrNone = Annotated[int, Range(0, 2**30)]  # 0: none
# Sides of images and of grids of tokens, and channels of feature maps.
SideOrNone = Annotated[int, Range(0, 2**11)]  # 0: none
Channels = Annotated[int, Range(1, 2**14)]
ChannelsOrNone = Annotated[int, Range(0, 2**14)]  # 0: none
# How many scenes, samples or batches are asked for, and gone through one after another.
Number = Annotated[int, Range(1, 10**6)]
NumberOrNone = Annotated[int, Range(0, 10**6)]  # 0: none
Share = Annotated[float, Range(0.0, 1.0)]
Weight = Annotated[float, Range(0.0, 1e6)]  # of a loss; 0: none
Decay = Annotated[float, Range(0.0, 1.0, open_above=True)]  # of a moving average: at 1 it would never move
Distance = Annotated[float, Range(0.0, 1e9)]
Minutes = Annotated[float, Range(0.0, 1e6)]  # 0: none
Path = Annotated[str, IsPath()]  # '': none
