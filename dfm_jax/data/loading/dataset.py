"""Random access to a prepared data set: scene records and single frames."""

import contextlib
import dataclasses
import functools
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from dfm_jax.data.loading import holes, transforms
from dfm_jax.data.loading.holes import Hole
from dfm_jax.data.loading.records import VERSION, RecordFile
from dfm_jax.data.loading.source_frames import SOURCE_FRAMES
from dfm_jax.errors import UserError
from dfm_jax.runs import fingerprints

logger = logging.getLogger(__name__)

INDEX_FILE = "dataset.json"  # of a data set's folder; written last


@dataclasses.dataclass(frozen=True)
class SceneRecord:
    """One scene of `n` frames, everything but its pictures."""

    name: str
    first_frame: int  # position of its first frame among all frames of the split
    camera_to_world: np.ndarray  # [n, 4, 4] float64
    intrinsics: np.ndarray  # [n, 3, 3] float64, normalised
    timestamps: np.ndarray  # [n] float64, seconds; NaN where unknown
    frame_names: tuple[str, ...]  # as in the source
    numbers: np.ndarray | None  # [n] in the source's list of frames; None: the data set is older than they are
    holes: tuple[Hole, ...]  # the source's other frames, as far as they are known
    scale: float  # what the source's translations were multiplied by
    near: float  # bounds that the source states; NaN where it has none
    far: float
    attributes: dict[str, Any]  # what else the source knows

    @property
    def num_frames(self) -> int:
        return len(self.camera_to_world)

    @property
    def num_source_frames(self) -> int:
        return self.num_frames + len(self.holes)

    @property
    def positions(self) -> np.ndarray:
        """[n] in the order of capture, counting holes."""
        return holes.positions(self.num_frames, [hole.position for hole in self.holes])


@dataclasses.dataclass(frozen=True)
class SceneDataset:
    """One split. Pickles cheaply: reading processes open the files for themselves."""

    path: Path
    split: str
    names: tuple[str, ...]
    num_frames: tuple[int, ...]  # of each scene
    holdout: int  # of so many frames of a scene one is kept from training; 0: none
    # Positions of each scene's holes in the order of capture; None: the data set is older than frames' numbers.
    holes: tuple[tuple[int, ...], ...] | None
    # Frames of each scene that its source keeps from training, whatever `holdout` is; None: it says nothing about that.
    stated: tuple[tuple[int, ...] | None, ...]
    # Whether scenes say how their coordinates lie in those of their source (`source_frames`); older data sets do not.
    knows_source: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_training_frames(self) -> np.ndarray:
        """[len] of each scene: those that are not held out."""
        numbers = np.array(self.num_frames)
        for scene in self.with_held_out:
            numbers[scene] = (~self.held_out(scene)).sum()
        return numbers

    @property
    def with_held_out(self) -> list[int]:
        """Scenes of which some frames may be held out."""
        return [scene for scene, stated in enumerate(self.stated) if stated or (stated is None and self.holdout)]

    def scene(self, scene: int) -> SceneRecord:
        with _reading(self.path):
            record = self._scenes[scene]
            return SceneRecord(
                name=record["name"].decode(),
                first_frame=int(record["first_frame"]),
                camera_to_world=record["camera_to_world"],
                intrinsics=record["intrinsics"],
                timestamps=record["timestamps"],
                frame_names=tuple(name.decode() for name in record["frame_names"]),
                numbers=record.get("frame_numbers"),
                holes=holes.decode(record.get("holes", "[]")),
                scale=float(record["scale"]),
                near=float(record["near"]),
                far=float(record["far"]),
                attributes=json.loads(record["attributes"]),
            )

    def positions(self, scene: int) -> np.ndarray:
        """[n] of a scene's frames in the order of capture, counting holes (as far as they are known)."""
        return holes.positions(self.num_frames[scene], self.holes[scene] if self.holes else ())

    def num_source_frames(self, scene: int) -> int:
        return self.num_frames[scene] + (len(self.holes[scene]) if self.holes else 0)

    def held_out(self, scene: int) -> np.ndarray:
        """Which of a scene's frames [n] are kept from training: those that its source says, or else every so many-th
        of the source, so that a hole changes nothing for the others."""
        if self.stated[scene] is not None:
            return np.isin(np.arange(self.num_frames[scene]), self.stated[scene])
        if not self.holdout:
            return np.zeros(self.num_frames[scene], bool)
        return self.positions(scene) % self.holdout == self.holdout // 2

    def encoded_image(self, scene: SceneRecord, frame: int) -> bytes:
        if not 0 <= frame < scene.num_frames:
            raise IndexError(f"scene {scene.name} has {scene.num_frames} frames, not {frame}")
        with _reading(self.path):
            encoded = self._frames[scene.first_frame + frame]["image"]
            if not encoded:
                raise ValueError(f"frame {frame} of scene {scene.name} is empty")
            return encoded

    def image(self, scene: SceneRecord, frame: int, size: int) -> np.ndarray:
        """Float32 [size, size, 3] in [0, 1]."""
        encoded = self.encoded_image(scene, frame)
        with _reading(self.path):
            return transforms.decode(encoded, size)

    def mask(self, scene: SceneRecord, frame: int, size: int) -> np.ndarray | None:
        """What counts in that picture, float32 [size, size] in [0, 1]; None where the data set does not know it."""
        with _reading(self.path):
            encoded = self._frames[scene.first_frame + frame].get("mask")
            return transforms.decode(encoded, size) if encoded else None

    def stored_size(self, scene: SceneRecord) -> int:
        """Side of the scene's pictures on disk, pixels."""
        encoded = self.encoded_image(scene, 0)
        with _reading(self.path):
            return Image.open(io.BytesIO(encoded)).width

    def fingerprint(self) -> dict[str, Any]:
        """Of what the split holds, see `fingerprints.of_split`."""
        return fingerprints.of_split(read_index(self.path.parent, self.path.name), self.split)

    @functools.cached_property
    def _scenes(self) -> Any:
        return self._open("scenes")

    @functools.cached_property
    def _frames(self) -> Any:
        return self._open("frames", image=tfds.decode.SkipDecoding())

    def _open(self, config: str, **decoders: Any) -> Any:
        builder = tfds.builder_from_directory(self.path / config / VERSION)
        return builder.as_data_source(self.split, decoders=decoders or None)

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@functools.cache
def warn_of_unknown_numbers(path: Path) -> None:
    """Once in a process: for who counts frames of a data set that `knows_numbers` of none."""
    logger.warning(
        "data set %s was prepared before frames kept their numbers: where a frame was left out, index files and frame "
        "gaps count the frames that are left, not those of the source; to mend it, prepare it again with --overwrite",
        path,
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What is wrong with a file shows in many ways: array_record raises RuntimeError, tensorflow_datasets errors of its
    own, and what was cut while it was open reads as nothing."""
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise UserError(
            f"data set {path} is damaged ({reason}); python -m dfm_jax.data.verify lists its damaged files: put them "
            "back, and start the same command again"
        ) from error


def exists(data_dir: str | Path, name: str) -> bool:
    """Whether a complete data set lies there: the index file is the last to be written."""
    return (Path(data_dir) / name / INDEX_FILE).is_file()


def names(data_dir: str | Path) -> list[str]:
    """Of the data sets that lie in a folder.

    Raises:
      UserError: there is none.
    """
    found = sorted(path.parent.name for path in Path(data_dir).glob(f"*/{INDEX_FILE}"))
    found = [name for name in found if not name.startswith(".")]  # those are being built
    if not found:
        raise UserError(
            f"there is no data set in {data_dir}; make one with python -m dfm_jax.data.prepare (see --help)"
        )
    return found


def read_index(data_dir: str | Path, name: str) -> dict[str, Any]:
    """What a prepared data set says about itself.

    Raises:
      UserError: there is no such data set, or the file is damaged.
    """
    path = Path(data_dir) / name
    if not exists(data_dir, name):
        raise UserError(
            f"there is no data set '{name}' in {data_dir}; make it with: python -m dfm_jax.data.prepare "
            f"--format=FORMAT --source=DIR --data_dir={data_dir} --name={name}"
        )
    try:
        index = json.loads((path / INDEX_FILE).read_text(encoding="utf-8"))
        for entry in index["splits"].values():  # raises what is caught if this is no index
            lists = [
                entry["names"],
                entry["num_frames"],
                *(entry[key] for key in ("holes", "held_out") if key in entry),
            ]
            if len({*map(len, lists)}) != 1:
                raise ValueError("its lists of scenes differ in length")
        for entry in index.get("files", {}).values():
            RecordFile(**entry)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{path / INDEX_FILE} is damaged ({error}); prepare the data set again") from error
    return index


def open_splits(data_dir: str | Path, name: str) -> list[SceneDataset]:
    """All splits of a prepared data set.

    Raises:
      UserError: there is no such data set.
    """
    path, index = Path(data_dir) / name, read_index(data_dir, name)
    holdout = index.get("holdout", 0)  # data sets made before there was one have none
    knows_source = SOURCE_FRAMES in index
    return [
        SceneDataset(
            path,
            split,
            tuple(entry["names"]),
            tuple(entry["num_frames"]),
            holdout,
            _holes(entry),
            _stated(entry),
            knows_source,
        )
        for split, entry in index["splits"].items()
    ]


def _holes(entry: dict[str, Any]) -> tuple[tuple[int, ...], ...] | None:
    """Of each scene of a split; data sets made before frames had numbers know of none."""
    return tuple(map(tuple, entry["holes"])) if "holes" in entry else None


def _stated(entry: dict[str, Any]) -> tuple[tuple[int, ...] | None, ...]:
    """Frames that are held out of each scene of a split; older data sets state none."""
    stated = entry.get("held_out", [None] * len(entry["names"]))
    return tuple(None if frames is None else tuple(frames) for frames in stated)


def open_dataset(data_dir: str | Path, name: str, split: str) -> SceneDataset:
    """One split of a prepared data set.

    Raises:
      UserError: there is no such data set or split.
    """
    splits = {opened.split: opened for opened in open_splits(data_dir, name)}
    if split not in splits:
        path = Path(data_dir) / name
        raise UserError(f"data set {path} has no split '{split}' (it has: {', '.join(splits)}); set config.data.split")
    return splits[split]
