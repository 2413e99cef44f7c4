"""Videos as they are, without cameras: for models that look at none, such as those of motion.

DIR/.../*.mp4, or one file      a scene each

Nothing finds out where the camera was, so it is taken to stand still, with a lens of ordinary width; models of scenes
need `photos`, which does.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import source_files, video
from dfm_jax.data.loading import text_files
from dfm_jax.data.preparing.source import SourceFrame, SourceScene
from dfm_jax.errors import UserError

SPLIT = "train"
FOCAL_LENGTH = 1.2  # picture widths


class VideosSource:
    def __init__(self, root: Path, num_frames: int | None):
        """`num_frames`: to take of each video, evenly spread; None: all."""
        self._root, self._num_frames = root, num_frames

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {SPLIT: list(self._videos)}

    def read(self, split: str, name: str) -> SourceScene:
        path = self._videos[name]
        times = video.frame_times(path)
        if self._num_frames is not None:
            times = times[video.evenly_spread(len(times), self._num_frames)]
        pictures = video.Pictures(path, times[-1])
        intrinsics = np.array([[FOCAL_LENGTH, 0, 0.5], [0, FOCAL_LENGTH, 0.5], [0, 0, 1]])
        frames = [
            SourceFrame(
                name=f"{i:06d}",
                camera_to_world=np.eye(4),
                intrinsics=intrinsics,
                timestamp=float(time),
                load=functools.partial(pictures.at, time),
                number=i,
            )
            for i, time in enumerate(times)
        ]
        return SourceScene(name, frames, attributes={"video": path.name, "cameras": "none"})

    @functools.cached_property
    def _videos(self) -> dict[str, Path]:
        if self._root.is_file():
            return {text_files.as_text(self._root.stem): self._root}
        found = [folder / file for folder, files in source_files.folders(self._root) for file in files]
        videos = [path for path in found if path.suffix.lower() in video.SUFFIXES and path.is_file()]
        if not videos:
            raise UserError(f"no video ({', '.join(video.SUFFIXES)}) in --source={self._root}")
        return source_files.distinct((text_files.as_text(path.stem), path) for path in videos)
