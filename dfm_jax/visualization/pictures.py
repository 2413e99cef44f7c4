"""Pictures and videos of scenes: depth in colour, labelled grids, and mp4 files.

Images are [h, w, 3], float in [0, 1] or uint8; what goes to a file or a logger is uint8.
"""

import errno
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfm_jax.errors import UserError

# Pictures smaller than this are enlarged by whole pixels, so that a person (and a video codec) can see them.
MIN_SIDE = 192
FRAMES_PER_SECOND = 15
OTHER_FFMPEG = "pip install --force-reinstall imageio-ffmpeg brings one that does; IMAGEIO_FFMPEG_EXE may name another"
_PAPER = (255, 255, 255)
_INK = (40, 40, 48)


def _colours(name: str) -> Callable[[np.ndarray], np.ndarray]:
    """matplotlib's colour map of values in [0, 1], in RGBA. It is imported when a picture needs it: that takes long."""
    from dfm_jax.visualization.figures import colormaps

    return colormaps[name]


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Images in [0, 1] (clipped to it) as uint8, rounded; uint8 images as they are."""
    if image.dtype == np.uint8:
        return image
    return np.round(np.clip(np.asarray(image, np.float32), 0.0, 1.0) * 255.0).astype(np.uint8)


def enlarge(images: np.ndarray, min_side: int = MIN_SIDE) -> np.ndarray:
    """Images [*batch, h, w, c] with every pixel repeated until the shorter side has at least `min_side` pixels."""
    factor = max(1, -(-min_side // min(images.shape[-3:-1])))
    return images.repeat(factor, axis=-3).repeat(factor, axis=-2)


def fit(image: np.ndarray, side: int) -> np.ndarray:
    """A square image [h, w, 3] as uint8 [side, side, 3]: enlarged with hard pixels, or reduced by averaging."""
    kind = Image.Resampling.NEAREST if len(image) <= side else Image.Resampling.BOX
    return np.asarray(Image.fromarray(to_uint8(image)).resize((side, side), kind))


def colour_depth(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Distances [*batch, h, w] as colours [*batch, h, w, 3] in [0, 1]: near bright, far (and beyond) dark.

    Coloured by inverse distance, in which equal steps look like equal steps.
    """
    closeness = (1.0 / np.clip(depth, near, far) - 1.0 / far) / (1.0 / near - 1.0 / far)
    return _colours("magma")(closeness)[..., :3]


def colour_variance(variance: np.ndarray) -> np.ndarray:
    """Per-pixel variance [h, w, 3], averaged over colours, as a heat map [h, w, 3] in [0, 1]; black is 0, and the
    brightest is 1/8 and more."""
    return _colours("inferno")(np.clip(variance.mean(-1) * 8.0, 0.0, 1.0))[..., :3]


def colour_uncertainty(variance: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Per-pixel variance [h, w, 3] of samples as a glow over their `mean` [h, w, 3] in grey: [h, w, 3] in [0, 1].

    The glow is in proportion to the standard deviation, averaged over colours in square; 0.35 (samples of clearly
    different colours) and more is full strength.
    """
    strength = np.clip(np.sqrt(variance.mean(-1, keepdims=True)) / 0.35, 0.0, 1.0)
    grey = mean.mean(-1, keepdims=True) * 0.55
    glow = _colours("inferno")(0.35 + 0.6 * strength[..., 0])[..., :3]
    return (1.0 - strength) * grey + strength * glow


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    column_labels: Sequence[str],
    row_labels: Sequence[str] = (),
    *,
    side: int = MIN_SIDE,
    gap: int = 6,
    rows_together: int = 0,
) -> np.ndarray:
    """A contact sheet: rows of square cells with labels above the columns and left of the rows.

    Args:
      rows: images, or None for an empty cell; every row as long as `column_labels`.
      column_labels: text above each column; an empty text is left out.
      row_labels: text left of each row; none: no room is kept for it.
      side: side of a cell, pixels.
      gap: pixels between cells.
      rows_together: so many rows belong together: more room is left after each; 0: after none.
    Returns:
      uint8 [H, W, 3].
    """
    font = ImageFont.load_default(max(11, side // 13))
    left = gap + (int(max(font.getlength(t) for t in row_labels)) + gap if row_labels else 0)
    top = gap + int(1.6 * font.size)
    tops = [top + i * (side + gap) + (2 * gap * (i // rows_together) if rows_together else 0) for i in range(len(rows))]
    sheet = Image.new("RGB", (left + len(column_labels) * (side + gap), tops[-1] + side + gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for j, text in enumerate(column_labels):
        draw.text((left + j * (side + gap) + side / 2, top - gap), text, _INK, font, anchor="ms")
    for i, row in enumerate(rows):
        y = tops[i]
        if row_labels:
            draw.text((left - gap, y + side / 2), row_labels[i], _INK, font, anchor="rm")
        for j, image in enumerate(row):
            if image is not None:
                sheet.paste(Image.fromarray(fit(image, side)), (left + j * (side + gap), y))
    return np.asarray(sheet)


def write_png(path: Path, image: np.ndarray) -> None:
    Image.fromarray(to_uint8(image)).save(path)


def write_video(path: Path, frames: np.ndarray, *, fps: float = FRAMES_PER_SECOND) -> None:
    """Frames [n, h, w, 3] as an H.264 mp4 that browsers play, small frames enlarged.

    Sides are cut to even lengths, which the codec's 4:2:0 colour needs. ffmpeg is run directly: imageio's writer starts
    it by a fork in which Python runs, and that may deadlock beside jax's threads.

    Raises:
      UserError: ffmpeg is missing, cannot encode this, or cannot write there.
    """
    frames = enlarge(to_uint8(frames))
    height, width = (side - side % 2 for side in frames.shape[1:3])
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    coding = ["-c:v", "libx264", "-crf", "16", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        done = subprocess.run(
            [program, "-loglevel", "error", "-y", *source, *coding, str(path)],
            input=frames[:, :height, :width].tobytes(),
            capture_output=True,
            check=False,
            start_new_session=True,  # Ctrl-C is for this program, which ends that one
        )
    except (RuntimeError, OSError) as error:  # there is none, or it is no program
        raise UserError(f"no video can be written, ffmpeg does not run: {error}; {OTHER_FFMPEG}") from error
    if done.returncode or not path.is_file() or not path.stat().st_size:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        if any(os.strerror(errno.ENOSPC) in line for line in said):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        raise UserError(f"{program} cannot write an H.264 video to {path}: {said[0]}; {OTHER_FFMPEG}")


def check_video_encoder(folder: Path) -> None:
    """Sees that videos can be written to a folder, before what they will show is computed.

    Raises:
      UserError: they cannot.
    """
    path = folder / "two_frames.mp4"
    write_video(path, np.zeros((2, MIN_SIDE, MIN_SIDE, 3), np.uint8))
    path.unlink()
