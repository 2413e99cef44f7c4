"""How finely denoising steps march along rays at which noise level: `sample.marching_schedule`, read from text."""

import dataclasses
import re

from dfm_jax.config.limits import Range

_LEVEL = re.compile(r"\s*([0-9.]+)\s*:\s*(\d+)\s*(?:\+\s*(\d+)\s*)?(?:/\s*(\d+)\s*)?")
FEWEST, MOST = 3, 2**14  # even distances along a ray


@dataclasses.dataclass(frozen=True)
class MarchingLevel:
    """How x0-predictions are rendered at noise levels from `noise_level` on, up to the next level's."""

    noise_level: float  # as a share of all
    num_coarse: int  # even distances along a ray
    num_fine: int = 0  # further ones, where these say; 0: none
    stride: int = 1  # side of the squares of pixels of which each has one ray


def marching_levels(text: str) -> tuple[MarchingLevel, ...]:
    """The levels of a schedule, from the lowest noise level to the highest; none of ''.

    Raises:
      ValueError: this is no schedule; the message says why, and begins with its value.
    """
    levels = []
    for part in text.split(",") if text.strip() else ():
        found = _LEVEL.fullmatch(part)
        if not found:
            raise ValueError(
                f"{text!r} is no schedule: levels are written NOISE_LEVEL:EVEN[+FINE][/STRIDE], with commas between "
                "them, as in 0:64+32,0.8:24+16/2"
            )
        share, coarse, fine, stride = (
            number or default for number, default in zip(found.groups(), "0001", strict=True)
        )
        try:
            level = MarchingLevel(float(share), int(coarse), int(fine), int(stride))
        except ValueError:
            raise ValueError(f"{text!r} has the noise level {share!r}, which is no number") from None
        levels.append(level)
    _check(text, levels)
    return tuple(sorted(levels, key=lambda level: level.noise_level))


def _check(text: str, levels: list[MarchingLevel]) -> None:
    limits = {
        "noise_level": Range(0.0, 1.0),
        "num_coarse": Range(FEWEST, MOST),
        "num_fine": Range(0, MOST),
        "stride": Range(1, 2**11),
    }
    for level in levels:
        for name, limit in limits.items():
            if problem := limit.problem(getattr(level, name)):
                raise ValueError(f"{text!r} has a level whose {name.replace('num_', 'number of ')} {problem}")
    if len({level.noise_level for level in levels}) < len(levels):
        raise ValueError(f"{text!r} has two levels that begin at the same noise level")


def schedule_problem(text: str) -> str:
    """What is wrong with a schedule; '' if nothing is."""
    try:
        marching_levels(text)
    except ValueError as error:
        return str(error)
    return ""
