"""DL3DV-10K and its benchmark, as they are unpacked; the files are those of `transforms_json`:

    .../1K/<scene>/transforms.json, images_4             the pictures are reduced copies of those that it names
    .../<scene>/nerfstudio/transforms.json, images_4     the benchmark; gaussian_splat beside it has the same pictures

Scenes are called by their hashes, as index files name them. Those below a folder with `benchmark` in its name are test
scenes, all others training scenes.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dfm_jax.data.builders import source_files
from dfm_jax.data.builders.transforms_json import WHOLE, Captures, TransformsSource
from dfm_jax.data.loading.text_files import as_text
from dfm_jax.data.pictures.pictures import Colour
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.errors import UserError

INNER = "nerfstudio"
BENCHMARK = re.compile("benchmark", re.IGNORECASE)


class DL3DVSource:
    def __init__(self, root: Path, background: Colour | None):
        self._transforms = TransformsSource(root, background, find=find)

    def splits(self) -> Mapping[str, Sequence[str]]:
        return self._transforms.splits()

    def read(self, split: str, name: str) -> SourceScene:
        return dataclasses.replace(self._transforms.read(split, name), own_poses=False)


def find(root: Path) -> Captures:
    """The file of each scene, under its split.

    Raises:
      UserError: there are none.
    """
    files: dict[Path, Path] = {}
    for folder, names in source_files.folders(root):
        if WHOLE in names:
            files.setdefault(folder.resolve().parent if folder.name == INNER else folder.resolve(), folder / WHOLE)
    if not files:
        raise UserError(
            f"no {WHOLE} was found at or below --source={root} (the .zip files of scenes: unpack them first)"
        )
    above = root.resolve().parent
    named = []
    for scene, file in files.items():
        parts = scene.relative_to(above).parts if scene.is_relative_to(above) else scene.parts[-1:]
        split = "test" if any(map(BENCHMARK.search, parts)) else "train"
        named.append((as_text(scene.name), {split: file}))
    return source_files.distinct(named)
