"""Minens: figures of a game, each seen from a few sides, made for viewset diffusion because one side does not tell the
other. A folder of arrays:

    imgs_<set>.npy       [objects, views, 48, 48, 3 or 4] uint8, transparent where there is nothing (not in `testing`)
    cameras_<set>.npy    [objects, views, 4, 4] world-to-camera, OpenGL axes, for row vectors: x_camera = x_world M

Every camera sees 15 degrees, from a distance of 5 to the origin. The sets `training`, `testing` and
`ID_skin_OOD_pose_OOD_cond` (figures of the first in other postures) become the splits train, test and validation.
"""

import functools
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dfm_jax.data.builders import masks, posed_photos, source_files
from dfm_jax.data.builders.posed_photos import OPENCV_FROM_OPENGL
from dfm_jax.data.pictures.pictures import Colour, flatten
from dfm_jax.data.preparing.source import SourceFrame, SourceScene
from dfm_jax.errors import Rejected, UserError

SETS = {"training": "train", "ID_skin_OOD_pose_OOD_cond": "validation", "testing": "test"}
PICTURES = re.compile(r"imgs_(\w+)\.npy")
FIELD_OF_VIEW = np.deg2rad(15.0)
NEAR, FAR = 3.5, 6.5  # as the published code has them


class MinensSource:
    def __init__(self, root: Path, background: Colour | None):
        self._root, self._background = root, background

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {split: [f"{i:05d}" for i in range(len(self._array(file)))] for split, file in self._files.items()}

    def read(self, split: str, name: str) -> SourceScene:
        file = self._files[split]
        images, cameras = self._array(file)[int(name)], self._array(_cameras_of(file))[int(name)]
        focal = 0.5 / np.tan(FIELD_OF_VIEW / 2)
        frames, rejected = [], []
        for view, (image, camera) in enumerate(zip(images, cameras, strict=True)):
            try:
                pose = posed_photos.from_world_to_camera(np.asarray(camera, np.float64).T) @ OPENCV_FROM_OPENGL
            except Rejected as reason:
                rejected.append((str(view), str(reason)))
                continue
            frames.append(
                SourceFrame(
                    name=str(view),
                    camera_to_world=pose,
                    intrinsics=np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]]),
                    timestamp=float("nan"),
                    load=functools.partial(_png, image, self._background),
                    load_mask=functools.partial(_opacity, image),
                    number=view,
                )
            )
        listed = [(view, str(view)) for view in range(len(images))]
        attributes = {"set": PICTURES.fullmatch(file.name)[1]}
        return SourceScene(name, frames, rejected, attributes, near=NEAR, far=FAR, listed=listed)

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        """Pictures of each split, after a look at their shapes."""
        files: dict[str, Path] = {}
        for folder, names in source_files.folders(self._root):
            for match in filter(None, map(PICTURES.fullmatch, names)):
                split, file = SETS.get(match[1], match[1]), folder / match[0]
                if split in files:
                    raise UserError(f"--source={self._root} has two of {match[0]}: name the folder of one of them")
                self._check(file)
                files[split] = file
        if not files:
            raise UserError(f"no imgs_training.npy, imgs_testing.npy, ... was found at or below --source={self._root}")
        return {split: files[split] for split in sorted(files, key=[*SETS.values(), *files].index)}

    def _check(self, file: Path) -> None:
        """
        Raises:
          UserError: the arrays of a set are damaged, or do not go together.
        """
        images, cameras = self._array(file), self._array(_cameras_of(file))
        if images.dtype != np.uint8 or images.ndim != 5 or images.shape[-1] not in (3, 4):
            raise UserError(
                f"{file} holds {images.dtype} of shape {list(images.shape)}, not uint8 [objects, views, height, width, "
                "3 or 4]"
            )
        if cameras.shape != (*images.shape[:2], 4, 4):
            wanted = [*images.shape[:2], 4, 4]
            raise UserError(
                f"{_cameras_of(file)} has shape {list(cameras.shape)}, not {wanted} as its pictures ask for"
            )

    def _array(self, file: Path) -> np.ndarray:
        """Opened anew each time: what is mapped cannot be sent to the processes that convert."""
        try:
            return posed_photos.read_array(file, mapped=True)
        except Rejected as reason:
            raise UserError(f"in {file.parent}: {reason}") from reason


def _cameras_of(file: Path) -> Path:
    return file.with_name(f"cameras_{file.name.removeprefix('imgs_')}")


def _opacity(image: np.ndarray) -> Image.Image | None:
    return masks.opacity(Image.fromarray(np.asarray(image)))


def _png(image: np.ndarray, background: Colour | None) -> bytes:
    buffer = io.BytesIO()
    flatten(Image.fromarray(np.asarray(image)), background).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
