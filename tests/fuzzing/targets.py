"""What the fuzzer damages: every kind of file that a command reads, with the code that reads it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.fuzzing import data, mutations, runs
from tests.fuzzing.mutations import Rng


@dataclasses.dataclass(frozen=True)
class Target:
    write: Callable[[Path], None]  # the undamaged files
    read: Callable[[Path, Path], int | None]  # what a command does with them; writes to the second folder
    damage: Sequence[tuple[str, Sequence[Callable[[Path, Rng], None]]]]  # (files, what may happen to them)
    frames: Callable[[Path], int | None] | None = None  # pictures that are there to be taken; None: cannot be said


PREPARED_IMAGES = (*mutations.BYTES, *mutations.PLACES)
DATASET_FILES = [
    ("d/dataset.json", mutations.JSON),
    ("d/*/*/*.json", mutations.JSON),
    ("d/*/*/*array_record*", (*mutations.BYTES, *mutations.PLACES)),
]
TARGETS = {
    "transforms": Target(
        data.write_transforms,
        data.prepared("transforms"),
        [("transforms.json", mutations.JSON), ("images/*.png", PREPARED_IMAGES)],
        data.listed_in_transforms,
    ),
    "colmap binary": Target(
        data.write_colmap(False),
        data.prepared("colmap"),
        [("sparse/0/*.bin", mutations.BYTES), ("sparse/0/*.bin", mutations.PLACES), ("images/*.png", PREPARED_IMAGES)],
    ),
    "colmap text": Target(
        data.write_colmap(True),
        data.prepared("colmap"),
        [("sparse/0/*.txt", mutations.TEXT), ("images/*.png", PREPARED_IMAGES)],
        data.listed_lines("sparse/0/images.txt", header=0, lines_of_a_frame=2),
    ),
    "middlebury": Target(
        data.write_middlebury,
        data.prepared("middlebury"),
        [("*_par.txt", mutations.TEXT), ("*.png", PREPARED_IMAGES)],
        data.listed_lines("*_par.txt", header=1),
    ),
    **{
        kind: Target(data.write_views(kind), data.prepared(kind), [(cameras, ways), (pictures, PREPARED_IMAGES)])
        for kind, cameras, ways, pictures in (
            ("dl3dv", "*/transforms.json", mutations.JSON, "*/images_4/*"),
            ("llff", "*/poses_bounds.npy", mutations.BYTES, "*/images/*"),
            ("minens", "*/cameras_*.npy", mutations.BYTES, "*/imgs_*.npy"),
            ("mvsnet", "*/cams/*", (*mutations.TEXT, *mutations.PLACES), "*/images/*"),
            ("opensfm", "*/reconstruction.json", mutations.JSON, "*/images/*"),
            (
                "polycam",
                "*/keyframes/corrected_cameras/*",
                (*mutations.JSON, *mutations.PLACES),
                "*/keyframes/*_images/*",
            ),
            ("record3d", "*/metadata", mutations.JSON, "*/rgbd/*"),
            ("scannetpp", "*/dslr/nerfstudio/*.json", mutations.JSON, "*/dslr/resized_images/*"),
            ("srn", "*/*/*.txt", (*mutations.TEXT, *mutations.PLACES), "*/rgb/*"),
            ("zero123", "*/*.npy", (*mutations.BYTES, *mutations.PLACES), "*/*.png"),
        )
    },
    "realestate10k": Target(
        data.write_realestate10k,
        data.prepared("realestate10k"),
        [("RealEstate10K/train/*.txt", mutations.TEXT), ("frames/train/*/*.jpg", PREPARED_IMAGES)],
        data.listed_lines("RealEstate10K/train/*.txt", header=1),
    ),
    "chunks": Target(
        data.write_chunks,
        data.prepared("realestate10k"),
        [("train/*.torch", mutations.BYTES), ("train/index.json", mutations.JSON)],
    ),
    "co3d": Target(
        data.write_co3d,
        data.prepared("co3d"),
        [
            ("apple/*_annotations.jgz", mutations.PACKED_JSON),
            ("apple/set_lists/*.json", mutations.JSON),
            ("apple/*/images/*.jpg", PREPARED_IMAGES),
            ("apple/*/*/*.png", PREPARED_IMAGES),
        ],
    ),
    "data set": Target(data.write_dataset, data.read_dataset, DATASET_FILES),
    "data set, verified": Target(data.write_dataset, data.verify_dataset, DATASET_FILES),
    "index": Target(data.write_index, data.read_index, [("index.json", mutations.JSON)]),
    "released .safetensors": Target(
        runs.write_released(".safetensors"), runs.read_released, [("model*", (*mutations.BYTES, *mutations.PLACES))]
    ),
    "released .npz": Target(runs.write_released(".npz"), runs.read_released, [("model*", mutations.BYTES)]),
    "released .pt": Target(runs.write_released(".pt"), runs.read_released, [("model*", mutations.BYTES)]),
    "imagenet": Target(runs.write_imagenet(".safetensors"), runs.read_imagenet, [("resnet*", mutations.BYTES)]),
    "lpips": Target(runs.write_lpips, runs.read_lpips, [("lpips.npz", mutations.BYTES)]),
    "checkpoint": Target(
        runs.write_checkpoint,
        runs.read_checkpoint,
        [("checkpoints/**/*", (*mutations.BYTES, *mutations.PLACES)), ("checkpoints/*/config/*", mutations.JSON)],
    ),
    "export": Target(
        runs.write_export,
        runs.read_export,
        [("*.*z", (*mutations.BYTES, *mutations.PLACES)), ("*_export", mutations.BYTES), ("*.json", mutations.JSON)],
    ),
    "config": Target(runs.write_config, runs.read_a_config, [("toy.py", (*mutations.TEXT, *mutations.PLACES))]),
    "samples": Target(
        runs.write_samples,
        runs.read_samples,
        [("samples/*.json", mutations.JSON), ("samples/*/*.npz", mutations.BYTES)],
    ),
    "evaluation": Target(
        runs.write_evaluation,
        runs.read_evaluation,
        [
            ("evaluation/*.json", mutations.JSON),
            ("evaluation/scenes/*.npz", mutations.BYTES),
        ],
    ),
    "packed": Target(runs.write_packed, runs.unpack, [("packed.npz", (*mutations.BYTES, *mutations.PLACES))]),
}
WITH_TORCH = ("chunks", "released .pt")
