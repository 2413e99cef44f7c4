"""Holes: frames that a source lists and a data set does not have, because they were quarantined.

A frame has a *number*, its position in the source's own list of frames, by which index files name it; and a *position*
in the order of capture, by which gaps are counted. Both count all frames of the source, and are the same unless the
source lists its frames in another order than that of capture.
"""

import collections
import dataclasses
import json
from collections.abc import Sequence

import numpy as np

from dfm_jax.data.builders.source_files import as_text
from dfm_jax.data.preparing.source import SourceFrame, SourceScene


@dataclasses.dataclass(frozen=True)
class Hole:
    number: int
    position: int
    name: str  # of the frame in its source
    reason: str  # why it was quarantined


def find(scene: SourceScene, kept: Sequence[SourceFrame]) -> list[Hole]:
    """The holes of a scene of which these frames are left, in the order of capture; `scene.rejected` has the reasons of
    all others."""
    listed = scene.listed or [(frame.number, frame.name) for frame in scene.frames]
    reasons = collections.defaultdict(collections.deque)  # by name; a frame that is listed twice has two
    for name, reason in scene.rejected:
        reasons[as_text(name)].append(reason)
    numbers = {frame.number for frame in kept}
    return [
        Hole(number, position, name, reasons[name].popleft() if reasons[name] else "no reason is known")
        for position, (number, name) in enumerate(listed)
        if number not in numbers
    ]


def encode(holes: Sequence[Hole]) -> str:
    return json.dumps([dataclasses.astuple(hole) for hole in holes])


def decode(text: str | bytes) -> tuple[Hole, ...]:
    return tuple(Hole(*values) for values in json.loads(text))


def positions(num_frames: int, holes: Sequence[int]) -> np.ndarray:
    """[num_frames] of the frames that are left, from those of the holes."""
    return np.delete(np.arange(num_frames + len(holes)), np.array(holes, int))
