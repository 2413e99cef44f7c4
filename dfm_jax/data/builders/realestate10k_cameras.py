"""Cameras of RealEstate10K, as text files and as rows of numbers.

A text file's line 1 is the video's URL. Then each line is a frame, in 19 columns:

    timestamp fx fy cx cy 0 0 r11 r12 r13 t1 r21 ... t3

Timestamps are microseconds; intrinsics are normalised by the full frame's width and height; the 3x4 matrix is
world-to-camera with OpenCV axes, in a scale of its own for each clip.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dfm_jax.data.loading import text_files
from dfm_jax.data.preparing.source import SourceFrame
from dfm_jax.errors import Rejected

COLUMNS = 19
MISSING = "missing_videos"  # what clips without pictures are counted as


@dataclasses.dataclass(frozen=True)
class Cameras:
    """A camera file. A frame's number is that of its line among all that list one, from 0, usable or not."""

    url: str  # of the video
    rows: list[np.ndarray]  # [19] of each frame, by time
    numbers: list[int]  # of each row
    rejected: list[tuple[str, str]]  # lines that are no such row, with reasons
    listed: list[tuple[int, str]]  # number and name of every line by time; one that has none follows that before it


def read_cameras(path: Path) -> Cameras:
    """
    Raises:
      Rejected: it cannot be read.
    """
    try:
        lines = text_files.lines(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Rejected(f"camera file cannot be read ({error})") from error
    url = lines[0].strip() if lines and lines[0].startswith("http") else ""
    rows, rejected, listed, time = [], [], [], -np.inf
    for line_number, line in enumerate(lines[1 if url else 0 :], start=2 if url else 1):
        columns, number = line.split(), len(listed)
        if not columns:
            continue
        try:
            row = _parse(columns)
        except ValueError as reason:
            name = f"line {line_number}"
            rejected.append((name, f"camera {reason}"))
        else:
            name, time = frame_name(row), row[0]
            rows.append((number, row))
        listed.append((time, number, name))
    rows.sort(key=lambda entry: entry[1][0])
    listed.sort(key=lambda entry: entry[0])
    return Cameras(url, [row for _, row in rows], [i for i, _ in rows], rejected, [(i, name) for _, i, name in listed])


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


def frame_name(row: np.ndarray) -> str:
    """Of a row [19]."""
    return str(int(row[0]))


def frame(row: np.ndarray, load: Callable[[], bytes], number: int) -> SourceFrame:
    """A row [19], the picture that belongs to it, and its number in the source."""
    world_to_camera = np.eye(4)
    world_to_camera[:3] = row[7:].reshape(3, 4)
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    camera_to_world = np.eye(4)
    camera_to_world[:3, :3] = rotation.T  # the writer checks that this is the inverse
    camera_to_world[:3, 3] = -rotation.T @ translation
    intrinsics = np.array([[row[1], 0, row[3]], [0, row[2], row[4]], [0, 0, 1]])
    return SourceFrame(frame_name(row), camera_to_world, intrinsics, row[0] * 1e-6, load, number)
