"""Camera paths, played in a browser and rendered to a file."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.structs import Camera
from dfm_jax.viewer.files import written
from dfm_jax.viewer.frames import Frame, Speed
from dfm_jax.viewer.jobs import Job
from dfm_jax.viewer.limits import frame_size
from dfm_jax.viewer.overlays import picture
from dfm_jax.viewer.paths import with_aspect
from dfm_jax.viewer.scheduler import Shot
from dfm_jax.visualization.pictures import FRAMES_PER_SECOND, write_video


def play(browser: Any, cameras: Camera, ended: threading.Event) -> None:
    """Moves a browser's camera along a path [n], in the time that its video will take, until it is told to end."""
    for i in range(len(cameras.intrinsics)):
        browser.look_through(Camera(cameras.camera_to_world[i], cameras.intrinsics[i]))
        if ended.wait(1 / FRAMES_PER_SECOND):
            return


def write(folder: Path, name: str, shot: Shot, cameras: Camera, side: int, grid: str, job: Job) -> Path:
    """Renders what a shot shows along a path [n] to an mp4 file below `folder`, and returns its path.

    Args:
      name: of the file; a number follows where there is one already.
      side: longer side of the frames, pixels.

    Raises:
      UserError: it cannot be written.
      Stopped: the job was told to end; nothing is written then.
    """
    cameras, size = with_aspect(cameras, shot.aspect), frame_size(shot.aspect, side)
    images, speed, count = [], Speed(), len(cameras.intrinsics)
    for i in range(count):
        frame = Frame(shot.scenes, Camera(cameras.camera_to_world[i], cameras.intrinsics[i]), size, grid)
        while not frame.done:
            job.progress(i / count)
            frame.advance(speed)
        images.append(picture(frame.views, shot.about))
    return written(folder, f"{name}.mp4", lambda path: write_video(path, np.stack(images)))
