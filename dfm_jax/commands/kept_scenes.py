"""Scenes that `--mode=sample` keeps beside its page, found again by commands that are about scenes."""

import dataclasses
import logging
import os
from pathlib import Path
from typing import Any

from dfm_jax.commands.coordinates import of_evaluation_examples
from dfm_jax.commands.sampled_from import SampledFrom
from dfm_jax.config import Config
from dfm_jax.config.changes import OF_COMMANDS
from dfm_jax.config.reading import from_dict
from dfm_jax.data.loading import pipeline
from dfm_jax.errors import UserError
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.load import load_scenes
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.scenes import Sampled, Scenes
from dfm_jax.sampling.videos import MOST_KEPT, SampledImages

logger = logging.getLogger(__name__)

SCENES = "scenes.npz"
# Settings that change nothing of scenes.
OF_VIDEOS = {*OF_COMMANDS, "context_cache_gb"} - {"num_scenes", "autoregressive_step"}


def sampled_scenes(trained: Sampler, source: SampledFrom, images: SampledImages) -> Scenes | None:
    """What was sampled, to be kept, rendered and exported; None, which is said, where they are too many for that."""
    if images.signal is None:
        logger.info(f"{SCENES} is left out: the scenes take more than {MOST_KEPT / 2**30:g} GB")
        return None
    num_samples = images.x0.shape[1]
    x0, estimate = images.x0.reshape(-1, *images.x0.shape[2:]), images.estimate.repeat(num_samples, axis=0)
    world, frames = source.place()
    sampled = Sampled(images.signal, x0, estimate, source.example, world, tuple(frames))
    return Scenes(trained.diffusion().on_devices(len(x0)), sampled, trained.made_from(source.assumptions))


def find_scenes(trained: Sampler, workdir: str | os.PathLike, folder: Path) -> tuple[Scenes | None, Path]:
    """Those that `--mode=sample` left in its workdir, or an earlier command in its own `folder`, and their file; None
    where there are none of these parameters, sampled as the command line asks."""
    for path in (results_folder(workdir, "samples") / SCENES, folder / SCENES):
        if not path.exists():
            continue
        try:
            scenes = load_scenes(path, trained)
        except UserError as reason:
            logger.info(f"scenes are sampled anew: {reason}")
            continue
        if others := _others(scenes.made_from, trained):
            logger.info(f"scenes are sampled anew: those in {path} have another {', '.join(others)}")
            continue
        logger.info(f"{len(scenes)} scenes of {path}; others are sampled with --mode=sample")
        return scenes, path
    return None, folder / SCENES


def sample_scenes(config: Config, trained: Sampler) -> Scenes:
    """Samples behind held-out views of the data set, as `--mode=sample` does, but for views along a path.

    Raises:
      UserError: the data set is missing, or does not have as many scenes.
    """
    size, count = config.image_size, config.sample.num_scenes
    example, _ = pipeline.evaluation_examples(config.data, image_size=size, num_scenes=count)
    world, frames = of_evaluation_examples(config.data, count)
    if config.sample.autoregressive_step:
        logger.info("further views along camera paths are sampled by --mode=sample alone")
    logger.info(f"sampling {count} x {config.sample.num_samples} scenes")
    return dataclasses.replace(trained, config=config).sample_example(example, world, frames)


def _others(made_from: dict[str, Any], trained: Sampler) -> list[str]:
    """Settings of sampling that are not those of the checkpoint, so that someone asked for them, and that scenes were
    not sampled with."""
    wanted, usual = (_settings(config) for config in (trained.config, from_dict(trained.trained_with)))
    sampled = made_from.get("sample", {}) | {"seed": made_from.get("seed")}
    return [name for name in wanted if wanted[name] != usual[name] and wanted[name] != sampled.get(name)]


def _settings(config: Config) -> dict[str, Any]:
    settings = dataclasses.asdict(config.sample) | {"seed": config.seed}
    return {name: value for name, value in settings.items() if name not in OF_VIDEOS}
