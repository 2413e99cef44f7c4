"""What a data set stores of posed scenes, and which scenes it accepts.

    DIR/NAME/frames/1.0.0/...   one record a frame: the encoded square picture; frames of a scene lie side by side
    DIR/NAME/scenes/1.0.0/...   one record a scene: its cameras, where its frames start, and where it came from
    DIR/NAME/dataset.json       names and lengths of all scenes, and checksums of all files; written last

so that reading 2 of 100 frames costs 2 decodes. Both are readable with `tfds.builder_from_directory`.
"""

import collections
import contextlib
import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dfm_jax.data.loading import holes, records, transforms
from dfm_jax.data.loading.holes import Hole
from dfm_jax.data.loading.text_files import as_text
from dfm_jax.data.pictures import orientation, pictures
from dfm_jax.data.pictures.pictures import Picture
from dfm_jax.data.preparing import camera_checks, scene_checks
from dfm_jax.data.preparing.quarantine import WARNED, Quarantine, most_frequent_reason
from dfm_jax.data.preparing.source import SourceFrame, SourceScene, refused
from dfm_jax.errors import Rejected

STORED = "stored"  # said of masks
BLACK = (0, 0, 0)  # what transparent pictures lie on
# Of pictures that had to be cropped or resized. Colour at full resolution: they are small, and read at their own size.
JPEG_OPTIONS = {"quality": 95, "subsampling": 0}


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    image_size: int  # larger pictures are reduced to this side, pixels; 0: kept
    min_frames: int  # scenes with fewer usable frames are quarantined
    holdout: int = 0  # of so many frames of a scene one is kept from training; 0: none
    masks: bool = False  # whether masks are stored beside the pictures


def dataset_folder(building: Path) -> Path:
    """Of what becomes DIR/NAME, in the folder of an incomplete data set."""
    return building / records.DATASET


def frames_folder(building: Path) -> Path:
    return dataset_folder(building) / "frames" / records.VERSION


def scenes_folder(building: Path) -> Path:
    return dataset_folder(building) / "scenes" / records.VERSION


def frame_features(masks: bool = False) -> tfds.features.FeaturesDict:
    features = tfds.features
    stored = {
        "image": features.Image(shape=(None, None, 3)),
        "scene": features.Text(),  # name of its scene
        "frame": features.Scalar(np.int64),  # position of the frame in its scene
    }
    # A PNG of one channel, white where the picture counts; empty where that is not known.
    return features.FeaturesDict(stored | ({"mask": features.Text()} if masks else {}))


def scene_features() -> tfds.features.FeaturesDict:
    features = tfds.features

    def exact(*shape: int | None) -> tfds.features.Tensor:  # numbers outside a byte string are rounded to float32
        return features.Tensor(shape=shape, dtype=np.float64, encoding="bytes")

    return features.FeaturesDict(
        {
            "name": features.Text(),
            "first_frame": features.Scalar(np.int64),  # position of its first frame in the split's frames
            "camera_to_world": exact(None, 4, 4),
            "intrinsics": exact(None, 3, 3),
            "timestamps": exact(None),  # seconds
            "frame_numbers": features.Tensor(shape=(None,), dtype=np.int64),  # in the source's list of frames
            "holes": features.Text(),  # JSON: what the source lists besides, see `loading.holes`
            "frame_names": features.Sequence(features.Text()),
            "scale": exact(),
            "near": exact(),
            "far": exact(),
            "attributes": features.Text(),  # JSON
        }
    )


def accept(
    scene: SourceScene, split: str, options: StoreOptions, quarantine: Quarantine
) -> tuple[SourceScene, list[SourceFrame], list[bytes]]:
    """The scene with warnings about it and all rejected frames, and the frames that passed every check, with the
    intrinsics and pictures to store.

    Raises:
      Rejected: too few are left, or their cameras cannot be right.
    """
    kept, bad = _accept_frames(scene, options.image_size)
    try:
        if len(kept) < options.min_frames:
            mostly = most_frequent_reason(reason for _, reason in bad)
            raise Rejected(
                f"too few frames: {len(kept)} of {len(kept) + len(bad)} usable, {options.min_frames} needed{mostly}"
            )
        frames, stored, sizes = map(list, zip(*kept, strict=True))
        warnings = scene_checks.check_scene(scene, frames, stored, sizes)
    except Rejected as reason:
        raise refused(str(reason), bad, (frame.name for frame, _, _ in kept)) from reason
    for frame_name, reason in bad:
        quarantine.add_frame(split, scene.name, frame_name, reason)
    if warnings:
        quarantine.counts[WARNED] += 1
        scene = dataclasses.replace(scene, attributes={**scene.attributes, "warnings": warnings})
    return dataclasses.replace(scene, rejected=bad), frames, stored


def _accept_frames(
    scene: SourceScene, image_size: int
) -> tuple[list[tuple[SourceFrame, bytes, tuple[int, int]]], list[tuple[str, str]]]:
    """Frames that pass every check of their own, with the pictures to store and their sizes before; and names of the
    others, with reasons."""
    bad, kept, sizes = list(scene.rejected), [], []
    white = functools.cache(lambda: pictures.white_level(_encoded(scene.frames)))
    for frame in scene.frames:
        try:
            camera_checks.check_camera(frame.camera_to_world, frame.intrinsics)
            encoded = frame.load()
            picture = pictures.open_picture(encoded, white)
            upright, image = _upright(frame, picture)
            stored, intrinsics = _store(encoded, picture, image, upright.intrinsics, image_size)
        except Rejected as reason:
            bad.append((frame.name, str(reason)))
        else:
            kept.append((dataclasses.replace(upright, intrinsics=intrinsics), stored, image.size))
            sizes.append(picture.image.size)
    odd = scene_checks.odd_sizes(sizes) if scene.one_size else []
    for i in reversed(odd):
        frame, width, height = kept.pop(i)[0], *sizes[i]
        bad.append((frame.name, f"image is {width}x{height} pixels, unlike most of its scene"))
    repeated = scene_checks.repeated([frame for frame, _, _ in kept], [stored for _, stored, _ in kept])
    bad += [(kept[i][0].name, reason) for i, reason in repeated.items()]
    return [entry for i, entry in enumerate(kept) if i not in repeated], bad


def _encoded(frames: Sequence[SourceFrame]) -> Iterator[bytes]:
    for frame in frames:
        with contextlib.suppress(Rejected):  # reported when its turn comes
            yield frame.load()


def _upright(frame: SourceFrame, picture: Picture) -> tuple[SourceFrame, Image.Image]:
    """The frame with the camera of its upright picture, and that one, opaque.

    Raises:
      Rejected: it shows nothing.
    """
    image = pictures.flatten(picture.image, BLACK)
    if pictures.shows_nothing(image):
        raise Rejected("image shows nothing: all its pixels have one colour, as of a hidden frame or a failed capture")
    pose, intrinsics = orientation.turn_camera(frame.camera_to_world, frame.intrinsics, picture.orientation)
    frame = dataclasses.replace(frame, camera_to_world=pose, intrinsics=intrinsics)
    return frame, orientation.turn(image, picture.orientation)


def _store(
    encoded: bytes, picture: Picture, image: Image.Image, intrinsics: np.ndarray, size: int
) -> tuple[bytes, np.ndarray]:
    """The square picture to keep of an upright, opaque `image`, byte for byte where it can be, and its intrinsics."""
    fits = image.width == image.height and (size == 0 or image.width <= size)
    if fits and picture.as_is and picture.format in ("JPEG", "PNG"):
        return encoded, intrinsics
    square, intrinsics = transforms.center_square(image, intrinsics)
    if size and square.width > size:
        square = transforms.resize(square, size)
    buffer = io.BytesIO()
    if picture.format == "PNG":
        square.save(buffer, "PNG")
    else:
        square.save(buffer, "JPEG", **JPEG_OPTIONS)
    return buffer.getvalue(), intrinsics


def with_masks(
    scene: SourceScene, frames: Sequence[SourceFrame], stored: Sequence[bytes]
) -> tuple[SourceScene, list[bytes]]:
    """The masks to store beside the pictures of a scene's frames, empty where there is none; and the scene, whose
    attributes say how many there are."""
    masks = [_mask(frame, picture) for frame, picture in zip(frames, stored, strict=True)]
    count = sum(map(bool, masks))
    if not count:
        return scene, masks
    said = STORED if count == len(masks) else f"{STORED} of {count} of {len(masks)} frames"
    return dataclasses.replace(scene, attributes={**scene.attributes, "masks": said}), masks


def _mask(frame: SourceFrame, stored: bytes) -> bytes:
    """As its picture was stored: the middle square, at the same size."""
    try:
        mask = frame.load_mask()
    except Rejected:
        mask = None
    if mask is None:
        return b""
    square, _ = transforms.center_square(mask, frame.intrinsics)
    size, buffer = Image.open(io.BytesIO(stored)).width, io.BytesIO()
    transforms.resize(square, size).save(buffer, "PNG")
    return buffer.getvalue()


def find_holes(scene: SourceScene, kept: Sequence[SourceFrame]) -> list[Hole]:
    """The holes of a scene of which these frames are left, in the order of capture; `scene.rejected` has the reasons of
    all others."""
    listed = scene.listed or [(frame.number, frame.name) for frame in scene.frames]
    reasons = collections.defaultdict(collections.deque)  # by name; a frame that is listed twice has two
    for name, reason in scene.rejected:
        reasons[as_text(name)].append(reason)
    numbers = {frame.number for frame in kept}
    return [
        Hole(number, position, name, reasons[name].popleft() if reasons[name] else "no reason is known")
        for position, (number, name) in enumerate(listed)
        if number not in numbers
    ]


def held_out(frames: Sequence[SourceFrame]) -> list[int] | None:
    """Which frames their source holds out; None where it says nothing about that."""
    if all(frame.held_out is None for frame in frames):
        return None
    return [i for i, frame in enumerate(frames) if frame.held_out]


def scene_record(scene: SourceScene, frames: list[SourceFrame], first_frame: int) -> dict[str, Any]:
    return {
        "name": scene.name,
        "first_frame": first_frame,
        "camera_to_world": np.stack([np.asarray(frame.camera_to_world, np.float64) for frame in frames]),
        "intrinsics": np.stack([np.asarray(frame.intrinsics, np.float64) for frame in frames]),
        "timestamps": np.array([frame.timestamp for frame in frames], np.float64),
        "frame_numbers": np.array([frame.number for frame in frames], np.int64),
        "holes": holes.encode(find_holes(scene, frames)),
        "frame_names": [frame.name for frame in frames],
        "scale": np.float64(scene.scale),
        "near": np.float64(scene.near),
        "far": np.float64(scene.far),
        "attributes": json.dumps(dict(scene.attributes)),
    }
