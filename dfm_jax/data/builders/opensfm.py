"""OpenSfM's reconstructions (and OpenDroneMap's), one project or many:

    .../<project>/reconstruction.json     a list of reconstructions: cameras, shots, points
    .../<project>/images/...              the photographs; or beside the project
    .../<project>/masks/<photograph>.png  where --masks= is given

Of several reconstructions, which share no world, the one with the most shots is taken; shots of others, and photographs
without one, are listed as rejected. A shot's pose is world-to-camera: an axis times its angle, and a translation, with
OpenCV axes. Lengths in a picture are shares of its longer side, from the middle.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dfm_jax.data.builders import captures, masks, posed_photos, source_files
from dfm_jax.data.builders.captures import Photo
from dfm_jax.data.builders.source_files import natural_key
from dfm_jax.data.builders.transforms_cameras import number, vector
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures.pictures import Colour
from dfm_jax.data.preparing.source import SourceScene, refused
from dfm_jax.data.preparing.undistort import Lens
from dfm_jax.errors import Rejected

FILE, UNDISTORTED = "reconstruction.json", "undistorted"
DISTORTION = {  # names of the coefficients in OpenCV's order, and whether they are a fisheye's
    "perspective": (("k1", "k2"), False),
    "simple_radial": (("k1",), False),
    "radial": (("k1", "k2"), False),
    "brown": (("k1", "k2", "p1", "p2", "k3"), False),
    "fisheye": (("k1", "k2"), True),
    "fisheye_opencv": (("k1", "k2", "k3", "k4"), True),
}


class OpenSfMSource(posed_photos.Captures):
    wanted = FILE

    def __init__(self, root: Path, background: Colour | None, masked: bool = False):
        """`masked`: masks are read, and needed where there is a background."""
        super().__init__(root, background)
        self._masked = masked

    def _is_capture(self, folder: Path, names: Sequence[str]) -> bool:
        inside = folder.name == UNDISTORTED and (folder.parent / FILE).is_file() and folder != self._root
        return FILE in names and not inside

    def _read(self, name: str, folder: Path) -> SourceScene:
        pictures = next((place for place in (folder, folder.parent) if (place / "images").is_dir()), folder)
        there = source_files.pictures_in(pictures / "images")
        try:
            taken, others = _reconstructions(folder / FILE)
            shots, cameras = _object(taken, "shots"), _object(taken, "cameras")
        except Rejected as reason:
            raise refused(str(reason), (), there) from reason

        def photo(name: str, shot: Any) -> Photo:
            path = source_files.find_picture(self._root, pictures / "images", name)
            if not isinstance(shot, Mapping) or not isinstance(camera := cameras.get(shot.get("camera")), Mapping):
                raise Rejected("shot has no camera")
            needed, folder = self._background is not None, pictures / "masks"
            mask = masks.find(self._root, folder, f"{name}.png", needed) if self._masked else None
            size = number(camera.get("width"), "width"), number(camera.get("height"), "height")
            return Photo(name, path, _pose(shot), _lens(camera, size), size, mask=mask)

        photos, rejected = posed_photos.read_each(shots, photo)
        rejected += [(shot, "shot is in another reconstruction, with fewer shots") for shot in others]
        known = {*shots, *others, *(photo.path.name for photo in photos)}
        rejected += [(picture, f"no camera: it is no shot of {FILE}") for picture in there if picture not in known]
        return captures.make_scene(
            name,
            photos,
            rejected,
            {},
            self._background,
            listed=sorted({*shots, *others}, key=natural_key),
            cloud=_points(taken),
            as_lying=True,
        )


def _object(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    if not isinstance(found, Mapping):
        raise Rejected(f"{FILE} has no object of {key}")
    return found


def _reconstructions(path: Path) -> tuple[Mapping[str, Any], list[str]]:
    """The one with the most shots, and names of shots that are in others only."""
    try:
        content = text_files.parse_json(source_files.read_file(path))
    except ValueError as error:
        raise Rejected(f"{path.name} is no JSON ({error})") from error
    found = [entry for entry in content if isinstance(entry, Mapping)] if isinstance(content, list) else []
    if not found:
        raise Rejected(f"{path.name} holds no list of reconstructions")
    shots = [entry["shots"] if isinstance(entry.get("shots"), Mapping) else {} for entry in found]
    most = max(range(len(found)), key=lambda i: len(shots[i]))
    return found[most], sorted({name for names in shots for name in names} - {*shots[most]}, key=natural_key)


def _pose(shot: Mapping[str, Any]) -> np.ndarray:
    rotation, _ = cv2.Rodrigues(vector(shot.get("rotation"), 3, "rotation"))
    return posed_photos.from_world_to_camera(
        np.column_stack([rotation, vector(shot.get("translation"), 3, "translation")])
    )


def _lens(camera: Mapping[str, Any], size: tuple[float, float]) -> Lens:
    kind = camera.get("projection_type", "perspective")
    if kind not in DISTORTION:
        raise Rejected(f"projection type {str(kind)[:40]} is not supported; undistort the images with OpenSfM first")
    if min(size) < 1:
        raise Rejected(f"camera is for {size[0]:g}x{size[1]:g} pixels")
    names, fisheye = DISTORTION[kind]
    coefficients = tuple(number(camera.get(name, 0), name) for name in names)
    keys = ("focal", "focal") if "focal" in camera else ("focal_x", "focal_y")
    focal = (number(camera.get(key), key) for key in keys)
    offset = (number(camera.get(key, 0), key) for key in ("c_x", "c_y"))
    shares = [max(size) / side for side in size]
    return Lens(
        tuple(f * share for f, share in zip(focal, shares, strict=True)),
        tuple(0.5 + c * share for c, share in zip(offset, shares, strict=True)),
        distortion=coefficients,
        fisheye=fisheye,
    )


def _points(reconstruction: Mapping[str, Any]) -> np.ndarray | None:
    """Sparse points [p, 3]; those that are none do not count."""
    entries = reconstruction.get("points")
    places = []
    for entry in entries.values() if isinstance(entries, Mapping) else ():
        try:
            places.append(vector(entry.get("coordinates") if isinstance(entry, Mapping) else None, 3, "coordinates"))
        except Rejected:
            continue
    return np.array(places) if places else None
