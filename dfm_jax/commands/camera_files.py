"""Cameras that files state: those of photographs, from a `transforms.json` that lists them (`--cameras=`), and those of
videos and targets, from such a file or from nerfstudio's `camera_path.json` (`--path=`, `--target=`).

The frame and the scale of a `transforms.json` stay as they are: what nerfstudio notes that it did to the poses
(`applied_transform`, `applied_scale`) is not undone, so that what is exported lies where the file's cameras are. Its
lenses are undone.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from dfm_jax.data.builders import source_files, transforms_cameras
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.data.preparing import undistort
from dfm_jax.errors import Rejected, UserError
from dfm_jax.sampling.camera_path_json import LARGEST_SIDE, OPENCV_FROM_OPENGL, parse_camera_path
from dfm_jax.sampling.cameras import checked_camera
from dfm_jax.sampling.photographs import Photograph, open_photograph
from dfm_jax.sampling.trajectories import Trajectory, follow
from dfm_jax.sampling.videos import MIN_VIDEO_SIDE
from dfm_jax.structs import Camera

MIRRORED = (2, 4, 5, 7)  # orientations


def _read_json(file: str) -> Mapping[str, Any]:
    try:
        content = text_files.parse_json(source_files.read_file(Path(file).expanduser()))
    except (Rejected, ValueError) as error:
        raise UserError(f"{file} cannot be read as a file of cameras: {error}") from error
    return content if isinstance(content, Mapping) else {}


def _frames(content: Mapping[str, Any], file: str) -> Sequence[Mapping[str, Any]]:
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, Mapping) for frame in frames):
        raise UserError(f"{file} is no transforms.json: it has no list of frames")
    return frames


def read_path(file: str, num_frames: int, image_size: int) -> Trajectory:
    """The path of a video, in the coordinates of the file: frame by frame as a `camera_path.json` states it, or through
    the cameras of a `transforms.json`, from the first to the last in `num_frames` frames.

    Args:
      image_size: of the frames' shorter side, where the file does not say it.

    Raises:
      UserError: the file is neither, or states no cameras that can be rendered.
    """
    content = _read_json(file)
    if "camera_path" in content:
        return parse_camera_path(content, file)
    camera, aspects = _cameras_of_frames(content, file)
    aspect, side = float(np.median(aspects)), max(image_size, MIN_VIDEO_SIDE)
    size = (round(side / min(aspect, 1)), round(side * max(aspect, 1)))
    if max(size) > LARGEST_SIDE:
        raise UserError(f"{file}: cameras of {aspect:g} times as wide as high pictures are not rendered")
    path = follow(Camera(camera.camera_to_world, _stretched(camera.intrinsics, 1 / aspect, 1)), num_frames)
    return dataclasses.replace(path, size=size)


def target_camera(text: str) -> Camera | str:
    """The first camera of a file, as a square picture has it; other texts as they are."""
    if not text.endswith(".json"):
        return text
    content = _read_json(text)
    if "camera_path" in content:
        path = parse_camera_path(content, text)
        camera, aspect = path.camera, path.size[1] / path.size[0]
        camera = Camera(camera.camera_to_world, _stretched(camera.intrinsics, aspect, 1))
    else:
        camera, aspects = _cameras_of_frames(content, text)
        aspect = aspects[0]
    reduced = max(1, 1 / aspect)  # of a square that is as wide as an upright picture
    return Camera(camera.camera_to_world[0], _stretched(camera.intrinsics, reduced, reduced)[0])


def _stretched(intrinsics: np.ndarray, across: float, down: float) -> np.ndarray:
    """Intrinsics [n, 3, 3] of pictures whose angles span so many times as much of their width and of their height."""
    centre = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return (intrinsics - centre) * np.array([across, down, 1.0])[:, None] + centre


def _cameras_of_frames(content: Mapping[str, Any], file: str) -> tuple[Camera, np.ndarray]:
    """The cameras [n] of a `transforms.json`, as squares as high as their pictures have them, and how wide these
    are, in heights [n]."""
    poses, intrinsics, aspects = [], [], []
    for number, frame in enumerate(_frames(content, file)):
        try:
            pose = transforms_cameras.matrix(frame.get("transform_matrix"), "transform_matrix")
            poses.append(pose @ OPENCV_FROM_OPENGL)
            path = Path(file).expanduser().parent / str(frame.get("file_path", ""))
            lens, (width, height) = transforms_cameras.lens_of(frame, content, path, 1.0)
            intrinsics.append(undistort.pinhole(lens))
        except Rejected as reason:
            raise UserError(f"{file}, frame {number}: {reason}") from reason
        aspects.append(width / height)
        intrinsics[-1] = _stretched(intrinsics[-1], aspects[-1], 1)
    camera = checked_camera(Camera(np.stack(poses), np.stack(intrinsics)), what=f"{file}: what it states")
    return camera, np.array(aspects)


def cameras_of(file: str, images: Sequence[str], background: float) -> tuple[list[Photograph], Camera]:
    """Photographs [v] without the distortion of their lenses, and their cameras [v] as viewers show them.

    Args:
      background: brightness behind what is transparent, in [0, 1].

    Raises:
      UserError: the file cannot be read, or has not one frame for each photograph, or a photograph cannot be read.
    """
    content = _read_json(file)
    frames, taken = _frames(content, file), []
    for image in images:
        frame = _frame_of(image, frames, file)
        try:
            taken.append(_placed(Path(image).expanduser(), frame, content, background))
        except Rejected as reason:
            raise UserError(f"{image}, by its frame in {file}: {reason}") from reason
    photographs, poses, intrinsics = zip(*taken, strict=True)
    return list(photographs), Camera(np.stack(poses), np.stack(intrinsics))


def _frame_of(image: str, frames: Sequence[Mapping[str, Any]], file: str) -> Mapping[str, Any]:
    """The frame whose file_path is this picture: the whole path, else the name, with or without its suffix."""
    path, folder = Path(image).expanduser().absolute(), Path(file).expanduser().absolute().parent
    named = [(frame, PurePosixPath(str(frame.get("file_path", "")).replace("\\", "/"))) for frame in frames]
    named = [(frame, name) for frame, name in named if name.name]
    tests = (
        lambda name: (folder / name).resolve() == path.resolve(),
        lambda name: (folder / name).resolve() == path.resolve().with_suffix(""),
        lambda name: name.name == path.name,
        lambda name: name.name == path.stem,
    )
    for test in tests:
        found = [frame for frame, name in named if test(name)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(f"{len(found)} frames of {file} have the file_path of {image}: keep one of them")
    known = ", ".join(str(name) for _, name in named[:3])
    raise UserError(f"no frame of {file} has the file_path of {image}: there are {known}, ...")


def _placed(
    path: Path, frame: Mapping[str, Any], content: Mapping[str, Any], background: float
) -> tuple[Photograph, np.ndarray, np.ndarray]:
    """A photograph, and its pose [4, 4] and intrinsics [3, 3] as viewers show it."""
    pose = transforms_cameras.matrix(frame.get("transform_matrix"), "transform_matrix") @ OPENCV_FROM_OPENGL
    lens, size = transforms_cameras.lens_of(frame, content, path, 1.0)
    intrinsics = undistort.pinhole(lens)
    header = pictures.read_header(path)
    turned = header.orientation
    lying, shown = header.size, orientation.shown_size(header.size, turned)
    # A file that tells neither from the other is of the picture as it lies, which is what COLMAP reads.
    as_shown = turned == orientation.UPRIGHT or (lying != shown and (size[0] > size[1]) == (shown[0] > shown[1]))
    if turned in MIRRORED:
        raise Rejected("the photograph is shown as in a mirror (EXIF orientation), as no camera sees")
    if lens.bends and not as_shown:
        raise Rejected(
            "a photograph that lies on its side (EXIF orientation), with a lens that bends lines: turn it first"
        )
    if not as_shown:
        pose, intrinsics = orientation.turn_camera(pose, intrinsics, turned)
    photograph = path
    if lens.bends:
        upright = open_photograph(path, background).image
        photograph = Image.fromarray(undistort.undistort(np.asarray(upright), lens))
        photograph.filename = str(path)
    return photograph, pose, intrinsics
