"""Frames of a video by their time of presentation, decoded with the ffmpeg binary of imageio-ffmpeg.

Times are seconds from the start of the file. Frames come as BMP files: lossless, and quick to make and to read.
"""

import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
from jaxtyping import Int

from dfm_jax.errors import Rejected

SUFFIXES = (".mp4", ".m4v", ".mov", ".webm", ".mkv")
# Containers of those. Not playlists, whatever a file's name is: they would open other files.
CONTAINERS = "mov,matroska"
BMP_HEADER = struct.Struct("<2sI")  # and the size of the whole file, bytes
MAX_FRAME_BYTES = 2**28  # an 8K frame takes 100 MB
TIME_OUT = 600  # seconds for listing frames, which decodes none
SAME_TIME = 0.002  # seconds; clocks of containers tick each millisecond or faster


def frame_times(path: Path) -> np.ndarray:
    """Times [n] of all frames in order, read from the container alone.

    Raises:
      Rejected: it is no video, or a truncated one.
    """
    command = [*_ffmpeg("error", path), "-c", "copy", "-f", "framecrc", "-"]
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIME_OUT)
    except subprocess.TimeoutExpired as error:
        raise Rejected(f"video {path.name} took longer than {TIME_OUT} s to read") from error
    listing = result.stdout.decode(errors="replace")
    clock = re.search(r"^#tb 0: (\d+)/(\d+)", listing, re.MULTILINE)
    ticks = [int(line.split(",")[2]) for line in listing.splitlines() if line.startswith("0,")]
    ticks = sorted(tick for tick in ticks if tick >= 0)  # those before the start are cut away by the container
    if clock is None or not ticks or int(clock[2]) == 0:
        reasons = result.stderr.decode(errors="replace").strip().splitlines() or ["no frames"]
        raise Rejected(f"video {path.name} cannot be read ({reasons[-1][:200]})")
    return np.array(ticks) * (int(clock[1]) / int(clock[2]))


def decode(path: Path, start: float, stop: float) -> Iterator[tuple[float, bytes]]:
    """Time and picture of each frame from `start` to `stop`, in one pass, one frame in memory.

    The iterator ends early where the video cannot be decoded on, so that no frame is taken for another.
    """
    seek = max(0.0, start - SAME_TIME)
    pictures = ["-fps_mode", "passthrough", "-c:v", "bmp", "-pix_fmt", "bgr24", "-f", "image2pipe", "-"]
    filters = "showinfo=checksum=0,scale=flags=bicubic+accurate_rnd+full_chroma_int"
    command = [*_ffmpeg("info", path, "-xerror", "-ss", f"{seek:.6f}"), "-vf", filters, *pictures]
    with tempfile.NamedTemporaryFile() as log, open(log.name, errors="replace") as times:
        # The log is a file, not a pipe that would have to be emptied; a frame's time is in it before its picture comes.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        try:
            while (picture := _read_bmp(process.stdout)) and (time := _next_time(times)) is not None:
                if seek + time > stop + SAME_TIME:
                    return
                yield seek + time, picture
        finally:
            process.kill()
            process.stdout.close()
            process.wait()


def evenly_spread(num_frames: int, count: int) -> Int[np.ndarray, " n"]:
    """Numbers of up to `count` of a video's frames, the first and the last among them."""
    return np.unique(np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int))


class Pictures:
    """Of a video, decoded in one pass as long as they are asked for in order."""

    def __init__(self, path: Path, stop: float):
        """`stop`: the last time that is asked for."""
        self._path, self._stop = path, stop
        self._decoder: Iterator[tuple[float, bytes]] | None = None
        self._time, self._picture = np.inf, b""

    def at(self, time: float) -> bytes:
        """The frame of that time, a BMP file.

        Raises:
          Rejected: it does not decode.
        """
        if self._decoder is None or time < self._time - SAME_TIME:
            self._decoder = decode(self._path, time, self._stop)
            self._time = -np.inf
        while self._time < time - SAME_TIME:
            self._time, self._picture = next(self._decoder, (np.inf, b""))
        if self._time > time + SAME_TIME:
            raise Rejected(f"video {self._path.name} does not decode at {time:.3f} s")
        return self._picture


def _ffmpeg(log_level: str, path: Path, *options: str) -> list[str]:
    quiet = ["-hide_banner", "-nostats", "-loglevel", log_level]
    safe = ["-protocol_whitelist", "file", "-format_whitelist", CONTAINERS]
    return [imageio_ffmpeg.get_ffmpeg_exe(), *quiet, *options, *safe, "-i", f"file:{path}", "-map", "0:v:0"]


def _read_bmp(stream: IO[bytes]) -> bytes:
    """The next picture; empty at the end of the stream."""
    header = stream.read(BMP_HEADER.size)
    if len(header) < BMP_HEADER.size:
        return b""
    magic, size = BMP_HEADER.unpack(header)
    if magic != b"BM" or size > MAX_FRAME_BYTES:
        return b""
    rest = stream.read(size - len(header))
    return header + rest if len(rest) == size - len(header) else b""


def _next_time(log: IO[str]) -> float | None:
    for line in log:
        if found := re.match(r"\[Parsed_showinfo\S* @ \w+\] n: *\d+ pts:.* pts_time:([\d.e-]+)", line):
            return float(found[1])
    return None
