"""What an importer gives: scenes of posed, encoded pictures, one at a time.

An importer is one small class for one format. It lists its scenes by split, which must be cheap, and reads one when
asked. It converts conventions (OpenCV `camera_to_world`, normalised intrinsics) and judges nothing else: the writer
validates every camera and picture, crops and stores.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dfm_jax.errors import Rejected


def refused(reason: str, rejected: Iterable[tuple[str, str]], usable: Iterable[str]) -> Rejected:
    """A scene of frames that were `rejected`, with reasons, and of `usable` ones that go with it."""
    return Rejected(reason, frames=[*rejected, *((name, f"its scene is refused: {reason}") for name in usable)])


@dataclasses.dataclass(frozen=True)
class SourceFrame:
    name: str  # of the frame in its source, for messages and for finding it again
    camera_to_world: np.ndarray  # [4, 4] float64, OpenCV axes
    intrinsics: np.ndarray  # [3, 3] float64, normalised by the width and height of the whole picture
    timestamp: float  # seconds; NaN where the source has none
    load: Callable[[], bytes]  # the encoded picture; raises Rejected
    number: int  # its position in the source's own list of frames, from 0, counted before anything is left out
    held_out: bool | None = None  # whether the source says that it is not trained on; None: it says nothing
    # What counts in the upright picture: one channel, white where it does; None, or Rejected, where nothing says that.
    load_mask: Callable[[], Image.Image | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class SourceScene:
    """One scene as its source has it. Frames are in the order of capture."""

    name: str
    frames: Sequence[SourceFrame]
    rejected: Sequence[tuple[str, str]] = ()  # frames that could not even be read: (name, reason)
    # Whatever JSON can hold. Where more than `scale` was done to the world, `to_source` of `loading.source_frames`.
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scale: float = 1.0  # what the source's translations were multiplied by, and all that was done to its world
    near: float = np.nan  # bounds that the source itself states, units of the scene; NaN where it has none
    far: float = np.nan
    one_size: bool = True  # a picture of another size than most is a mistake; False: each camera is for its own picture
    own_poses: bool = False  # poses are of someone's own making, so that they are always compared with the pictures
    # (number, name) of every frame that the source lists, those that are rejected too, in the order of capture; (): of
    # `frames` only.
    listed: Sequence[tuple[int, str]] = ()
    warnings: Sequence[str] = ()  # what may be wrong with it, a sentence each


class Source(Protocol):
    def splits(self) -> Mapping[str, Sequence[str]]:
        """Names of the scenes of each split, in a fixed order.

        Raises:
          UserError: there is nothing at the source.
        """

    def read(self, split: str, name: str) -> SourceScene:
        """One of the scenes.

        Raises:
          Rejected: the scene as a whole cannot be used.
        """
