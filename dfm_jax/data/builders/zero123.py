"""Renderings of Objaverse's objects as Zero-1-to-3 made them (`views_release`):

    .../<object>/000.png       the picture, the object on nothing
    .../<object>/000.npy       world-to-camera [3, 4] (or [4, 4]), OpenGL axes

Each view is seen through Blender's lens of 35 mm before a sensor of 32 mm. All objects fill a unit cube, so that the
world is left as it is.
"""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.posed_photos import OPENCV_FROM_OPENGL
from dfm_jax.data.pictures.pictures import read_header
from dfm_jax.data.preparing.source import SourceScene
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected

FOCAL = 35 / 32  # as a share of the larger side
CAMERA = re.compile(r"\d+\.npy")


class Zero123Source(posed_photos.Captures):
    wanted = "folder with cameras 000.npy, 001.npy, ..."

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        return any(map(CAMERA.fullmatch, names))

    def _read(self, name: str, folder: Path) -> SourceScene:
        frames = _frames(folder)

        def photo(name: str, stem: str) -> Photo:
            path = source_files.find_picture(self._root, folder, name)
            camera = posed_photos.read_array(folder / f"{stem}.npy")
            if camera.shape not in ((3, 4), (4, 4)):
                raise Rejected(f"{stem}.npy is no 3x4 matrix")
            pose = posed_photos.from_world_to_camera(camera) @ OPENCV_FROM_OPENGL
            width, height = size = read_header(path).size
            side = FOCAL * max(size)
            return Photo(name, path, pose, Lens((side / width, side / height), (0.5, 0.5)), size)

        photos, rejected = posed_photos.read_each(frames, photo)
        scene = captures.make_scene(
            name, photos, rejected, {}, self._background, object_alone=True, listed=list(frames), scale=1.0
        )
        return dataclasses.replace(scene, own_poses=False)


def _frames(folder: Path) -> dict[str, str]:
    cameras = [path.stem for path in folder.iterdir() if CAMERA.fullmatch(path.name)]
    return source_files.views_of(source_files.pictures_in(folder), cameras, ".png")
