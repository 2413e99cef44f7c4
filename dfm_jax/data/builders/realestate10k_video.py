"""Frames of a RealEstate10K clip out of a video: the whole one that was annotated, or one cut to the clip."""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.data.builders import video
from dfm_jax.errors import Rejected

MAX_TIME_ERROR = 0.02  # seconds between a frame and its annotation: half a frame of an ordinary video
ASPECT_TOLERANCE = 0.02
MAX_ASPECT = 4.0  # of a picture; intrinsics that say more are wrong


def loaders(path: Path, rows: Sequence[np.ndarray], complete: bool) -> tuple[list[Callable[[], bytes]], str]:
    """What loads the picture of each camera row [19], and how rows were matched with frames of the video.

    `complete`: the camera file had no other lines.

    Raises:
      Rejected: the video cannot be read, or ends before the cameras do.
    """
    times, matched_by = match(video.frame_times(path), np.array([row[0] for row in rows]) * 1e-6, complete)
    pictures = video.Pictures(path, np.nanmax(times, initial=0.0))
    return [functools.partial(_load, pictures, *pair) for pair in zip(times, rows, strict=True)], matched_by


def match(frame_times: np.ndarray, timestamps: np.ndarray, complete: bool) -> tuple[np.ndarray, str]:
    """The time [m] of the frame, out of [n], that belongs to each timestamp [m]; NaN: none does. All are in order.

    A video with as many frames as timestamps has one for each. Otherwise the timestamps are times of the video, or,
    where it is too short for that, of a video that was cut at the first of them. If they are not
    `complete`, only times of the whole video are certain.
    """
    if complete and len(frame_times) == len(timestamps):
        return frame_times, "one frame a line"
    end = frame_times[-1] + MAX_TIME_ERROR
    if timestamps[-1] <= end:
        wanted, matched_by = timestamps, "timestamp in the video"
    elif complete and timestamps[-1] - timestamps[0] <= end:
        wanted, matched_by = timestamps - timestamps[0], "time since the first timestamp"
    else:
        raise Rejected(
            f"video has {len(frame_times)} frames in {frame_times[-1]:.2f} s; the camera file has {len(timestamps)} "
            f"from {timestamps[0]:.2f} s to {timestamps[-1]:.2f} s"
        )
    after = np.searchsorted(frame_times[1:-1], wanted) + 1 if len(frame_times) > 1 else np.zeros(len(wanted), int)
    before = np.maximum(after - 1, 0)
    nearer = np.abs(frame_times[before] - wanted) <= np.abs(frame_times[after] - wanted)
    nearest = frame_times[np.where(nearer, before, after)]
    return np.where(np.abs(nearest - wanted) <= MAX_TIME_ERROR, nearest, np.nan), matched_by


def _load(pictures: video.Pictures, time: float, row: np.ndarray) -> bytes:
    if np.isnan(time):
        raise Rejected(f"video has no frame within {MAX_TIME_ERROR} s of timestamp {row[0]:.0f}")
    return square_pixels(pictures.at(time), row[2] / row[1])


def square_pixels(picture: bytes, aspect: float) -> bytes:
    """A picture reduced to that width by height, where it is another.

    Shared clips were often squeezed to a fixed size; their cameras know the shape of the frame, because the pixels of
    the annotated videos are square.
    """
    image = Image.open(io.BytesIO(picture))
    distortion = image.width / image.height / aspect
    if abs(distortion - 1) <= ASPECT_TOLERANCE or not 1 / MAX_ASPECT < aspect < MAX_ASPECT:
        return picture
    width, height = image.width / max(1, distortion), image.height * min(1, distortion)
    buffer = io.BytesIO()
    image.resize((max(1, round(width)), max(1, round(height))), Image.Resampling.BICUBIC).save(buffer, "BMP")
    return buffer.getvalue()
