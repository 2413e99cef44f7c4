"""What a browser may ask for. Whoever reaches the port can send anything: every number, word and name that comes from
there goes through one of these functions before it is used, whatever the panel offers."""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dfm_jax.errors import UserError
from dfm_jax.structs import Camera

SIDES = (32, 64, 128, 256, 512, 1024)  # longer sides of frames, pixels
FINEST = SIDES[2:]  # among which a browser chooses the last one
MAX_BROWSERS = 8  # that are rendered for at once
MAX_SAMPLES = 24  # that are kept
MAX_STEPS = 250  # denoising steps
MAX_SEED = 2**32 - 1
MAX_KEY_FRAMES = 64
MAX_FRAMES = 600  # of a video
VIDEO_SIDES = (128, 256, 384, 512)
ASPECTS = (0.25, 4.0)  # width by height
FIELDS_OF_VIEW = (math.radians(1), math.radians(150))  # vertical
LARGEST = 1e6  # coordinate of a camera
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


def whole_number(value: Any, least: int, most: int, what: str) -> int:
    """A number of something.

    Raises:
      UserError: it is none, or outside of `least` to `most`.
    """
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not (known and least <= value <= most and value == int(value)):
        raise UserError(f"{what} is a whole number from {least} to {most}, not {_shown(value)}")
    return int(value)


def one_of(value: Any, choices: Sequence[Any], what: str) -> Any:
    """A choice among those that the panel offers.

    Raises:
      UserError: it is not among them.
    """
    for choice in choices:
        if isinstance(value, type(choice)) and value == choice:
            return choice
    raise UserError(f"{what} is one of {', '.join(map(str, choices))}, not {_shown(value)}")


def file_name(value: Any) -> str:
    """The name of a file, without a folder and without a suffix.

    Raises:
      UserError: it is none that can only lie in the folder for results.
    """
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise UserError(f"a name is 1 to 40 letters, digits, '-' and '_', and no path: not {_shown(value)}")
    return value


def frame_size(aspect: float, longer: int) -> tuple[int, int]:
    """Height and width, at least 2 pixels each, of a frame as broad as `aspect` of its height."""
    height, width = (longer, longer * aspect) if aspect < 1 else (longer / aspect, longer)
    return max(2, round(height)), max(2, round(width))


def aspect_of(width: Any, height: Any) -> float:
    """Width by height of a browser's canvas, within `ASPECTS`; 1 where it says nothing sensible."""
    try:
        aspect = float(width) / float(height)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return 1.0
    return float(np.clip(aspect, *ASPECTS)) if math.isfinite(aspect) and aspect > 0 else 1.0


def browser_camera(wxyz: Any, position: Any, fov: Any, aspect: float) -> Camera:
    """The camera that a browser looks through.

    Args:
      wxyz, position: its orientation and place; like ours, viser's cameras follow OpenCV.
      fov: vertical field of view, radians.
      aspect: of the frame.

    Raises:
      UserError: it is no camera.
    """
    try:
        turn, place, angle = np.asarray(wxyz, float), np.asarray(position, float), float(fov)
    except (TypeError, ValueError) as error:
        raise UserError("the browser's camera is not made of numbers") from error
    known = turn.shape == (4,) and place.shape == (3,) and np.isfinite([*turn, *place, angle]).all()
    if not known or np.linalg.norm(turn) < 1e-6 or np.abs(place).max() > LARGEST:
        raise UserError("the browser's camera is not one that can be rendered")
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = Rotation.from_quat(turn, scalar_first=True).as_matrix(), place
    focal = 0.5 / math.tan(0.5 * float(np.clip(angle, *FIELDS_OF_VIEW)))  # in heights
    return Camera(pose, np.array([[focal / aspect, 0, 0.5], [0, focal, 0.5], [0, 0, 1]]))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
