"""RealEstate10K in its published layout, wherever below the source its two halves lie:

    .../<split>/<clip>.txt              cameras, see `realestate10k_cameras`
    .../<clip>/<timestamp>.jpg or .png  frames, named by their timestamp; or else
    .../<clip>.mp4 or .webm             a video of the clip; or else
    .../<youtube id>.mp4 or .webm       the whole video

or in the chunks that pixelSplat reads, see `realestate10k_chunks`.
"""

import codecs
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import realestate10k_cameras, realestate10k_chunks, realestate10k_video, source_files, video
from dfm_jax.data.builders.realestate10k_chunks import ChunkClip
from dfm_jax.data.loading.text_files import as_text
from dfm_jax.data.pictures import pictures
from dfm_jax.data.pictures.picture_kinds import SUFFIXES
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.errors import Rejected, UserError

SPLITS = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}  # by folder name
DEFAULT_SPLIT = "train"  # of camera files in folders of other names

Loaders = list[Callable[[], bytes]]


@dataclasses.dataclass(frozen=True)
class _Clip:
    cameras: Path
    folders: tuple[Path, ...]  # that bear the clip's name


@dataclasses.dataclass
class _Tree:
    """What lies below a folder, sorted."""

    text_files: list[Path] = dataclasses.field(default_factory=list)
    folders: dict[str, list[Path]] = dataclasses.field(default_factory=dict)  # by name
    videos: dict[str, Path] = dataclasses.field(default_factory=dict)  # by name without suffix
    chunk_folders: list[Path] = dataclasses.field(default_factory=list)


class RealEstate10KSource:
    def __init__(self, root: Path):
        self._root = root

    def splits(self) -> Mapping[str, Sequence[str]]:
        """Clips by name, but those in chunks by chunk: reading them in another order would take a chunk per clip."""
        return {
            split: [
                *sorted(name for name, clip in clips.items() if isinstance(clip, _Clip)),
                *(name for name, clip in clips.items() if isinstance(clip, ChunkClip)),
            ]
            for split, clips in self._clips.items()
        }

    def read(self, split: str, name: str) -> SourceScene:
        clip = self._clips[split][name]
        if isinstance(clip, ChunkClip):
            return realestate10k_chunks.read(clip, name)
        cameras = realestate10k_cameras.read_cameras(clip.cameras)
        if not cameras.listed:
            raise Rejected("camera file lists no frame")
        try:
            loaders, origin = self._pictures(split, clip, cameras.url, cameras.rows, complete=not cameras.rejected)
        except Rejected as reason:
            if reason.counted_as == realestate10k_cameras.MISSING:  # there is nothing of it but numbers
                raise
            names = map(realestate10k_cameras.frame_name, cameras.rows)
            raise refused(str(reason), cameras.rejected, names) from reason
        columns = zip(cameras.rows, loaders, cameras.numbers, strict=True)
        frames = [realestate10k_cameras.frame(*column) for column in columns]
        return SourceScene(name, frames, cameras.rejected, {"url": cameras.url, **origin}, listed=cameras.listed)

    def _pictures(
        self, split: str, clip: _Clip, url: str, rows: Sequence[np.ndarray], complete: bool
    ) -> tuple[Loaders, dict[str, Any]]:
        """What loads the picture of each row, and attributes that say where from."""
        in_split = sorted(clip.folders, key=lambda folder: SPLITS.get(folder.parent.name) != split)
        files = _pictures_in(in_split[0]) if in_split else {}
        name = clip.cameras.stem
        path = self._tree.videos.get(name) or self._tree.videos.get(_youtube_id(url))
        if files or (in_split and path is None):
            looked_for = os.path.relpath(in_split[0], self._root)
            return [functools.partial(_load, files.get(int(row[0])), f"{looked_for}/{int(row[0])}") for row in rows], {}
        if path is None:
            raise Rejected(
                f"no folder of frames named {name} below the source, and no video", realestate10k_cameras.MISSING
            )
        if not rows:
            return [], {}
        loaders, matched_by = realestate10k_video.loaders(path, rows, complete)
        return loaders, {"video": str(path.relative_to(self._root)), "frames_by": matched_by}

    @functools.cached_property
    def _tree(self) -> _Tree:
        if not self._root.is_dir():
            raise UserError(f"--source={self._root} is not a folder")
        return _walk(self._root)

    @functools.cached_property
    def _clips(self) -> dict[str, dict[str, _Clip | ChunkClip]]:
        clips: dict[str, list[tuple[Sequence[str], _Clip | ChunkClip]]] = {}
        for path in self._tree.text_files:
            found = tuple(self._tree.folders.get(path.stem, ()))
            if found or path.stem in self._tree.videos or _starts_with_url(path):
                parts = path.relative_to(self._root).with_suffix("").parts
                clips.setdefault(_split_of(path.parent), []).append((parts, _Clip(path, found)))
        for folder in self._tree.chunk_folders:
            for clip in realestate10k_chunks.list_clips(folder):
                parts = (*folder.relative_to(self._root).parts, clip.chunk, clip.key)
                clips.setdefault(_split_of(folder), []).append((parts, clip))
        if not clips:
            raise UserError(
                f"no RealEstate10K camera files (<split>/<clip>.txt) or chunks (<split>/*.torch) were found below "
                f"--source={self._root}, which holds {len(self._tree.text_files)} other .txt files"
            )
        return {split: _named(found) for split, found in clips.items()}


def _named(clips: Iterable[tuple[Sequence[str], _Clip | ChunkClip]]) -> dict[str, _Clip | ChunkClip]:
    """Clips of a split, by the last part of their paths, or where that is taken by all of them."""
    taken: set[str] = set()
    named = []
    for parts, clip in clips:
        name = as_text(parts[-1])
        named.append((as_text("-".join(parts)) if name in taken else name, clip))
        taken.add(name)
    return source_files.distinct(named)


def _walk(root: Path) -> _Tree:
    """Everything of use below `root`, following links but not in circles."""
    tree, seen = _Tree(), set()
    for parent, names, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            names.clear()
            continue
        seen.add(real)
        names[:] = sorted(name for name in names if not source_files.is_hidden(name))
        seen_files = (file for file in sorted(files) if not source_files.is_hidden(file))
        paths = [Path(parent, file) for file in seen_files if not file.lower().endswith(SUFFIXES)]
        tree.text_files += [path for path in paths if path.suffix == ".txt"]
        for path in paths:
            if path.suffix.lower() in video.SUFFIXES and path.is_file():
                tree.videos.setdefault(path.stem, path)
        if any(path.suffix == ".torch" for path in paths):
            tree.chunk_folders.append(Path(parent))
        for name in names:
            tree.folders.setdefault(name, []).append(Path(parent, name))
    return tree


def _split_of(folder: Path) -> str:
    return SPLITS.get(folder.resolve().name.lower(), DEFAULT_SPLIT)


def _starts_with_url(path: Path) -> bool:
    if not path.is_file():  # a link to nowhere
        return False
    with path.open("rb") as file:
        return file.read(7).removeprefix(codecs.BOM_UTF8).startswith(b"http")


def _youtube_id(url: str) -> str:
    found = re.search(r"(?:[?&]v=|youtu\.be/)([\w-]+)", url)
    return found[1] if found else ""


def _pictures_in(folder: Path) -> dict[int | str, Path]:
    """Pictures by the timestamp in their names, however padded with zeros."""
    seen = (path for path in sorted(folder.iterdir()) if not source_files.is_hidden(path.name))
    paths = (path for path in seen if path.suffix.lower() in SUFFIXES)
    return {int(path.stem) if path.stem.isdecimal() else path.stem: path for path in paths}


def _load(path: Path | None, looked_for: str) -> bytes:
    if path is None:
        raise Rejected(f"image is missing: looked for {looked_for} with the suffix of a picture")
    return pictures.read_picture(path)
