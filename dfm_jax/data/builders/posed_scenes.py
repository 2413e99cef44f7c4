"""Writes a source of posed pictures as a TFDS data set (array_record, no TensorFlow).

    DIR/NAME/frames/1.0.0/...   one record a frame: the encoded square picture; frames of a scene lie side by side
    DIR/NAME/scenes/1.0.0/...   one record a scene: its cameras, where its frames start, and where it came from
    DIR/NAME/dataset.json       names and lengths of all scenes, and what was counted; written last

so that reading 2 of 100 frames costs 2 decodes. Both are readable with `tfds.builder_from_directory`.
"""

import dataclasses
import functools
import io
import json
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dfm_jax.data import scene_checks, transforms, validation
from dfm_jax.data.builders.source import Rejected, Source, SourceFrame, SourceScene

VERSION = "1.0.0"
INDEX_FILE = "dataset.json"
# Of pictures that had to be cropped or resized. Colour at full resolution: they are small, and read at their own size.
JPEG_OPTIONS = {"quality": 95, "subsampling": 0}

# A shard is held in memory while it is written, and kept open while it is read: many scenes a shard cost memory, many
# shards cost open files.
SCENES_PER_SHARD = 64
MAX_SHARDS = 256

Records = Iterator[tuple[int, dict[str, Any]]]  # by their position in the split


@dataclasses.dataclass(frozen=True)
class StoreOptions:
    image_size: int  # larger pictures are reduced to this side, pixels; 0: kept
    min_frames: int  # scenes with fewer usable frames are quarantined
    holdout: int = 0  # of so many frames of a scene one is kept from training; 0: none


class PosedScenes(tfds.core.ShardBasedBuilder):
    """TFDS builder of frames or scenes, by its config; the records come from `shards` of each split.

    Sharded by hand because `GeneratorBasedBuilder` keeps a whole split in memory when it must keep the order.
    """

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="frames", description="Encoded square pictures"),
        tfds.core.BuilderConfig(name="scenes", description="Cameras and origin of each scene"),
    ]

    url_infos = None  # nothing is downloaded; looking for checksums would need a package that TFDS does not install

    def __init__(self, *, shards: Mapping[str, Sequence[Callable[[], Records]]], **kwargs: Any):
        self._shards = shards
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        make = _frame_features if self.builder_config.name == "frames" else _scene_features
        return tfds.core.DatasetInfo(
            builder=self,
            description="Posed pictures of static scenes. OpenCV cameras, intrinsics normalised by width and height.",
            features=tfds.features.FeaturesDict(make()),
            disable_shuffling=True,
        )

    def _shard_iterators_per_split(self, dl_manager: Any) -> Mapping[str, Sequence[Callable[[], Records]]]:
        del dl_manager  # nothing is downloaded
        return self._shards


def _frame_features() -> dict[str, Any]:
    features = tfds.features
    return {
        "image": features.Image(shape=(None, None, 3)),
        "scene": features.Scalar(np.int64),  # position of the scene in its split
        "frame": features.Scalar(np.int64),  # position of the frame in its scene
    }


def _scene_features() -> dict[str, Any]:
    features = tfds.features

    def exact(*shape: int | None) -> tfds.features.Tensor:  # numbers outside a byte string are rounded to float32
        return features.Tensor(shape=shape, dtype=np.float64, encoding="bytes")

    return {
        "name": features.Text(),
        "first_frame": features.Scalar(np.int64),  # position of its first frame in the split's frames
        "camera_to_world": exact(None, 4, 4),
        "intrinsics": exact(None, 3, 3),
        "timestamps": exact(None),  # seconds
        "frame_names": features.Sequence(features.Text()),
        "scale": exact(),
        "near": exact(),
        "far": exact(),
        "attributes": features.Text(),  # JSON
    }


def write(
    source: Source,
    directory: Path,
    options: StoreOptions,
    quarantine: validation.Quarantine,
    on_scene: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Writes every usable scene of `source` below `directory`, calling `on_scene` after each one that was tried.

    Returns what went into the index file: for each split the scene names and numbers of frames.
    """
    splits = {
        split: _SplitWriter(source, split, names, options, quarantine, on_scene, directory)
        for split, names in source.splits().items()
    }
    # In this order: writing the frames finds out which scenes there are.
    for config, records in (("frames", _SplitWriter.frames), ("scenes", _SplitWriter.scenes)):
        shards = {split: writer.shards(records) for split, writer in splits.items()}
        builder = PosedScenes(config=config, shards=shards, data_dir=directory, file_format="array_record")
        builder.download_and_prepare()
    index = {"splits": _index(splits), "holdout": options.holdout}
    (directory / PosedScenes.name / INDEX_FILE).write_text(json.dumps(index))
    return index


def _index(splits: Mapping[str, "_SplitWriter"]) -> dict[str, Any]:
    return {
        split: {"names": writer.names, "num_frames": writer.num_frames}
        for split, writer in splits.items()
        if writer.names
    }


class _SplitWriter:
    """Shards of one split. Scene records wait in files until the frames are done."""

    def __init__(
        self,
        source: Source,
        split: str,
        names: Sequence[str],
        options: StoreOptions,
        quarantine: validation.Quarantine,
        on_scene: Callable[[], None],
        directory: Path,
    ):
        self._source, self._split, self._options = source, split, options
        self._quarantine, self._on_scene, self._directory = quarantine, on_scene, directory
        size = max(SCENES_PER_SHARD, math.ceil(len(names) / MAX_SHARDS))
        self._groups = [names[i : i + size] for i in range(0, len(names), size)]
        self._total_frames = 0
        self.names: list[str] = []
        self.num_frames: list[int] = []

    def shards(self, records: Callable[["_SplitWriter", int], Records]) -> list[Callable[[], Records]]:
        return [functools.partial(records, self, shard) for shard in range(len(self._groups))]

    def frames(self, shard: int) -> Records:
        """Frames of the shard's usable scenes; the records of those scenes are put aside."""
        with self._spool(shard).open("wb") as spool:
            for name in self._groups[shard]:
                try:
                    scene, frames, pictures = self._accept(self._source.read(self._split, name))
                except Rejected as reason:
                    self._quarantine.add_scene(self._split, name, str(reason), reason.counted_as)
                else:
                    number = len(self.names)
                    pickle.dump((number, _scene_record(scene, frames, self._total_frames)), spool)
                    for i, picture in enumerate(pictures):
                        yield self._total_frames + i, {"image": picture, "scene": number, "frame": i}
                    self._total_frames += len(frames)
                    self.names.append(name)
                    self.num_frames.append(len(frames))
                self._on_scene()

    def scenes(self, shard: int) -> Records:
        with self._spool(shard).open("rb") as spool:
            while spool.peek(1):
                yield pickle.load(spool)
        self._spool(shard).unlink()

    def _spool(self, shard: int) -> Path:
        return self._directory / f"{self._split}-{shard}.scenes"

    def _accept(self, scene: SourceScene) -> tuple[SourceScene, list[SourceFrame], list[bytes]]:
        """The scene with warnings about it, and the frames that passed every check, with the intrinsics and pictures to
        store.

        Raises:
          Rejected: too few are left, or their cameras cannot be right.
        """
        bad, kept = list(scene.rejected), []
        for frame in scene.frames:
            try:
                validation.check_camera(frame.camera_to_world, frame.intrinsics)
                encoded = frame.load()
                image = validation.open_image(encoded)
            except Rejected as reason:
                bad.append((frame.name, str(reason)))
            else:
                stored, intrinsics = _store(encoded, image, frame.intrinsics, self._options.image_size)
                kept.append((dataclasses.replace(frame, intrinsics=intrinsics), stored, image.size))
        odd = validation.odd_sizes([size for _, _, size in kept]) if scene.one_size else []
        for i in reversed(odd):
            frame, _, size = kept.pop(i)
            bad.append((frame.name, f"image is {size[0]}x{size[1]} pixels, unlike most of its scene"))
        repeated = scene_checks.repeated([frame for frame, _, _ in kept], [stored for _, stored, _ in kept])
        bad += [(kept[i][0].name, reason) for i, reason in repeated.items()]
        kept = [entry for i, entry in enumerate(kept) if i not in repeated]
        for frame_name, reason in bad:
            self._quarantine.add_frame(self._split, scene.name, frame_name, reason)
        if len(kept) < self._options.min_frames:
            mostly = validation.usual(reason for _, reason in bad)
            raise Rejected(
                f"too few frames: {len(kept)} of {len(scene.frames) + len(scene.rejected)} usable, "
                f"{self._options.min_frames} needed{mostly}"
            )
        frames, pictures, sizes = map(list, zip(*kept, strict=True))
        warnings = scene_checks.check_scene(scene, frames, pictures, sizes)
        if warnings:
            self._quarantine.warned_scenes += 1
            scene = dataclasses.replace(scene, attributes={**scene.attributes, "warnings": warnings})
        return scene, frames, pictures


def _store(encoded: bytes, image: Image.Image, intrinsics: np.ndarray, size: int) -> tuple[bytes, np.ndarray]:
    """The square picture to keep, byte for byte where it can be, and its intrinsics."""
    fits = image.width == image.height and (size == 0 or image.width <= size)
    if fits and image.mode == "RGB" and image.format in ("JPEG", "PNG"):
        return encoded, intrinsics
    square, intrinsics = transforms.center_square(image.convert("RGB"), intrinsics)
    if size and square.width > size:
        square = transforms.resize(square, size)
    buffer = io.BytesIO()
    if image.format == "PNG":
        square.save(buffer, "PNG")
    else:
        square.save(buffer, "JPEG", **JPEG_OPTIONS)
    return buffer.getvalue(), intrinsics


def _scene_record(scene: SourceScene, frames: list[SourceFrame], first_frame: int) -> dict[str, Any]:
    return {
        "name": scene.name,
        "first_frame": first_frame,
        "camera_to_world": np.stack([np.asarray(frame.camera_to_world, np.float64) for frame in frames]),
        "intrinsics": np.stack([np.asarray(frame.intrinsics, np.float64) for frame in frames]),
        "timestamps": np.array([frame.timestamp for frame in frames], np.float64),
        "frame_names": [frame.name for frame in frames],
        "scale": np.float64(scene.scale),
        "near": np.float64(scene.near),
        "far": np.float64(scene.far),
        "attributes": json.dumps(dict(scene.attributes)),
    }
