"""Measures how fast batches are read, and whether a training step would wait for them.

    python -m dfm_jax.data.loading_benchmark [--data_dir=DIR --name=NAME] [--step_seconds=S] [--num_threads=N]

Without a data set, of pictures of noise that are stored like those of RealEstate10K, 360x360 pixels in JPEGs of some
40 kB. The last line on standard output is one JSON object, with for each of the published settings

    views_per_second_per_core  by the time that the processor spent, whatever else the machine does
    cores_per_step             that must read all the time, so that steps of `step_seconds` never wait
    batches_per_second         by the clock, read by `num_threads` threads and nothing else
    seconds_waited             median over steps of `step_seconds` that leave the processor alone, as a GPU's do
"""

import argparse
import dataclasses
import functools
import io
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dfm_jax.config import DataConfig, ViewSamplingConfig
from dfm_jax.data.loading import pipeline
from dfm_jax.data.preparing import building, posed_scenes
from dfm_jax.data.preparing.source import SourceFrame, SourceScene
from dfm_jax.errors import Parser, UserError
from dfm_jax.runs import log

# The published batch of 24 at 64 pixels is some 80 TFLOP a forward pass, so 300 a step: a tenth of a second is what
# eight of today's accelerators need at the very least.
STEP_SECONDS = 0.1
BATCHES = 10  # that are measured; as many steps

NAME = "noise"
NUM_SCENES, NUM_FRAMES, IMAGE_SIZE = 256, 8, 360  # with fewer scenes grain shuffles them more slowly
OCTAVES = {5: 0.55, 20: 0.35, 60: 0.1}  # weights of noise of so many cells a side; gives 40 kB
DIFFERENT = 16  # pictures


@dataclasses.dataclass(frozen=True)
class Setting:
    """How configs/realestate10k.py and configs/co3d.py read. Gaps do not matter here, and fit short scenes."""

    image_size: int
    batch_size: int
    max_context: int
    num_target: int = 2
    rule: str = "co3d"

    def config(self, data_dir: Path, name: str, num_threads: int) -> DataConfig:
        sampling = ViewSamplingConfig(
            rule=self.rule,
            min_frame_gap=2,
            max_frame_gap=4,
            min_context=self.max_context,
            max_context=self.max_context,
            num_target=self.num_target,
            flip_probability=0.5,
            scale_jitter=0.2,
        )
        return DataConfig(
            name=name,
            dir=str(data_dir),
            split="train",
            eval_split="train",
            near=1.0,
            far=10.0,
            view_sampling=sampling,
            num_threads=num_threads,
            prefetch=4,
        )


SETTINGS = {
    "realestate10k_64": Setting(64, batch_size=24, max_context=1, rule="realestate10k"),
    "realestate10k_128": Setting(128, batch_size=16, max_context=1, rule="realestate10k"),
    "co3d_64": Setting(64, batch_size=8, max_context=3),
    "co3d_128": Setting(128, batch_size=8, max_context=3),
}


class NoiseSource:
    """Scenes of noise, seen from cameras in a row."""

    def splits(self) -> Mapping[str, Sequence[str]]:
        return {"train": [f"{i:02d}" for i in range(NUM_SCENES)]}

    def read(self, split: str, name: str) -> SourceScene:
        del split  # there is one
        frames = []
        for i in range(NUM_FRAMES):
            pose = np.eye(4)
            pose[0, 3] = 0.1 * i
            load = functools.partial(_noise, (int(name) + i) % DIFFERENT)
            intrinsics = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
            frames.append(SourceFrame(str(i), pose, intrinsics, i / 30, load, number=i))
        return SourceScene(name, frames)


@functools.cache
def _noise(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 3))
    for cells, weight in OCTAVES.items():
        octave = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
        image += weight * np.asarray(octave.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC), np.float64)
    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(buffer, "JPEG", **posed_scenes.JPEG_OPTIONS)
    return buffer.getvalue()


def measure(setting: Setting, data_dir: Path, name: str, num_threads: int, step_seconds: float) -> dict[str, Any]:
    """The numbers of one setting."""
    batch = functools.partial(
        pipeline.training_batches, image_size=setting.image_size, batch_size=setting.batch_size, seed=0
    )
    views = setting.batch_size * (setting.max_context + setting.num_target)
    alone = batch(setting.config(data_dir, name, num_threads=0))
    next(alone)  # opens the files
    spent = time.process_time()
    for _ in itertools.islice(alone, BATCHES):
        pass
    per_core = BATCHES * views / (time.process_time() - spent)
    alone.close()

    threaded = batch(setting.config(data_dir, name, num_threads))
    next(threaded)
    began = time.perf_counter()
    for _ in itertools.islice(threaded, BATCHES):
        pass
    per_second = BATCHES / (time.perf_counter() - began)
    waited = []
    for _ in range(BATCHES):
        time.sleep(step_seconds)
        began = time.perf_counter()
        next(threaded)
        waited.append(time.perf_counter() - began)
    threaded.close()
    return {
        "views_per_second_per_core": round(per_core, 1),
        "cores_per_step": round(views / step_seconds / per_core, 2),
        "batches_per_second": round(per_second, 2),
        "seconds_waited": round(statistics.median(waited), 4),
    }


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="folder in which data sets lie")
    parser.add_argument("--name", help="of the data set, which has a split 'train'")
    parser.add_argument("--step_seconds", type=float, default=STEP_SECONDS, help=f"default {STEP_SECONDS}")
    parser.add_argument("--num_threads", type=int, default=os.cpu_count(), help="reading threads; default: one a core")
    args = parser.parse_args(argv)
    if (args.data_dir is None) != (args.name is None):
        raise UserError("--data_dir and --name belong together")
    if args.step_seconds <= 0 or args.num_threads < 1:
        raise UserError("--step_seconds and --num_threads must be positive")
    return args


@log.command
def main(argv: list[str]) -> int:
    args = _parse(argv)
    with tempfile.TemporaryDirectory() as directory:
        data_dir, name = args.data_dir, args.name
        if name is None:
            data_dir, name = Path(directory), NAME
            building.prepare(NoiseSource(), data_dir, name, posed_scenes.StoreOptions(image_size=0, min_frames=3))
        measured = {
            key: measure(setting, data_dir, name, args.num_threads, args.step_seconds)
            for key, setting in SETTINGS.items()
        }
    print(json.dumps({"num_threads": args.num_threads, "step_seconds": args.step_seconds, **measured}))
    return 0


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # nothing here computes on an accelerator
    sys.exit(main(sys.argv[1:]))
