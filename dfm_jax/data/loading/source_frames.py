"""How the coordinates of a data set's scenes lie in those that their sources have.

A source's world is scaled (`SceneRecord.scale`), and that is all, unless a scene's attributes hold `to_source`: the
similarity [4, 4] from the scene's coordinates to the source's, or None where no similarity leads back. Data sets that
were made before say nothing: there, what else was undone is not known.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

SOURCE_FRAMES, FORMAT = "source_frames", 1  # in the index file of a data set whose scenes say it
TO_SOURCE = "to_source"  # among the attributes of a scene


def to_source(scale: float, attributes: Mapping[str, Any]) -> np.ndarray | None:
    """The similarity [4, 4] from the coordinates of a scene, of a data set that knows them, to those of its source;
    None where there is none.

    Args:
      scale, attributes: of the scene's record.
    """
    stated = attributes.get(TO_SOURCE, np.diag([1 / scale, 1 / scale, 1 / scale, 1.0]))
    return None if stated is None else np.array(stated, np.float64)


def is_similarity(matrix: np.ndarray) -> bool:
    """Whether a transform [4, 4] turns, scales and moves the world, and does nothing else."""
    linear = matrix[:3, :3]
    determinant = np.linalg.det(linear)
    if not (np.isfinite(matrix).all() and determinant > 0):
        return False
    unscaled = linear / np.cbrt(determinant)
    return bool(np.allclose(unscaled @ unscaled.T, np.eye(3), atol=1e-6))
