"""The cameras of photographs, from a `transforms.json` that lists them (`--cameras=`).

Its frame and scale stay as they are: what nerfstudio notes that it did to the poses (`applied_transform`,
`applied_scale`) is not undone, so that what is exported lies where the file's cameras are. Its lenses are undone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from dfm_jax.data.builders import source_files, transforms_cameras
from dfm_jax.data.builders.transforms_json import OPENCV_FROM_OPENGL
from dfm_jax.data.loading import text_files
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.data.preparing import undistort
from dfm_jax.errors import Rejected, UserError
from dfm_jax.sampling.photographs import Photograph, open_photograph
from dfm_jax.structs import Camera

MIRRORED = (2, 4, 5, 7)  # orientations


def read_transforms(file: str) -> Mapping[str, Any]:
    """The content of a `transforms.json`.

    Raises:
      UserError: it is missing, or something else.
    """
    try:
        content = text_files.parse_json(source_files.read_file(Path(file).expanduser()))
    except (Rejected, ValueError) as error:
        raise UserError(f"{file} cannot be read as a transforms.json: {error}") from error
    frames = content.get("frames") if isinstance(content, Mapping) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, Mapping) for frame in frames):
        raise UserError(f"{file} is no transforms.json: it has no list of frames")
    return content


def cameras_of(file: str, images: Sequence[str], background: float) -> tuple[list[Photograph], Camera]:
    """Photographs [v] without the distortion of their lenses, and their cameras [v] as viewers show them.

    Args:
      background: brightness behind what is transparent, in [0, 1].

    Raises:
      UserError: the file cannot be read, or has not one frame for each photograph, or a photograph cannot be read.
    """
    content = read_transforms(file)
    taken = []
    for image in images:
        frame = _frame_of(image, content["frames"], file)
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
    return photograph, pose, intrinsics
