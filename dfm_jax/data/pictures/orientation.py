"""Photographs upright: cameras lay them down as their sensor lies, and note in EXIF data how viewers are to turn them.

Notation: an *orientation* is EXIF's number, 1 to 8. 1 is upright, 3, 6 and 8 ask for half a turn and for a quarter turn
clockwise and back; 2, 4, 5 and 7 ask for the same turns and then for a mirror, left for right. Intrinsics are
normalised by the picture's width and height.

A picture is *shown* as viewers do. It is *turned* by the turn alone: a camera can be turned with it, about its optical
axis, so that each pixel keeps its ray, but no camera sees a mirrored world.
"""

import numpy as np
from PIL import Image

TAG = 0x0112
UPRIGHT = 1
_QUARTERS = {2: 0, 3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}  # turns clockwise
_SHOW = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,  # counter-clockwise
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LAY_DOWN = _SHOW | {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
_TURN = {1: Image.Transpose.ROTATE_270, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_90}
CLOCKWISE = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # x to the right becomes y downwards


def of(image: Image.Image) -> int:
    """The orientation that a picture's data state; 1 where they state none, or nonsense."""
    try:
        found = image.getexif().get(TAG)
    except Exception:  # damaged data, and whatever they raise
        return UPRIGHT
    return found if found in _SHOW else UPRIGHT


def shown_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Width and height of a picture of a `size` as viewers show it."""
    return size[::-1] if _QUARTERS.get(orientation, 0) % 2 else size


def show(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_SHOW[orientation]) if orientation in _SHOW else image


def lay_down(image: Image.Image, orientation: int) -> Image.Image:
    """The picture as it lies in its file, from the shown one."""
    return image.transpose(_LAY_DOWN[orientation]) if orientation in _LAY_DOWN else image


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The picture upright, but not mirrored, from the one in the file."""
    quarters = _QUARTERS.get(orientation, 0)
    return image.transpose(_TURN[quarters]) if quarters else image


def turn_camera(camera_to_world: np.ndarray, intrinsics: np.ndarray, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """The pose [4, 4] and intrinsics [3, 3] of the turned picture, from those of the one in the file."""
    pose, intrinsics = np.array(camera_to_world), np.array(intrinsics)
    in_picture = np.array(CLOCKWISE)
    in_picture[0, 2] = 1  # (u, v) goes to (1 - v, u)
    for _ in range(_QUARTERS.get(orientation, 0)):
        pose[:3, :3] = pose[:3, :3] @ CLOCKWISE.T
        intrinsics = in_picture @ intrinsics @ CLOCKWISE.T
    return pose, intrinsics
