"""The cameras of a `transforms.json`: what its numbers say about lenses and poses.

What a frame states itself comes before what the file states for all; null is as good as nothing.
"""

import math
from collections import ChainMap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.pictures import pictures
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected

PERSPECTIVE = ("", "PINHOLE", "SIMPLE_PINHOLE", "PERSPECTIVE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular")  # keys by which instant-ngp marks them
LISTED_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")  # nerfstudio's order
SKEW = "skew of K"
SAME_ANGLE = 0.02  # relative difference between what two ways to state a focal length say

Values = Mapping[str, Any]


def lens_of(frame: Values, content: Values, path: Path, reduced: float) -> tuple[Lens, tuple[float, float]]:
    """The lens of a frame of a file, and the size of picture it is for, of which `path` may be a reduced copy."""
    frame, content = _with_matrix(_stated(frame)), _with_matrix(_stated(content))
    values = ChainMap(dict(frame), dict(content))
    width, height = _size(values, path, reduced)
    focal = _focal_lengths(frame, content, width, height)
    centre = tuple(
        number(values[key], key) / side if key in values else 0.5 for key, side in (("cx", width), ("cy", height))
    )
    distortion, fisheye = _distortion(values)
    skew = number(values.get(SKEW, 0), "K") / width
    return Lens(focal, centre, skew, distortion=distortion, fisheye=fisheye), (width, height)


def contradictions(content: Values) -> list[str]:
    """Warnings about what a file states twice, and not alike."""
    content = _stated(content)
    warnings = []
    for angle, focal, side in (("camera_angle_x", "fl_x", "w"), ("camera_angle_y", "fl_y", "h")):
        if {angle, focal, side} <= content.keys():
            try:
                twice = number(content[focal], focal) / number(content[side], side), _from_angle(content, angle)
            except (Rejected, ZeroDivisionError):  # a reason to reject frames
                continue
            if not math.isclose(*twice, rel_tol=SAME_ANGLE):
                warnings.append(f"{focal} and {side} do not agree with {angle}, which is not used")
    return warnings


def _stated(values: Values) -> Values:
    return {key: value for key, value in values.items() if value is not None}


def _with_matrix(values: Values) -> Values:
    """With what `K` says, [3, 3] in pixels, under the names of its entries.

    Raises:
      Rejected: it is no such matrix, or contradicts what is stated beside it.
    """
    if "K" not in values:
        return values
    rows = values["K"]
    if not isinstance(rows, list) or len(rows) != 3 or not all(isinstance(row, list) and len(row) == 3 for row in rows):
        raise Rejected("K is no 3x3 matrix")
    (fx, skew, cx), (zero, fy, cy), last = ([number(value, "K") for value in row] for row in rows)
    if zero or last != [0, 0, 1]:
        raise Rejected("K is not upper triangular with a last row of 0 0 1")
    said = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy}
    for key in said.keys() & values.keys():
        if not math.isclose(number(values[key], key), said[key], rel_tol=SAME_ANGLE, abs_tol=1.0):
            raise Rejected(f"K and {key} beside it do not agree")
    return {**values, **said, SKEW: skew}


def _size(values: Values, path: Path, reduced: float) -> tuple[float, float]:
    """Width and height, pixels. What is not stated is as the picture says."""
    if "w" in values and "h" in values:
        width, height = number(values["w"], "w"), number(values["h"], "h")
    else:
        width, height = (reduced * side for side in pictures.read_header(path).size)
        for key, side in (("w", width), ("h", height)):
            if key in values:  # the other one by the picture's shape
                width, height = (number(values[key], key) / side * other for other in (width, height))
    if not (1 <= width < math.inf and 1 <= height < math.inf):
        raise Rejected(f"camera is for {width:g}x{height:g} pixels")
    return width, height


def _focal_lengths(frame: Values, content: Values, width: float, height: float) -> tuple[float, float]:
    """Normalised by width and height. Where only one is stated, pixels are square, or as the file's others are."""
    for values in (frame, content):
        if "fl_x" in values:
            focal_x = number(values["fl_x"], "fl_x") / width
        elif "camera_angle_x" in values:
            focal_x = _from_angle(values, "camera_angle_x")
        else:
            continue
        if "fl_y" in frame or "fl_y" in values:
            return focal_x, number({**content, **values, **frame}["fl_y"], "fl_y") / height
        if "camera_angle_y" in values and "fl_x" not in values:
            return focal_x, _from_angle(values, "camera_angle_y")
        aspect = 1.0
        if "fl_x" in content and "fl_y" in content:
            aspect = number(content["fl_y"], "fl_y") / (number(content["fl_x"], "fl_x") or math.nan)
        return focal_x, aspect * focal_x * width / height
    raise Rejected("camera has neither fl_x nor camera_angle_x")


def _from_angle(values: Values, key: str) -> float:
    """Normalised focal length of a field of view in radians."""
    angle = number(values[key], key)
    if not 0 < angle < math.pi:
        raise Rejected(f"field of view of {angle:g} radians")
    return 0.5 / math.tan(angle / 2)


def _distortion(values: Values) -> tuple[tuple[float, ...], bool]:
    """Coefficients in OpenCV's order, and whether they are a fisheye's."""
    model = str(values.get("camera_model") or "").upper()
    if model not in PERSPECTIVE + FISHEYE or any(values.get(key) for key in OTHER_LENSES):
        raise Rejected(f"camera model {model or 'without projection'} is not supported")
    fisheye = model in FISHEYE or bool(values.get("is_fisheye"))
    listed = values.get("distortion_params")
    if isinstance(listed, list) and len(listed) == len(LISTED_DISTORTION):
        values = dict(zip(LISTED_DISTORTION, listed, strict=True))
    elif listed and not (isinstance(listed, list) and not any(listed)):
        raise Rejected(f"distortion_params are not the {len(LISTED_DISTORTION)} of nerfstudio")
    k1, k2, p1, p2, k3, k4, k5, k6 = (
        number(values.get(key, 0), key) for key in ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6")
    )
    if fisheye:
        return (k1, k2, k3, k4), True
    if model == "FULL_OPENCV":
        return (k1, k2, p1, p2, k3, k4, k5, k6), False
    if k4:  # OpenCV divides by it, nerfstudio multiplies
        raise Rejected("k4 of a lens that is no fisheye is not supported")
    return (k1, k2, p1, p2, k3), False


def number(value: Any, what: str) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        return float(value)
    except (ValueError, OverflowError):
        raise Rejected(f"{what} is no number") from None


def vector(values: Any, count: int, what: str) -> np.ndarray:
    """[count] from a list of numbers."""
    if not isinstance(values, list) or len(values) != count:
        raise Rejected(f"{what} is no list of {count} numbers")
    return np.array([number(value, what) for value in values])


def matrix(value: Any, what: str) -> np.ndarray:
    """[4, 4] from four or three rows."""
    rows = value if isinstance(value, list) else []
    if len(rows) not in (3, 4) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
        raise Rejected(f"{what} is no 4x4 matrix")
    numbers = [[number(x, what) for x in row] for row in rows]
    return np.array([*numbers, [0.0, 0.0, 0.0, 1.0]][:4])
