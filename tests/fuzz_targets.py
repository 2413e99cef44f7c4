"""What the fuzzer damages: every kind of file that a command reads, with the code that reads it.

    python -m tests.fuzz_targets TARGET SEED COUNT

damages a fresh copy of the target `COUNT` times, and prints one JSON object before and one after each: the fuzzer
(`test_fuzz.py`) then knows which damage ended the process, or made it hang.
"""

import contextlib
import dataclasses
import faulthandler
import functools
import io
import json
import pathlib
import runpy
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import jax
import numpy as np
import optax

from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import from_dict
from dfm_jax.data import dataset, pipeline, prepare, verify
from dfm_jax.errors import UserError
from dfm_jax.evaluation import compare, protocol
from dfm_jax.evaluation import export as exporting
from dfm_jax.interop import torch_checkpoint
from dfm_jax.interop.imagenet import load_encoder
from dfm_jax.interop.state_files import write_tree
from dfm_jax.models import lpips
from dfm_jax.pixelnerf import make_model
from dfm_jax.training.checkpoints import Checkpoints, Retention, restore_params
from dfm_jax.training.state import create
from tests import captures_source, co3d_source, mutations, published_state, realestate10k_source
from tests.mutations import Rng
from tests.tiny import RESNET, tiny_model
from tests.torchvision_state import resnet34_state

ROOT = pathlib.Path(__file__).resolve().parents[1]
HANGS_AFTER = 120  # seconds
LONGEST_ERROR = 4000  # characters; a message that lists what is wrong with each file may be long

Folder = pathlib.Path


@dataclasses.dataclass(frozen=True)
class Target:
    write: Callable[[Folder], None]  # the undamaged files
    read: Callable[[Folder, Folder], int | None]  # what a command does with them; writes to the second folder
    damage: Sequence[tuple[str, Sequence[Callable[[Folder, Rng], None]]]]  # (files, what may happen to them)
    frames: Callable[[Folder], int | None] | None = None  # pictures that are there to be taken; None: cannot be said


# --- Data sets ------------------------------------------------------------------------------------------------------


def prepared(form: str, *options: str) -> Callable[[Folder, Folder], int]:
    def read(source: Folder, out: Folder) -> int:
        arguments = [f"--format={form}", f"--source={source}", f"--data_dir={out}", "--name=d", "--num_workers=1"]
        return prepare.main([*arguments, *options])

    return read


def listed_in_transforms(source: Folder) -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        frames = json.loads((source / "transforms.json").read_bytes())["frames"]
        return len(frames) if isinstance(frames, list) else None
    return None


def listed_lines(pattern: str, header: int, lines_of_a_frame: int = 1) -> Callable[[Folder], int | None]:
    """Frames that the text files of a source list."""

    def count(source: Folder) -> int | None:
        listed = 0
        for path in source.glob(pattern):
            try:
                lines = [line for line in path.read_text("utf-8").splitlines()[header:] if line.strip()]
            except (OSError, ValueError):
                return None
            listed += sum(not line.startswith("#") for line in lines) // lines_of_a_frame
        return listed

    return count


def write_transforms(source: Folder) -> None:
    captures_source.write_transforms(source)


def write_colmap(text: bool) -> Callable[[Folder], None]:
    return lambda source: captures_source.write_colmap(source, text=text) and None


def write_middlebury(source: Folder) -> None:
    from tests.test_middlebury import write_capture

    write_capture(source)


def write_realestate10k(source: Folder) -> None:
    realestate10k_source.write_clip(source, "a")
    realestate10k_source.write_clip(source, "b", number=1)


def write_chunks(source: Folder) -> None:
    from tests.test_realestate10k_chunks import clip, write_chunk

    write_chunk(source, "000000", [clip("a"), clip("b", 1)])


def write_co3d(source: Folder) -> None:
    co3d_source.write_category(source, "apple", "ab", depth=True)
    folder = source / "apple" / "set_lists"
    co3d_source.write_json(
        folder / "set_lists_manyview_dev_0.json",
        {"train": co3d_source.listed("apple", "a", range(5)), "val": [], "test": []},
    )


def read_dataset(root: Folder, out: Folder) -> None:
    for split in dataset.open_splits(root, "d"):
        for i in range(len(split)):
            scene = split.scene(i)
            for frame in range(scene.num_frames):
                split.image(scene, frame, 8)


def verify_dataset(root: Folder, out: Folder) -> int:
    return verify.main([f"--data_dir={root}", "--name=d"])


def write_dataset(root: Folder) -> None:
    with tempfile.TemporaryDirectory() as source:
        write_transforms(Folder(source))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            assert prepared("transforms")(Folder(source), root) == 0


@functools.cache
def indexed_dataset() -> dataset.SceneDataset:
    root = Folder(tempfile.mkdtemp())
    write_dataset(root)
    return dataset.open_splits(root, "d")[0]


def write_index(folder: Folder) -> None:
    (name,) = indexed_dataset().names
    examples = [{"scene": name, "context": [0], "target": [1, "images/2.png"]}, {"scene": "*", "context": [2]}]
    examples[1]["target"] = [3]
    (folder / "index.json").write_text(json.dumps({"examples": examples}))


def read_index(folder: Folder, out: Folder) -> None:
    entries, _ = protocol.read(folder / "index.json")
    protocol.resolve(entries, indexed_dataset())


# --- Parameters -----------------------------------------------------------------------------------------------------


def write_released(suffix: str) -> Callable[[Folder], None]:
    def write(folder: Folder) -> None:
        state = published_state.made_up_state(published_state.model_of(published_state.small_config()))
        path = folder / f"model{suffix}"
        np.savez(path, **state) if suffix == ".npz" else write_tree(path, state)

    return write


def read_released(folder: Folder, out: Folder) -> int:
    (path,) = [path for path in folder.iterdir() if path.name.startswith("model")] or [folder / "model"]
    heads = f"--num_heads={published_state.HEADS}"
    return torch_checkpoint.main(["check", f"--source={path}", heads])


def write_imagenet(suffix: str) -> Callable[[Folder], None]:
    return lambda folder: write_tree(folder / f"resnet{suffix}", resnet34_state(RESNET.base, classes=10)) and None


def read_imagenet(folder: Folder, out: Folder) -> None:
    for path in folder.iterdir():
        load_encoder(path, tiny_model(encoder=RESNET))


def write_lpips(folder: Folder) -> None:
    rng = np.random.default_rng(0)
    np.savez(folder / "lpips.npz", **{name: rng.random(shape, np.float32) for name, shape in lpips.shapes().items()})


def read_lpips(folder: Folder, out: Folder) -> None:
    lpips.load(folder / "lpips.npz")


# --- Runs -----------------------------------------------------------------------------------------------------------


@functools.cache
def trained() -> SimpleNamespace:
    """A config and a workdir with a checkpoint of made-up parameters."""
    from tests.test_sample import tiny_config

    workdir = Folder(tempfile.mkdtemp()) / "run"
    config = from_dict(tiny_config(workdir.parent / "data"))
    model = make_model(config.model, config.image_size, config.loss)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    with Checkpoints(workdir, keep=Retention(1)) as checkpoints:
        checkpoints.save(7, create(params, optax.sgd(0.1)), config)
    return SimpleNamespace(config=config, workdir=workdir)


def write_checkpoint(folder: Folder) -> None:
    shutil.copytree(trained().workdir, folder, dirs_exist_ok=True)


def read_checkpoint(folder: Folder, out: Folder) -> None:
    restore_params(folder)


@functools.cache
def exported() -> Folder:
    run = trained()
    pipeline.ensure_toy(run.config.data, run.config.image_size)
    exporting.export(run.config, run.workdir)
    return run.workdir / "export"


def write_export(folder: Folder) -> None:
    shutil.copytree(exported(), folder, dirs_exist_ok=True)


def read_export(folder: Folder, out: Folder) -> None:
    arguments, sys.argv = sys.argv, ["sample_exported.py", str(folder)]
    try:
        runpy.run_path(str(ROOT / "examples" / "sample_exported.py"), run_name="__main__")
    finally:
        sys.argv = arguments


def write_config(folder: Folder) -> None:
    shutil.copy(ROOT / "configs" / "toy.py", folder / "toy.py")


def read_a_config(folder: Folder, out: Folder) -> None:
    read_config(str(folder / "toy.py"), ["--config.train.num_steps=3"])


def write_samples(folder: Folder) -> None:
    from tests.test_compare import write_run

    write_run(folder, 0.1, 0.01)


def read_samples(folder: Folder, out: Folder) -> None:
    runs = {"a": compare.load_run(folder)}
    compare.check_same_scenes(runs)
    compare.picture(runs)


PREPARED_IMAGES = (*mutations.BYTES, *mutations.PLACES)
DATASET_FILES = [
    ("d/dataset.json", mutations.JSON),
    ("d/*/*/*.json", mutations.JSON),
    ("d/*/*/*array_record*", (*mutations.BYTES, *mutations.PLACES)),
]
TARGETS = {
    "transforms": Target(
        write_transforms,
        prepared("transforms"),
        [("transforms.json", mutations.JSON), ("images/*.png", PREPARED_IMAGES)],
        listed_in_transforms,
    ),
    "colmap binary": Target(
        write_colmap(False),
        prepared("colmap"),
        [("sparse/0/*.bin", mutations.BYTES), ("sparse/0/*.bin", mutations.PLACES), ("images/*.png", PREPARED_IMAGES)],
    ),
    "colmap text": Target(
        write_colmap(True),
        prepared("colmap"),
        [("sparse/0/*.txt", mutations.TEXT), ("images/*.png", PREPARED_IMAGES)],
        listed_lines("sparse/0/images.txt", header=0, lines_of_a_frame=2),
    ),
    "middlebury": Target(
        write_middlebury,
        prepared("middlebury"),
        [("*_par.txt", mutations.TEXT), ("*.png", PREPARED_IMAGES)],
        listed_lines("*_par.txt", header=1),
    ),
    "realestate10k": Target(
        write_realestate10k,
        prepared("realestate10k"),
        [("RealEstate10K/train/*.txt", mutations.TEXT), ("frames/train/*/*.jpg", PREPARED_IMAGES)],
        listed_lines("RealEstate10K/train/*.txt", header=1),
    ),
    "chunks": Target(
        write_chunks,
        prepared("realestate10k"),
        [("train/*.torch", mutations.BYTES), ("train/index.json", mutations.JSON)],
    ),
    "co3d": Target(
        write_co3d,
        prepared("co3d"),
        [
            ("apple/*_annotations.jgz", mutations.PACKED_JSON),
            ("apple/set_lists/*.json", mutations.JSON),
            ("apple/*/images/*.jpg", PREPARED_IMAGES),
            ("apple/*/*/*.png", PREPARED_IMAGES),
        ],
    ),
    "data set": Target(write_dataset, read_dataset, DATASET_FILES),
    "data set, verified": Target(write_dataset, verify_dataset, DATASET_FILES),
    "index": Target(write_index, read_index, [("index.json", mutations.JSON)]),
    "released .safetensors": Target(
        write_released(".safetensors"), read_released, [("model*", (*mutations.BYTES, *mutations.PLACES))]
    ),
    "released .npz": Target(write_released(".npz"), read_released, [("model*", mutations.BYTES)]),
    "released .pt": Target(write_released(".pt"), read_released, [("model*", mutations.BYTES)]),
    "imagenet": Target(write_imagenet(".safetensors"), read_imagenet, [("resnet*", mutations.BYTES)]),
    "lpips": Target(write_lpips, read_lpips, [("lpips.npz", mutations.BYTES)]),
    "checkpoint": Target(
        write_checkpoint,
        read_checkpoint,
        [("checkpoints/**/*", (*mutations.BYTES, *mutations.PLACES)), ("checkpoints/*/config/*", mutations.JSON)],
    ),
    "export": Target(
        write_export, read_export, [("*", (*mutations.BYTES, *mutations.PLACES)), ("export.json", mutations.JSON)]
    ),
    "config": Target(write_config, read_a_config, [("toy.py", (*mutations.TEXT, *mutations.PLACES))]),
    "samples": Target(
        write_samples, read_samples, [("samples/*.json", mutations.JSON), ("samples/*/*.npz", mutations.BYTES)]
    ),
}
WITH_TORCH = ("chunks", "released .pt")


# --- Damaging and reading --------------------------------------------------------------------------------------------


def damage(target: Target, folder: Folder, rng: Rng) -> str:
    """Damages one file below the folder; says which and how."""
    pattern, ways = target.damage[int(rng.integers(len(target.damage)))]
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    path, way = files[int(rng.integers(len(files)))], ways[int(rng.integers(len(ways)))]
    way(path, rng)
    return f"{way.__name__} {path.relative_to(folder)}"


def judge(target: Target, folder: Folder, out: Folder, intact: int | None) -> str:
    """Reads what is in the folder; what is wrong with how that went, or ''."""
    errors, output = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            code = target.read(folder, out) or 0
    except UserError as error:
        print(f"error: {error}", file=errors)
        code = 1
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=errors)
        code = error.code if isinstance(error.code, int) else 1
    except Exception:
        return traceback.format_exc()
    text = errors.getvalue()
    if "Traceback" in text:
        return f"a traceback was printed: {text[-1500:]}"
    if code not in (0, 1):
        return f"exit code {code}"
    if code == 1 and (text.count("error: ") != 1 or len(text) > LONGEST_ERROR):
        return f"exit code 1 without one clear error: {text[-1500:]}"
    return lost(target, folder, output.getvalue(), intact) if code == 0 else ""


def lost(target: Target, folder: Folder, output: str, intact: int | None) -> str:
    """What a successful preparation does not account for, or ''."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    counts = json.loads(lines[-1]) if lines else {}
    if "quarantined_frames" not in counts:
        return ""
    there = target.frames(folder) if target.frames else intact
    found = counts["frames"] + counts["quarantined_frames"]
    # A scene that cannot be read at all is one line of the quarantine, of however many frames.
    if there is None or found >= there or counts["quarantined_scenes"]:
        return ""
    return f"of {there} frames only {counts['frames']} were taken and {counts['quarantined_frames']} quarantined"


def count(target: Target, folder: Folder) -> int | None:
    """Frames of the undamaged source."""
    with tempfile.TemporaryDirectory() as out, contextlib.redirect_stderr(io.StringIO()):
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            assert not target.read(folder, Folder(out)), f"the undamaged source is refused: {output.getvalue()}"
    lines = [line for line in output.getvalue().splitlines() if line.startswith("{")]
    return json.loads(lines[-1]).get("frames") if lines else None


def main(name: str, seed: int, tries: int) -> None:
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as room:
        whole = Folder(room) / "whole"
        whole.mkdir()
        target.write(whole)
        intact = count(target, whole)
        for i in range(tries):
            rng = np.random.default_rng((seed, i))
            folder, out = Folder(room) / f"source{i}", Folder(room) / f"out{i}"
            shutil.copytree(whole, folder)
            out.mkdir()
            print(json.dumps({"try": i, "damage": damage(target, folder, rng)}), flush=True)
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            problem = judge(target, folder, out, intact)
            faulthandler.cancel_dump_traceback_later()
            print(json.dumps({"try": i, "problem": problem}), flush=True)
            shutil.rmtree(folder)
            shutil.rmtree(out)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
