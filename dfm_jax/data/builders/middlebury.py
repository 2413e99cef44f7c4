"""Middlebury's multi-view stereo: `<capture>_par.txt` beside the photographs, one capture or many.

The first line counts the images; then one line each: the file's name, the 3x3 intrinsics K in pixels, the 3x3 rotation
and the translation of the world-to-camera pose with OpenCV axes, row by row. The photographs show an object on black.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures.pictures import Colour, read_header
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.errors import Rejected, UserError

SPLIT = "train"
SUFFIX = "_par.txt"
NUMBERS = 21  # on a line, after the name


class MiddleburySource:
    def __init__(self, root: Path, background: Colour):
        self._root, self._background = root, background

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {SPLIT: list(self._captures)}

    def read(self, split: str, name: str) -> SourceScene:
        del split  # there is one
        file = self._captures[name]
        lines = [line.split() for line in source_files.read_lines(file)[1:]]
        photos, rejected, listed = [], [], []
        for columns in filter(None, lines):
            listed.append(columns[0])
            try:
                photos.append(self._photo(file.parent, columns))
            except Rejected as reason:
                rejected.append((columns[0], str(reason)))
        listed.sort(key=source_files.natural_key)
        return captures.make_scene(name, photos, rejected, {}, self._background, object_alone=True, listed=listed)

    def _photo(self, folder: Path, columns: Sequence[str]) -> Photo:
        if len(columns) != 1 + NUMBERS:
            raise Rejected(f"line has {len(columns)} columns, not {1 + NUMBERS}")
        numbers = posed_photos.numbers(columns[1:], NUMBERS, "camera")
        path = source_files.find_picture(self._root, folder, columns[0])
        size = read_header(path).size
        k, rotation = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)
        pose = posed_photos.from_world_to_camera(np.column_stack([rotation, numbers[18:]]))
        return Photo(columns[0], path, pose, posed_photos.lens_from_pixels(k, size), size)

    @functools.cached_property
    def _captures(self) -> dict[str, Path]:
        found: list[tuple[str, Path]] = []
        for folder, names in source_files.folders(self._root):
            for name in names:
                if name.endswith(SUFFIX):
                    own = text_files.as_text(name.removesuffix(SUFFIX))
                    inner = "" if folder == self._root else f"{source_files.scene_name(self._root, folder)}-"
                    found.append((f"{inner}{own}", folder / name))
        if not found:
            raise UserError(f"no file *{SUFFIX} was found at or below --source={self._root}")
        return source_files.distinct(found)
