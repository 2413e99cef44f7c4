"""The procedural scenes as sources: generated instead of read."""

import functools
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from dfm_jax.data.loading.generators import GENERATORS
from dfm_jax.data.loading.procedural import frame_name
from dfm_jax.data.preparing.source import SourceFrame, SourceScene

# Of a scene that few pictures are taken of: the front, one of the third of the circle that is opposite, and one more.
FEW_PICTURES = 3


class ProceduralSource:
    """`num_scenes` training scenes and some more for testing, pictures of `image_size` pixels.

    Of the first `whole_scenes` training scenes there are pictures from all sides, and `FEW_PICTURES` of the others;
    None: from all sides of all.
    """

    name: ClassVar[str]  # in GENERATORS

    def __init__(self, num_scenes: int, image_size: int, seed: int, whole_scenes: int | None = None):
        self._scenes, self._seed = GENERATORS[self.name].scenes(num_scenes, image_size, seed), seed
        self._few = set() if whole_scenes is None else set(self._scenes.splits()["train"][whole_scenes:])

    def splits(self) -> Mapping[str, Sequence[str]]:
        return self._scenes.splits()

    def read(self, split: str, name: str) -> SourceScene:
        scene, generator = self._scenes.scene(split, name), GENERATORS[self.name]
        frames = [
            SourceFrame(
                name=frame_name(i),
                camera_to_world=pose,
                intrinsics=generator.intrinsics(),
                timestamp=float("nan"),
                load=functools.partial(_png, image),
                number=i,
            )
            for i, (pose, image) in enumerate(zip(scene.camera_to_world, scene.images, strict=True))
        ]
        if name in self._few:
            frames = [frames[i] for i in _few_of(len(frames), (self._seed, int(name.rpartition("-")[2])))]
        return SourceScene(name, frames, attributes=scene.attributes, near=generator.near, far=generator.far)


class ToySource(ProceduralSource):
    name = "toy"


class ShapesSource(ProceduralSource):
    name = "shapes"


SOURCES = {source.name: source for source in (ShapesSource, ToySource)}


def _few_of(num_frames: int, seed: tuple[int, int]) -> list[int]:
    """Numbers of `FEW_PICTURES` frames on a circle."""
    rng, ring = np.random.default_rng(seed), num_frames - 1
    opposite = int(rng.integers(1 + ring // 3, 1 + ring - ring // 3))
    other = int(rng.choice(np.setdiff1d(np.arange(1, num_frames), opposite)))
    return sorted((0, opposite, other))


def _png(image: np.ndarray) -> bytes:
    """An image [h, w, 3] uint8 as a PNG; for tiny pictures ten times as fast as Pillow, which half of the time of a
    toy data set would go to."""
    height, width, _ = image.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = image.reshape(height, -1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits a channel, RGB
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows.tobytes(), 1)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
