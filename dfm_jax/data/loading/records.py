"""Files of TFDS examples (array_record, no TensorFlow), written one record at a time.

The same records always give the same bytes. With TFDS's own writer they do not: it leaves the order of an example's
features, a map, to protobuf, which draws it anew in every process.
"""

import contextlib
import dataclasses
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer

VERSION = "1.0.0"
DATASET = "posed_scenes"  # TFDS's name of what a folder holds; part of its files' names
WRITER_OPTIONS = "group_size:1"  # records are read one by one
UNFINISHED = ".tmp"

Record = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class RecordFile:
    """What a file must hold."""

    records: int
    bytes: int
    sha256: str  # hexadecimal, of the whole file


def file_name(split: str, shard: int, shards: int) -> str:
    return f"{DATASET}-{split}.array_record-{shard:05d}-of-{shards:05d}"


@contextlib.contextmanager
def writing(path: Path, features: tfds.features.FeaturesDict) -> Iterator[Callable[[Record], None]]:
    """What is called with each record, in order. The file is there when the block has ended without an error.

    Raises:
      OSError: the disk is full, or cannot be written to.
    """
    serializer = example_serializer.ExampleSerializer(features.get_serialized_info())
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    writer = array_record_module.ArrayRecordWriter(str(unfinished), WRITER_OPTIONS)

    def write(record: Record) -> None:
        example = serializer.get_tf_example(features.encode_example(record))
        with _as_os_error():
            writer.write(example.SerializeToString(deterministic=True))

    try:
        yield write
        with _as_os_error():
            writer.close()
        unfinished.replace(path)
    finally:
        if writer.is_open():  # after an error, beside which those of the writer do not count
            with contextlib.suppress(RuntimeError):
                writer.close()
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """array_record raises RuntimeError whatever the system says."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _unfinished(path: Path) -> Path:
    """Where a file is written until it is complete. Never the same twice: Beam may do the same work twice at once."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}{UNFINISHED}")


def reading(path: Path, features: tfds.features.FeaturesDict) -> Iterator[dict[str, Any]]:
    """The records of a file in order, one at a time in memory."""
    reader = array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")
    try:
        for i in range(reader.num_records()):
            yield features.deserialize_example_np(reader.read([i])[0])
    finally:
        reader.close()


def inspect(path: Path, records: int) -> RecordFile:
    """The description of a file that was just written with so many records."""
    with path.open("rb") as file:
        return RecordFile(records, os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest())


def is_intact(path: Path, expected: RecordFile) -> bool:
    """Whether the file is there and has the bytes that it was written with."""
    try:
        if path.stat().st_size != expected.bytes:
            return False
        return inspect(path, expected.records) == expected
    except OSError:
        return False


def write_text(path: Path, text: str) -> None:
    """All of the text or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(path)
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_metadata(
    folder: Path, features: tfds.features.FeaturesDict, files: Mapping[str, Sequence[RecordFile]], description: str
) -> None:
    """Makes a folder of such files, by split, one that `tfds.builder_from_directory` reads."""
    template = tfds.core.ShardedFileTemplate(dataset_name=DATASET, data_dir=folder, filetype_suffix="array_record")
    splits = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[file.records for file in shards],
            num_bytes=sum(file.bytes for file in shards),
            filename_template=template.replace(split=split),
        )
        for split, shards in files.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=splits,
        version=VERSION,
        filename_template=template,
        check_data=False,  # would need TensorFlow
        description=description,
        disable_shuffling=True,
    )
