"""What CO3D's annotation files say, version 1 or 2, read without pytorch3d.

    frame_annotations.jgz      gzipped JSON, a record a frame
    sequence_annotations.jgz   gzipped JSON, a record a sequence
    set_lists*.json            {key: [[sequence, frame number, image path], ...]}; a file a subset in version 2

Notation: PyTorch3D cameras have x left, y up, z forward and row vectors, `x_camera = x_world R + T`. NDC coordinates
are 0 in the middle of the picture and grow to the left and up; how far the picture reaches depends on the format.
"""

import dataclasses
import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dfm_jax.data.loading import text_files
from dfm_jax.errors import Rejected

OPENCV_FROM_PYTORCH3D = np.diag([-1.0, -1.0, 1.0])
ISOTROPIC, IMAGE_BOUNDS = "ndc_isotropic", "ndc_norm_image_bounds"
FEWVIEW_SPLITS = {"fewview_train": "train", "fewview_dev": "validation", "fewview_test": "test"}
KEY_SPLITS = {"train": "train", "val": "validation", "test": "test"}  # by how a set list's key begins; first one wins


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One frame of a sequence. Paths are relative to the category's folder; empty where there is no such file."""

    number: int
    timestamp: float  # seconds; NaN where unknown
    image: PurePosixPath
    size: tuple[int, int]  # width, height
    camera_to_world: np.ndarray  # [4, 4], OpenCV axes, the source's own scale
    intrinsics: np.ndarray  # [3, 3], normalised
    mask: PurePosixPath | None
    depth: PurePosixPath | None
    depth_mask: PurePosixPath | None
    depth_factor: float  # of the stored depths


def read_json(path: Path) -> Any:
    """Contents of a JSON file, gzipped where it ends in .jgz.

    Raises:
      Rejected: it is missing, truncated or no JSON.
    """
    if not path.is_file():
        raise Rejected(f"{path.parent.name}/{path.name} is missing")
    try:
        encoded = path.read_bytes()
        return text_files.parse_json(gzip.decompress(encoded) if path.suffix == ".jgz" else encoded)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise Rejected(f"{path.parent.name}/{path.name} cannot be read ({error})") from error


def read_records(path: Path) -> list[Any]:
    records = read_json(path)
    if not isinstance(records, list):
        raise Rejected(f"{path.parent.name}/{path.name} holds no list of records")
    return records


def read_set_lists(folder: Path) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Frame numbers by subset, key and sequence; version 1 has the one subset "all"."""
    return {
        subset: {key: _by_sequence(frames, path) for key, frames in keys.items()}
        for subset, path, keys in _subsets(folder, "set_lists", dict)
    }


def read_eval_batches(folder: Path) -> dict[str, dict[str, list[list[int]]]]:
    """Frame numbers of evaluation batches by subset and sequence; those of several sequences are left out."""
    batches: dict[str, dict[str, list[list[int]]]] = {}
    for subset, path, entries in _subsets(folder, "eval_batches", list):
        batches[subset] = {}
        for frames in entries:
            by_sequence = _by_sequence(frames, path)
            if len(by_sequence) == 1:
                for sequence, numbers in by_sequence.items():
                    batches[subset].setdefault(sequence, []).append(numbers)
    return batches


def _subsets(folder: Path, kind: str, of_type: type) -> Iterator[tuple[str, Path, Any]]:
    for path in sorted([*folder.glob(f"{kind}*.json"), *folder.glob(f"{kind}/{kind}*.json")]):
        contents = read_json(path)
        if not isinstance(contents, of_type):
            raise Rejected(f"{path.name} holds no {of_type.__name__}")
        yield path.stem.removeprefix(kind).removeprefix("_") or "all", path, contents


def _by_sequence(frames: Any, path: Path) -> dict[str, list[int]]:
    """Frame numbers of a list of [sequence, frame number, image path], by sequence."""
    by_sequence: dict[str, list[int]] = {}
    for frame in frames if isinstance(frames, list) else [frames]:
        if not (isinstance(frame, list) and len(frame) > 1 and isinstance(frame[0], str) and isinstance(frame[1], int)):
            raise Rejected(f"{path.name} names no frame with {str(frame)[:60]}")
        by_sequence.setdefault(frame[0], []).append(frame[1])
    return by_sequence


def split_of(sequence: str, set_lists: Mapping[str, Mapping[str, Mapping[str, list[int]]]]) -> str:
    """Split of a whole sequence, by the lists that name it.

    Version 2 parts its sequences into fewview_train, _dev and _test; where the list of the first is at hand, those
    decide. Otherwise the keys do: one that is in a `train` list is a training sequence, even if other of its frames
    are held out. The lists of `manyview` subsets part the frames of one sequence, and only count where no other names
    it. A sequence in no list is a training sequence.
    """
    if "fewview_train" in set_lists:
        for subset, split in FEWVIEW_SPLITS.items():
            if any(sequence in names for names in set_lists.get(subset, {}).values()):
                return split
    for manyview in (False, True):
        subsets = [keys for subset, keys in set_lists.items() if subset.startswith("manyview") == manyview]
        for prefix, split in KEY_SPLITS.items():
            if any(sequence in keys[key] for keys in subsets for key in keys if key.startswith(prefix)):
                return split
    return "train"


def frame_number(record: Any) -> int | None:
    """Of a frame's record; None where it has none."""
    try:
        return int(record["frame_number"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return None


def parse_frame(record: dict[str, Any]) -> Annotation:
    """A frame's record.

    Raises:
      Rejected: with what is missing or wrong in it.
    """
    try:
        image, viewpoint = record["image"], record["viewpoint"]
        if viewpoint is None:
            raise Rejected("annotation has no viewpoint")
        height, width = (int(side) for side in image["size"])
        if min(height, width) < 1:
            raise Rejected(f"annotation has image size {image['size']}")
        depth, mask = record.get("depth") or {}, record.get("mask") or {}
        timestamp = float(_or(record.get("frame_timestamp"), -1))
        return Annotation(
            number=int(record["frame_number"]),
            timestamp=timestamp if 0 <= timestamp < np.inf else np.nan,
            image=_inside(image["path"]),
            size=(width, height),
            camera_to_world=_camera_to_world(viewpoint),
            intrinsics=_intrinsics(viewpoint, width, height),
            mask=_optional(mask.get("path")),
            depth=_optional(depth.get("path")),
            depth_mask=_optional(depth.get("mask_path")),
            depth_factor=float(_or(depth.get("scale_adjustment"), 1)),
        )
    except KeyError as error:
        raise Rejected(f"annotation lacks {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Rejected(f"annotation cannot be understood ({error})") from error


def _camera_to_world(viewpoint: dict[str, Any]) -> np.ndarray:
    camera_to_world = np.eye(4)
    # world_to_camera is [F R^T, F T] with F = OPENCV_FROM_PYTORCH3D; the writer checks that R is a rotation.
    rotation = _numbers(viewpoint, "R", (3, 3)) @ OPENCV_FROM_PYTORCH3D
    camera_to_world[:3, :3] = rotation
    camera_to_world[:3, 3] = -rotation @ OPENCV_FROM_PYTORCH3D @ _numbers(viewpoint, "T", (3,))
    return camera_to_world


def _intrinsics(viewpoint: dict[str, Any], width: int, height: int) -> np.ndarray:
    convention = _or(viewpoint.get("intrinsics_format"), IMAGE_BOUNDS)
    if convention == ISOTROPIC:  # 1 is half the shorter side
        reach = 0.5 * min(width, height) / np.array([width, height])
    elif convention == IMAGE_BOUNDS:  # 1 is half of either side
        reach = np.array([0.5, 0.5])
    else:
        raise Rejected(f"annotation has intrinsics_format {str(convention)[:40]!r}, not {ISOTROPIC} or {IMAGE_BOUNDS}")
    focal = _numbers(viewpoint, "focal_length", (2,)) * reach
    centre = 0.5 - _numbers(viewpoint, "principal_point", (2,)) * reach
    return np.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]])


def _numbers(viewpoint: dict[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.array(viewpoint[key], np.float64)
    if array.shape != shape:
        raise Rejected(f"annotation's {key} has shape {array.shape}, not {shape}")
    return array


def _inside(path: str) -> PurePosixPath:
    """A path of an annotation, relative to its category's folder: its first part is the category."""
    parts = PurePosixPath(path).parts
    if len(parts) < 2 or parts[0] == "/" or ".." in parts or "\0" in path:
        raise Rejected(f"annotation's path {path[:100]!r} does not lie below its category")
    return PurePosixPath(*parts[1:])


def _optional(path: str | None) -> PurePosixPath | None:
    return _inside(path) if path else None


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
