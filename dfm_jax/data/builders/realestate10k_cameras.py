"""Cameras of RealEstate10K, as text files and as rows of numbers.

A text file's line 1 is the video's URL. Then each line is a frame, in 19 columns:

    timestamp fx fy cx cy 0 0 r11 r12 r13 t1 r21 ... t3

Timestamps are microseconds; intrinsics are normalised by the full frame's width and height; the 3x4 matrix is
world-to-camera with OpenCV axes, in a scale of its own for each clip.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from dfm_jax.data.builders.source import Rejected, SourceFrame

COLUMNS = 19
MISSING = "missing_videos"  # what clips without pictures are counted as


def read_cameras(path: Path) -> tuple[str, list[np.ndarray], list[tuple[str, str]]]:
    """The video's URL, one row [19] a frame by time, and the lines that are no such row, with reasons."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"camera file cannot be read ({error})") from error
    url = lines[0].strip() if lines and lines[0].startswith("http") else ""
    rows, rejected = [], []
    for number, line in enumerate(lines[1 if url else 0 :], start=2 if url else 1):
        columns = line.split()
        if not columns:
            continue
        try:
            rows.append(_parse(columns))
        except ValueError as reason:
            rejected.append((f"line {number}", f"camera {reason}"))
    return url, sorted(rows, key=lambda row: row[0]), rejected


def _parse(columns: list[str]) -> np.ndarray:
    if len(columns) != COLUMNS:
        raise ValueError(f"line has {len(columns)} columns, not {COLUMNS}")
    row = np.array([float(column) for column in columns])
    check(row)
    return row


def check(row: np.ndarray) -> None:
    """
    Raises:
      ValueError: with what makes the row [19] useless, apart from what the writer checks.
    """
    if not np.isfinite(row[0]):
        raise ValueError("timestamp is not finite")
    if row[5:7].any():
        raise ValueError(f"has lens distortion ({row[5]:g}, {row[6]:g}), which is not supported")


def frame(row: np.ndarray, load: Callable[[], bytes]) -> SourceFrame:
    """A row [19] and the picture that belongs to it."""
    world_to_camera = np.eye(4)
    world_to_camera[:3] = row[7:].reshape(3, 4)
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    camera_to_world = np.eye(4)
    camera_to_world[:3, :3] = rotation.T  # the writer checks that this is the inverse
    camera_to_world[:3, 3] = -rotation.T @ translation
    intrinsics = np.array([[row[1], 0, row[3]], [0, row[2], row[4]], [0, 0, 1]])
    return SourceFrame(str(int(row[0])), camera_to_world, intrinsics, row[0] * 1e-6, load)
