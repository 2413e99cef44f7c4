"""What runs and others leave, for the fuzzer: checkpoints, weights, exports, results; and what reads them."""

import functools
import json
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path as Folder
from types import SimpleNamespace

import jax
import numpy as np
import optax

from dfm_jax.commands import export as exporting
from dfm_jax.config.command_line import read_config
from dfm_jax.config.reading import from_dict
from dfm_jax.data import make_toy
from dfm_jax.evaluation.scene_store import SceneStore
from dfm_jax.evaluation.scores import SceneScores
from dfm_jax.evaluation.summary import SAMPLE_MEASURES
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import parameter_shapes
from dfm_jax.interop import torch_checkpoint
from dfm_jax.interop.imagenet import load_encoder
from dfm_jax.interop.state_files import write_tree
from dfm_jax.models import lpips
from dfm_jax.runs.checkpoints import Checkpoints, restore_params
from dfm_jax.runs.retention import Retention
from dfm_jax.runs.train_state import create
from dfm_jax.studies import compare, compared_samples
from dfm_jax.training import pretrained
from tests import published_state
from tests.tiny import RESNET, tiny_model
from tests.torchvision_state import resnet34_state

ROOT = Folder(__file__).resolve().parents[2]


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


@functools.cache
def trained() -> SimpleNamespace:
    """A config and a workdir with a checkpoint of made-up parameters."""
    from tests.test_sample import tiny_config

    workdir = Folder(tempfile.mkdtemp()) / "run"
    config = from_dict(tiny_config(workdir.parent / "data"))
    model = make_model(config)
    rng = np.random.default_rng(0)
    shapes = parameter_shapes(model)
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
    make_toy.ensure_toy(run.config.data, run.config.image_size)
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
    runs = {"a": compared_samples.load_run(folder / "samples")}
    compared_samples.check_same_scenes(runs)
    compared_samples.picture(runs)


def write_evaluation(folder: Folder) -> None:
    store = SceneStore(folder / "evaluation", {"made from": "nothing"})
    scores = SceneScores(
        **dict.fromkeys(("ssim", "lpips", "depth_error", "pairwise_lpips", "modes", "clean")),
        **{name: [1.0] for name in SAMPLE_MEASURES},
        name="a",
        psnr=[[20.0]],
        estimate_psnr=20.0,
        variance=0.1,
    )
    image = np.random.default_rng(0).random((8, 8, 3))
    images = {"context": image[None], "truth": image[None], "samples": image[None, None], "estimate": image}
    store.write(0, scores, images)
    numbers = {"step": 3, "deterministic": False, "settings": {"num_samples": 1}, "psnr": 20.0}
    numbers |= {"num_scenes": 1, "num_samples": 1}
    (folder / "evaluation" / "metrics.json").write_text(json.dumps(numbers))
    views = {"frames": "source", "examples": [{"scene": "a", "context": [0], "target": [1]}]}
    (folder / "evaluation" / "protocol.json").write_text(json.dumps(views))


def read_evaluation(folder: Folder, out: Folder) -> int:
    return compare.main([f"--out={out}", f"a={folder}", f"b={folder}"])


def write_packed(folder: Folder) -> None:
    pretrained.pack(trained().workdir, folder / "packed.npz")


def unpack(folder: Folder, out: Folder) -> int:
    return pretrained.main(["unpack", f"--workdir={out / 'run'}", f"--file={folder / 'packed.npz'}"])
