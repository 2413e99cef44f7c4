"""COLMAP: a folder of photographs and the sparse model that was made of them, one capture or many:

    .../<capture>/images/...                    the photographs, or scaled copies in images_2, images_4, images_8
    .../<capture>/sparse/0/{cameras,images,points3D}.{bin,txt}

The model may also lie in `sparse`, `sparse_text/0`, `colmap/sparse/0`, beside the photographs, or be the source itself.
Of several models of one capture the one with the most images is taken, with the folder of pictures that it is about
(see `colmap_places`). Pictures in that folder that the model does not have are listed as rejected.
"""

import dataclasses
import functools
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.data.builders import captures, colmap_model, colmap_places, point_clouds, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.colmap_model import Camera, Image, Model
from dfm_jax.data.builders.colmap_places import Pair
from dfm_jax.data.pictures.pictures import Colour
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected, UserError

logger = logging.getLogger(__name__)

SPLIT = "train"


class ColmapSource:
    def __init__(self, root: Path, background: Colour, made_here: bool = False):
        """`made_here`: by `sfm`, so that cameras are for the pictures as they lie in their files, and pictures that
        are not in the model are accounted for there; otherwise those that are beside its own are listed."""
        self._root, self._background, self._made_here = root, background, made_here

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {SPLIT: list(self._captures)}

    def read(self, split: str, name: str) -> SourceScene:
        del split  # there is one
        models, damaged = self._models(self._captures[name])
        pair = colmap_places.choose(models)
        if pair is None:
            raise self._without_pictures(self._captures[name], models, damaged)
        photos, rejected, taken = [], [], set()
        for image in pair.model.images:
            try:
                path = source_files.find_picture(pair.pictures, pair.pictures, image.name)
                taken.add(path)
                photos.append(_photo(pair.model, image, path))
            except Rejected as reason:
                rejected.append((image.name, str(reason)))
        attributes = {"model": self._named(pair.folder), "pictures": self._named(pair.pictures)}
        if len(models) > 1:
            attributes["other_models"] = {
                self._named(folder): len(model.images) for model, folder in models if folder.absolute() != pair.folder
            }
            self._log_choice(name, pair, attributes)
        left_over = {} if self._made_here else self._left_over(pair, taken, models)
        rejected += left_over.items()
        # Frames are numbered among the model's images alone: what else lies beside them may come and go.
        listed = sorted((image.name for image in pair.model.images), key=source_files.natural_key)
        cloud, problems = _cloud(pair)
        scene = captures.make_scene(
            name,
            photos,
            rejected,
            attributes,
            self._background,
            listed=listed,
            cloud=cloud,
            as_lying=self._made_here,
        )
        return dataclasses.replace(
            scene, warnings=[*scene.warnings, *damaged, *problems, *point_clouds.unused(cloud, scene)]
        )

    def _models(self, folders: Sequence[Path]) -> tuple[list[tuple[Model, Path]], list[str]]:
        """The models in folders, and what is wrong with the others."""
        models, damaged = [], []
        for folder in folders:
            try:
                models.append((colmap_model.read_model(folder), folder))
            except Rejected as reason:
                damaged.append(f"model {self._named(folder)} cannot be used: {reason}")
        return models, damaged

    def _without_pictures(
        self, folders: Sequence[Path], models: Sequence[tuple[Model, Path]], damaged: Sequence[str]
    ) -> Rejected:
        """Why there is no scene: no model reads, or none has pictures."""
        places = colmap_places.upwards(folders[0].absolute())
        inside = [folder for place in places for folder in colmap_places.picture_folders(place)]
        if not models:
            named = [folder for folder in inside if colmap_places.is_named(folder)][: int(not self._made_here)]
            found = [(folder, path) for folder in named for path in colmap_places.pictures_in(folder, ())]
            return refused(damaged[0], [], [path.relative_to(folder).as_posix() for folder, path in found])
        model = max(models, key=lambda pair: len(pair[0].images))[0]
        looked = ", ".join(dict.fromkeys(self._named(folder) for folder in inside))
        return Rejected(
            f"none of the model's {len(model.images)} images was found, in folders {looked}",
            frames=[(image.name, f"image is missing: looked for {image.name} in {looked}") for image in model.images],
        )

    def _left_over(self, pair: Pair, taken: Collection[Path], models: Sequence[tuple[Model, Path]]) -> dict[str, str]:
        """Pictures beside those that a model has, by name; why they are none of its images."""
        unknown = f"no camera: not in model {self._named(pair.folder)}"
        elsewhere = {
            image.name: f"{unknown}, but in {self._named(folder)}, which is not taken"
            for model, folder in reversed(models)
            for image in model.images
        }
        found = colmap_places.pictures_in(pair.pictures, taken)
        left = [path.relative_to(pair.pictures).as_posix() for path in found if _plain(path) not in taken]
        return {name: elsewhere.get(name, unknown) for name in left}

    def _log_choice(self, name: str, pair: Pair, attributes: Mapping[str, Any]) -> None:
        others = ", ".join(f"{folder} ({images} images)" for folder, images in attributes["other_models"].items())
        logger.info(
            f"{name}: of several COLMAP models {attributes['model']} ({len(pair.model.images)} images) is taken, with "
            f"the pictures in {attributes['pictures']}; not {others}"
        )

    def _named(self, folder: Path) -> str:
        return os.path.relpath(folder, self._root)

    @functools.cached_property
    def _captures(self) -> dict[str, list[Path]]:
        """Folders of each capture's models, the most likely first."""
        found: dict[Path, list[Path]] = {}
        for folder, names in source_files.folders(self._root):
            if colmap_model.is_model(names):
                found.setdefault(colmap_places.capture_of(folder.absolute()), []).append(folder)
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


def _cloud(pair: Pair) -> tuple[np.ndarray | None, list[str]]:
    """The model's points [p, 3], or those of a file beside it, and what is wrong with that."""
    if len(pair.model.points):
        return pair.model.points, []
    return point_clouds.beside(pair.folder)


def _plain(path: Path) -> Path:
    """As `find_picture` gives it."""
    return Path(os.path.normpath(path))


def _photo(model: Model, image: Image, path: Path) -> Photo:
    camera = model.cameras.get(image.camera)
    if camera is None:
        raise Rejected(f"camera {image.camera} is not in the model")
    seen = model.seen_by(image) if len(model.points) else None
    return Photo(image.name, path, pose_of(image), _lens(camera), (camera.width, camera.height), seen)


def pose_of(image: Image) -> np.ndarray:
    """Camera-to-world [4, 4]."""
    rotation = posed_photos.from_quaternion(np.array(image.quaternion))
    with np.errstate(all="ignore"):  # what is not finite is rejected later
        return posed_photos.from_world_to_camera(np.column_stack([rotation, image.translation]))


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
