"""Polycam's raw data, as the app exports a LiDAR scan, one or many:

    .../<scan>/keyframes/corrected_cameras/<time>.json     a camera, after Polycam's own optimisation
    .../<scan>/keyframes/corrected_images/<time>.jpg       its picture
    .../<scan>/keyframes/{cameras, images}/...             the same before it, where there is no other

A camera holds `fx fy cx cy width height`, in pixels, and `t_00` to `t_23`: camera-to-world [3, 4] in ARKit's world (y
up), with OpenGL axes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import captures, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.posed_photos import OPENCV_FROM_OPENGL
from dfm_jax.data.builders.transforms_cameras import number
from dfm_jax.data.preparing.source import SourceScene

KEYFRAMES = "keyframes"
PLACES = (("corrected_cameras", "corrected_images"), ("cameras", "images"))


class PolycamSource(posed_photos.Captures):
    wanted = (
        "unpacked raw data of a LiDAR scan (keyframes/corrected_cameras/*.json; scans without LiDAR have pictures "
        "only: --format=photos)"
    )

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        return self._places(folder) is not None

    def _read(self, name: str, folder: Path) -> SourceScene:
        folder, cameras, pictures = self._places(folder)

        def photo(name: str, stem: str) -> Photo:
            path = source_files.find_picture(self._root, folder / pictures, name)
            camera = source_files.read_object(folder / cameras / f"{stem}.json")
            fx, fy, cx, cy, width, height = (number(camera.get(key), key) for key in FIELDS)
            pose = [[number(camera.get(f"t_{i}{j}"), f"t_{i}{j}") for j in range(4)] for i in range(3)]
            k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
            lens = posed_photos.lens_from_pixels(k, (width, height))
            return Photo(name, path, posed_photos.rigid(np.array(pose)) @ OPENCV_FROM_OPENGL, lens, (width, height))

        stems = source_files.stems_in(folder / cameras, ".json")
        frames = source_files.views_of(source_files.pictures_in(folder / pictures), stems, ".jpg")
        photos, rejected = posed_photos.read_each(frames, photo)
        attributes = {"cameras": cameras}
        return captures.make_scene(name, photos, rejected, attributes, self._background, listed=list(frames))

    def _places(self, scan: Path) -> tuple[Path, str, str] | None:
        """The folder of keyframes, and of their cameras and pictures in it; None: it is no scan."""
        inside = scan / KEYFRAMES
        if not inside.is_dir() and scan == self._root:
            inside = scan  # the source is itself the folder of keyframes
        for cameras, pictures in PLACES:
            if any((inside / cameras).glob("*.json")):
                return inside, cameras, pictures
        return None


FIELDS = ("fx", "fy", "cx", "cy", "width", "height")
