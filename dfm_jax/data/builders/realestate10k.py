"""RealEstate10K in its published layout, wherever below the source its two halves lie:

    .../<split>/<clip>.txt              line 1: the video's URL; then a frame a line, 19 columns:
                                        timestamp fx fy cx cy 0 0 r11 r12 r13 t1 r21 ... t3
    .../<clip>/<timestamp>.jpg or .png  the frames, named by their timestamp

Timestamps are microseconds; intrinsics are normalised by the full frame's width and height; the 3x4 matrix is
world-to-camera with OpenCV axes, in a scale of its own for each clip.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders.source import Rejected, SourceFrame, SourceScene
from dfm_jax.errors import UserError

COLUMNS = 19
SPLITS = {"train": "train", "test": "test", "val": "validation", "validation": "validation"}  # by folder name
DEFAULT_SPLIT = "train"  # of camera files in folders of other names
PICTURES = (".jpg", ".jpeg", ".png")


@dataclasses.dataclass(frozen=True)
class _Clip:
    cameras: Path
    folders: tuple[Path, ...]  # that bear the clip's name


class RealEstate10KSource:
    def __init__(self, root: Path):
        self._root = root

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {split: sorted(clips) for split, clips in self._clips.items()}

    def read(self, split: str, name: str) -> SourceScene:
        clip = self._clips[split][name]
        if not clip.folders:
            raise Rejected(f"no folder of frames named {name} below the source")
        folder = next((folder for folder in clip.folders if SPLITS.get(folder.parent.name) == split), clip.folders[0])
        url, rows, rejected = _read_cameras(clip.cameras)
        if not rows and not rejected:
            raise Rejected("camera file lists no frame")
        files = {_stem(path): path for path in sorted(folder.iterdir()) if path.suffix.lower() in PICTURES}
        frames = [_frame(row, files.get(int(row[0]))) for row in sorted(rows, key=lambda row: row[0])]
        return SourceScene(name, frames, rejected, {"url": url})

    @functools.cached_property
    def _clips(self) -> dict[str, dict[str, _Clip]]:
        if not self._root.is_dir():
            raise UserError(f"--source={self._root} is not a folder")
        text_files, folders = _walk(self._root)
        clips: dict[str, dict[str, _Clip]] = {}
        for path in text_files:
            found = tuple(folders.get(path.stem, ()))
            if found or _starts_with_url(path):
                split = clips.setdefault(SPLITS.get(path.resolve().parent.name.lower(), DEFAULT_SPLIT), {})
                relative = path.relative_to(self._root).with_suffix("")
                split["-".join(relative.parts) if path.stem in split else path.stem] = _Clip(path, found)
        if not clips:
            raise UserError(
                f"no RealEstate10K camera files (<split>/<clip>.txt) were found below --source={self._root}, which "
                f"holds {len(text_files)} other .txt files"
            )
        return clips


def _walk(root: Path) -> tuple[list[Path], dict[str, list[Path]]]:
    """All .txt files below `root`, and all folders by name; sorted, following links but not in circles."""
    text_files, folders, seen = [], {}, set()
    for parent, names, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            names.clear()
            continue
        seen.add(real)
        names.sort()
        text_files += [Path(parent, file) for file in sorted(files) if file.endswith(".txt")]
        for name in names:
            folders.setdefault(name, []).append(Path(parent, name))
    return text_files, folders


def _starts_with_url(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"http"


def _read_cameras(path: Path) -> tuple[str, list[np.ndarray], list[tuple[str, str]]]:
    """The video's URL, one row of numbers a frame, and the lines that are no such row, with reasons."""
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
    return url, rows, rejected


def _parse(columns: list[str]) -> np.ndarray:
    if len(columns) != COLUMNS:
        raise ValueError(f"line has {len(columns)} columns, not {COLUMNS}")
    row = np.array([float(column) for column in columns])
    if not np.isfinite(row[0]):
        raise ValueError("timestamp is not finite")
    if row[5:7].any():
        raise ValueError(f"line has lens distortion ({columns[5]}, {columns[6]}), which is not supported")
    return row


def _frame(row: np.ndarray, path: Path | None) -> SourceFrame:
    world_to_camera = np.eye(4)
    world_to_camera[:3] = row[7:].reshape(3, 4)
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    camera_to_world = np.eye(4)
    camera_to_world[:3, :3] = rotation.T  # the writer checks that this is the inverse
    camera_to_world[:3, 3] = -rotation.T @ translation
    intrinsics = np.array([[row[1], 0, row[3]], [0, row[2], row[4]], [0, 0, 1]])
    name = str(int(row[0]))
    return SourceFrame(name, camera_to_world, intrinsics, row[0] * 1e-6, functools.partial(_load, path, name))


def _load(path: Path | None, name: str) -> bytes:
    if path is None:
        raise Rejected(f"image {name} is missing")
    try:
        return path.read_bytes()
    except OSError as error:
        raise Rejected(f"image cannot be read ({error})") from error


def _stem(path: Path) -> int | str:
    """Timestamp in a file's name, however padded with zeros."""
    return int(path.stem) if path.stem.isdecimal() else path.stem
