"""Photographs or a video without cameras: structure-from-motion finds them, then its model is read as COLMAP's.

DIR/*.jpg               one capture; or several, in folders of their own
DIR/<capture>/images/   whatever else is beside `images` or `input` is passed over
DIR/*.mp4, or one file  a capture each, of frames that are evenly spread over it
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import logging
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.data.builders import captures, colmap, gathered_photos, source_files, video
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures import pictures
from dfm_jax.data.pictures.picture_kinds import SUFFIXES
from dfm_jax.data.preparing import sfm
from dfm_jax.data.preparing.source import SourceFrame, SourceScene, refused
from dfm_jax.errors import Rejected, UserError

logger = logging.getLogger(__name__)

SPLIT = "train"
IMAGES = ("images", "input")
VIDEO_FRAMES = 100
JPEG_OPTIONS = {"quality": 98, "subsampling": 0}  # of frames of a video, which are compressed again when stored


@dataclasses.dataclass(frozen=True)
class _Capture:
    place: Path  # a folder of photographs, or a video
    photos: tuple[str, ...] = ()  # names in the folder


class PhotosSource:
    def __init__(self, root: Path, workspace: Path, background: pictures.Colour, video_frames: int):
        """`workspace`: folder for what is needed until the scenes are written; `video_frames`: to take of a video."""
        self._root, self._workspace, self._background = root, workspace, background
        self._video_frames = video_frames

    def splits(self) -> Mapping[str, Sequence[str]]:
        sfm.require()
        return {SPLIT: list(self._captures)}

    def read(self, split: str, name: str) -> SourceScene:
        del split  # there is one
        capture = self._captures[name]
        workspace = _Workspace(self._workspace / name)
        images = workspace.path / "images"
        images.mkdir()
        times, unreadable = {}, {}
        if capture.photos:
            named, unreadable = gathered_photos.gather(capture.place, capture.photos, images, self._background)
        else:
            times = _extract(capture.place, images, self._video_frames)
            named = {file: file for file in times}
        names = capture.photos or tuple(times)
        logger.info(f"finding the cameras of {len(named)} pictures of {name}")
        try:
            scene, unregistered = self._reconstruct(workspace.path, list(named), bool(times), unreadable)
        except Rejected as reason:
            left = [other for other in names if other not in unreadable]
            raise refused(str(reason), unreadable.items(), left) from reason
        number = captures.first_positions(names)  # among all pictures, also those that the model does not have
        frames = [dataclasses.replace(frame, name=named[frame.name]) for frame in scene.frames]
        kept = [_keep(frame, workspace, times.get(frame.name, np.nan), number[frame.name]) for frame in frames]
        rejected = [(named[file], reason) for file, reason in (*scene.rejected, *unregistered.items())]
        return dataclasses.replace(
            scene,
            name=name,
            frames=sorted(kept, key=lambda frame: frame.number),
            rejected=[*unreadable.items(), *rejected],
            attributes={**scene.attributes, "model": "structure-from-motion", "pictures": str(capture.place)},
            listed=captures.in_natural_order(names),
        )

    def _reconstruct(
        self, workspace: Path, files: Sequence[str], in_sequence: bool, unreadable: Mapping[str, str]
    ) -> tuple[SourceScene, Mapping[str, str]]:
        """The scene that is found, and files that are not in it, with reasons."""
        found = sfm.reconstruct(workspace / "images", files, workspace, in_sequence, unreadable)
        source = colmap.ColmapSource(workspace, self._background, made_here=True)
        ((model,),) = source.splits().values()
        return source.read(colmap.SPLIT, model), found.rejected

    @functools.cached_property
    def _captures(self) -> dict[str, _Capture]:
        if self._root.is_file() and _is_video(self._root.name):
            return {text_files.as_text(self._root.stem): _Capture(self._root)}
        found: list[tuple[str, _Capture]] = []
        whole: list[Path] = []  # captures whose other folders are passed over
        for folder, files in source_files.folders(self._root):
            if any(folder.is_relative_to(place) for place in whole):
                continue
            inner = next((folder / name for name in IMAGES if _photos_in(folder / name)), None)
            if inner is not None:
                whole.append(folder)
            photos = _photos_in(inner or folder)
            name = source_files.scene_name(self._root, folder)
            if photos:
                found.append((name, _Capture(inner or folder, photos)))
            for file in (file for file in files if _is_video(file) and (folder / file).is_file()):
                found.append((f"{name}-{text_files.as_text(Path(file).stem)}", _Capture(folder / file)))
        if not found:
            some = ", ".join(SUFFIXES[:8])
            raise UserError(f"no photographs ({some}, ...) and no video in --source={self._root}")
        return source_files.distinct(found)


class _Workspace:
    """A folder that is removed when nothing refers to this any more, or when the process ends."""

    def __init__(self, path: Path):
        self.path = path.absolute()
        shutil.rmtree(self.path, ignore_errors=True)  # of a run that was killed
        self.path.mkdir(parents=True)
        weakref.finalize(self, _remove, self.path)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # not the last one
        path.parent.rmdir()


def _keep(frame: SourceFrame, workspace: _Workspace, time: float, number: int) -> SourceFrame:
    """The frame, which keeps the workspace from being removed until its picture is no longer needed."""
    load = functools.partial(_load, frame.load, workspace)
    return dataclasses.replace(frame, timestamp=time, load=load, number=number)


def _load(load: Callable[[], bytes], workspace: _Workspace) -> bytes:
    del workspace  # held until here
    return load()


def _extract(path: Path, folder: Path, count: int) -> dict[str, float]:
    """Writes up to `count` frames of a video, evenly spread, into a folder; their times by name.

    Raises:
      Rejected: the video cannot be read.
    """
    times = video.frame_times(path)
    wanted = list(times[video.evenly_spread(len(times), count)])
    written: dict[str, float] = {}
    for time, picture in video.decode(path, wanted[0], wanted[-1]):
        if wanted and time >= wanted[0] - video.SAME_TIME:
            wanted = [other for other in wanted if other > time + video.SAME_TIME]
            name = f"{len(written):05d}.jpg"
            Image.open(io.BytesIO(picture)).save(folder / name, "JPEG", **JPEG_OPTIONS)
            written[name] = time
    if not written:
        raise Rejected(f"video {path.name} does not decode")
    return written


def _photos_in(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    names = (path.name for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    return tuple(sorted(itertools.filterfalse(source_files.is_hidden, names), key=source_files.natural_key))


def _is_video(name: str) -> bool:
    return Path(name).suffix.lower() in video.SUFFIXES
