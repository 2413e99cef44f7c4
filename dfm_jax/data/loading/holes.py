"""Holes: frames that a source lists and a data set does not have, because they were quarantined.

A frame has a *number*, its position in the source's own list of frames, by which index files name it; and a *position*
in the order of capture, by which gaps are counted. Both count all frames of the source, and are the same unless the
source lists its frames in another order than that of capture.
"""

import dataclasses
import json
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Hole:
    number: int
    position: int
    name: str  # of the frame in its source
    reason: str  # why it was quarantined


def encode(holes: Sequence[Hole]) -> str:
    return json.dumps([dataclasses.astuple(hole) for hole in holes])


def decode(text: str | bytes) -> tuple[Hole, ...]:
    return tuple(Hole(*values) for values in json.loads(text))


def positions(num_frames: int, holes: Sequence[int]) -> np.ndarray:
    """[num_frames] of the frames that are left, from those of the holes."""
    return np.delete(np.arange(num_frames + len(holes)), np.array(holes, int))
