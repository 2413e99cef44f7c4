"""COLMAP: a folder of photographs and the sparse model that was made of them, one capture or many:

    .../<capture>/images/...                    the photographs, or scaled copies in images_2, images_4, images_8
    .../<capture>/sparse/0/{cameras,images,points3D}.{bin,txt}

The model may also lie in `sparse`, `sparse_text/0`, `colmap/sparse/0`, beside the photographs, or be the source itself.
Of several models of one capture the one with the most images is taken.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from dfm_jax.data.builders import captures, colmap_model, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.colmap_model import Camera, Image, Model
from dfm_jax.data.builders.pictures import Colour
from dfm_jax.data.builders.source import Rejected, SourceScene
from dfm_jax.data.undistort import Lens
from dfm_jax.errors import UserError

SPLIT = "train"
PICTURES = ("images", "images_2", "images_4", "images_8", "input", "")  # '' : beside
MODEL_FOLDERS = ("sparse", "colmap", "distorted", "model")  # how names of folders above a model begin, or a number
TRIED = 20  # images of a model that are looked for before a folder is given up


class ColmapSource:
    def __init__(self, root: Path, background: Colour):
        self._root, self._background = root, background

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {SPLIT: list(self._captures)}

    def read(self, split: str, name: str) -> SourceScene:
        del split  # there is one
        models, rejected = [], []
        for folder in self._captures[name]:
            try:
                models.append((colmap_model.read_model(folder), folder))
            except Rejected as reason:
                rejected.append((f"model {os.path.relpath(folder, self._root)}", str(reason)))
        if not models:
            raise Rejected(rejected[0][1])
        model, folder = max(models, key=lambda pair: len(pair[0].images))  # the first of the largest
        pictures = _pictures(folder, [image.name for image in model.images])
        photos = []
        for image in model.images:
            try:
                photos.append(_photo(model, image, source_files.find_picture(pictures, pictures, image.name)))
            except Rejected as reason:
                rejected.append((image.name, str(reason)))
        attributes = {"model": os.path.relpath(folder, self._root), "pictures": os.path.relpath(pictures, self._root)}
        listed = sorted((image.name for image in model.images), key=source_files.natural_key)
        return captures.make_scene(name, photos, rejected, attributes, self._background, listed=listed)

    @functools.cached_property
    def _captures(self) -> dict[str, list[Path]]:
        """Folders of each capture's models, the most likely first."""
        found: dict[Path, list[Path]] = {}
        for folder, names in source_files.folders(self._root):
            if colmap_model.is_model(names):
                found.setdefault(_capture(folder.absolute()), []).append(folder)
        if not found:
            raise UserError(
                f"no COLMAP model (cameras and images, .bin or .txt) was found at or below --source={self._root}"
            )
        root = self._root.absolute()
        named = []
        for capture, models in found.items():
            # A source inside of a capture takes that one's name.
            name = source_files.scene_name(root if capture.is_relative_to(root) else capture, capture)
            named.append((name, sorted(models, key=_likelihood)))
        return source_files.distinct(named)


def _likelihood(folder: Path) -> tuple:
    return len(folder.parts), not (folder / "images.bin").is_file(), source_files.natural_key(str(folder))


def _upwards(model: Path) -> Iterator[Path]:
    """The model's folder and those above it, up to the first whose name does not belong to a model's place."""
    yield model
    for folder in model.parents:
        if not (model.name.isdecimal() or model.name.startswith(MODEL_FOLDERS)):
            return
        model = folder
        yield folder


def _capture(model: Path) -> Path:
    """The folder that a model belongs to: the nearest with pictures, or else the one that holds all of its place."""
    places = list(_upwards(model))
    named = [pictures for pictures in PICTURES if pictures]
    return next((place for place in places if any((place / name).is_dir() for name in named)), places[-1])


def _pictures(model: Path, names: Sequence[str]) -> Path:
    """The folder that the names of a model's images are relative to.

    Raises:
      Rejected: none was found.
    """
    for place in _upwards(model.absolute()):
        for folder in (place / name for name in PICTURES):
            for name in names[:: max(1, len(names) // TRIED)]:
                try:
                    source_files.find_picture(folder, folder, name)
                except Rejected:
                    continue
                return folder
    raise Rejected(f"none of the model's {len(names)} images was found, in folders images, images_2, ... or beside it")


def _photo(model: Model, image: Image, path: Path) -> Photo:
    camera = model.cameras.get(image.camera)
    if camera is None:
        raise Rejected(f"camera {image.camera} is not in the model")
    seen = model.seen_by(image) if len(model.points) else None
    return Photo(image.name, path, _pose(image), _lens(camera), (camera.width, camera.height), seen)


def _pose(image: Image) -> np.ndarray:
    """Camera-to-world [4, 4]."""
    with np.errstate(all="ignore"):  # what is not finite is rejected later
        w, x, y, z = np.array(image.quaternion) / np.linalg.norm(image.quaternion)
        world_to_camera = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        pose = np.eye(4)
        pose[:3, :3] = world_to_camera.T
        pose[:3, 3] = -world_to_camera.T @ image.translation
    return pose


def _lens(camera: Camera) -> Lens:
    """Raises:
    Rejected: OpenCV has no such lens.
    """
    if camera.width < 1 or camera.height < 1:
        raise Rejected(f"camera is for {camera.width}x{camera.height} pixels")
    p = camera.params
    single = Lens(focal=p[:1] * 2, centre=p[1:3])
    double = Lens(focal=p[:2], centre=p[2:4])
    match camera.model:
        case "SIMPLE_PINHOLE":
            lens = single
        case "PINHOLE":
            lens = double
        case "SIMPLE_RADIAL" | "RADIAL":
            lens = dataclasses.replace(single, distortion=p[3:])
        case "OPENCV" | "FULL_OPENCV":
            lens = dataclasses.replace(double, distortion=p[4:])
        case "SIMPLE_FISHEYE" | "SIMPLE_RADIAL_FISHEYE" | "RADIAL_FISHEYE":
            lens = dataclasses.replace(single, distortion=p[3:], fisheye=True)
        case "FISHEYE" | "OPENCV_FISHEYE":
            lens = dataclasses.replace(double, distortion=p[4:], fisheye=True)
        case _:
            raise Rejected(
                f"camera model {camera.model[:40]} is not supported; undistort the images with COLMAP's "
                "image_undistorter first"
            )
    size = camera.width, camera.height
    return dataclasses.replace(
        lens,
        focal=tuple(f / side for f, side in zip(lens.focal, size, strict=True)),
        centre=tuple(c / side for c, side in zip(lens.centre, size, strict=True)),
    )
