"""ShapeNet-SRN (cars, chairs), as Sitzmann et al. 2019 rendered it and pixelNeRF's users have it:

    .../cars_{train,val,test}/<object>/rgb/000000.png       the pictures, 128x128 on white
    .../cars_{train,val,test}/<object>/pose/000000.txt      camera-to-world [4, 4], OpenCV axes, row by row
    .../cars_{train,val,test}/<object>/intrinsics.txt       first line: f cx cy 0., in pixels; last line: height width

An object below no such folder is a training scene. All objects share one scale, so that the world is left as it is:
cars are seen from a distance of 1.3, chairs from 2.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures.pictures import Colour
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected

SPLITS = {"_train": "train", "_val": "validation", "_test": "test"}  # by how a folder's name ends
INTRINSICS, PICTURES, POSES = "intrinsics.txt", "rgb", "pose"


class SRNSource:
    def __init__(self, root: Path, background: Colour | None):
        self._root, self._background = root, background

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {split: list(scenes) for split, scenes in self._scenes.items()}

    def read(self, split: str, name: str) -> SourceScene:
        folder = self._scenes[split][name]
        frames = _frames(folder)
        try:
            lens, size = _intrinsics(folder / INTRINSICS)
        except Rejected as reason:
            raise refused(str(reason), (), frames) from reason

        def photo(name: str, stem: str) -> Photo:
            path = source_files.find_picture(self._root, folder, f"{PICTURES}/{name}")
            words = source_files.read_words(folder / POSES / f"{stem}.txt")
            pose = posed_photos.rigid(posed_photos.numbers(words, 16, f"{POSES}/{stem}.txt").reshape(4, 4))
            return Photo(name, path, pose, lens, size)

        photos, rejected = posed_photos.read_each(frames, photo)
        scene = captures.make_scene(
            name,
            photos,
            rejected,
            {"category": category} if (category := self._category(folder)) else {},
            self._background,
            object_alone=True,
            listed=list(frames),
            scale=1.0,
        )
        return dataclasses.replace(scene, own_poses=False)

    def _category(self, folder: Path) -> str:
        """'cars' below cars_train."""
        for part in self._parts(folder):
            for end in SPLITS:
                if part.endswith(end):
                    return part.removesuffix(end)
        return ""

    def _split(self, folder: Path) -> str:
        ends = [split for part in self._parts(folder) for end, split in SPLITS.items() if part.endswith(end)]
        return ends[-1] if ends else "train"

    def _parts(self, folder: Path) -> tuple[str, ...]:
        """Names of the folders that an object lies in, from the source's own on."""
        return (self._root.resolve().name, *folder.relative_to(self._root).parts[:-1])

    @functools.cached_property
    def _scenes(self) -> dict[str, dict[str, Path]]:
        found = source_files.scenes_in(
            self._root, _is_object, f"object (a folder with {PICTURES}, {POSES} and {INTRINSICS})"
        )
        by_split: dict[str, list[tuple[str, Path]]] = {}
        for folder in found.values():
            name = text_files.as_text(folder.name or self._root.resolve().name)
            by_split.setdefault(self._split(folder), []).append((name, folder))
        return {split: source_files.distinct(named) for split, named in by_split.items()}


def _is_object(folder: Path, names: Sequence[str]) -> bool:
    return (INTRINSICS in names) + (folder / POSES).is_dir() + (folder / PICTURES).is_dir() >= 2


def _frames(folder: Path) -> dict[str, str]:
    poses = source_files.stems_in(folder / POSES, ".txt")
    return source_files.views_of(source_files.pictures_in(folder / PICTURES), poses, ".png")


def _intrinsics(path: Path) -> tuple[Lens, tuple[float, float]]:
    """The lens of all views, and the size of picture that it is for."""
    words = source_files.read_words(path)
    if len(words) < 6:
        raise Rejected(f"{path.name} has {len(words)} numbers, not f cx cy ... height width")
    focal, x, y = posed_photos.numbers(words[:3], 3, path.name)
    height, width = posed_photos.numbers(words[-2:], 2, path.name)
    k = np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]])
    return posed_photos.lens_from_pixels(k, (width, height)), (width, height)
