"""`--mode=sample`: whole scenes drawn from context images, as videos, pictures, numbers and a page.

Everything is written below `<workdir>/samples/`: `index.html` is what to look at, `samples.json` holds its numbers.
"""

import dataclasses
import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from dfm_jax.commands import signals
from dfm_jax.config import Config
from dfm_jax.data.loading import pipeline
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration.toy_modes import has_known_odds, hidden_pixels, read_hidden_colours
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.pages.sample_page import write_report
from dfm_jax.pages.scene_media import write_scene, write_videos
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.metric_writers import METRICS_FILE, read_metrics
from dfm_jax.runs.output_folders import check_ours, replacing
from dfm_jax.runs.processes import ResultFiles, check_same, result_files
from dfm_jax.runs.workdirs import path_of, results_folder
from dfm_jax.sampling import autoregressive
from dfm_jax.sampling.batches import SampledBatch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.sample_summary import HiddenColours, SceneResult, Summary
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.sampling.trajectories import Trajectory, key_cameras, make_path, recorded_key_cameras, without_holes
from dfm_jax.sampling.videos import SampledImages, sample_scenes
from dfm_jax.structs import Camera, Example, RenderedViews
from dfm_jax.visualization import pictures

logger = logging.getLogger(__name__)

PAGE = "index.html"
OURS = ("scene_*", "samples.json", PAGE)


def sample(
    config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None
) -> Summary | dict[str, Any]:
    """Samples scenes with the latest averaged parameters of `workdir` and writes `out`, by default `<workdir>/samples`;
    earlier samples there stay until these are complete.

    Sample j of scene i depends on (config.seed, i, j) only. Several processes share out the batches, and the first one
    writes; all return the same.

    Raises:
      UserError: there is no checkpoint, it is of another model, the data set is missing, another run samples there,
        videos or anything else cannot be written, or another process of this run failed.
    """
    if not isinstance(make_model(config), SceneModel):
        return signals.sample(config, workdir, out)
    folder = results_folder(workdir, "samples", out)
    with failing_together():
        require_checkpoints(workdir)
        if out and is_first():
            check_ours(folder, OURS, "samples.json")
    writing = replacing(folder, OURS, "sampling", _least_bytes(config))
    with by_first(writing) as building, result_files(building) as files:
        with failing_together():
            pictures.check_video_encoder(files.folder)
        summary = _sample(config, workdir, files)
    logger.info(
        f"sampled scenes agree with their context views at {summary.context_psnr:.1f} dB; look at {folder / PAGE}"
    )
    return summary


def _sample(config: Config, workdir: str | os.PathLike, files: ResultFiles) -> Summary:
    """Samples and writes everything to the folder of `files`."""
    seconds, start = {}, time.monotonic()
    with failing_together():
        trained = restore_trained(config, workdir)
    config = with_data_set(config)
    with failing_together():
        example, names = pipeline.evaluation_examples(
            config.data, image_size=config.image_size, num_scenes=config.sample.num_scenes
        )
        paths = camera_paths(config, example, names)
        extend = _along_path(config, example, names, paths)
        data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        source = made_from.model_and_data(trained.params, trained.step, data)
    check_same(source, "checkpoint or data set")
    seconds["loading"] = time.monotonic() - start

    def on_video(scene: int, sample: int, frames: RenderedViews) -> dict[str, bytes]:
        write_videos(files.folder, example, scene, sample, frames)
        return files.take()

    start = time.monotonic()
    drawn = sample_scenes(trained.diffusion(), example, paths, config.seed, on_video, extend, files.put)
    seconds["sampling and rendering"] = time.monotonic() - start

    def write() -> Summary:
        folder = files.folder
        colours, hidden = _hidden_part(config, names, example, drawn)
        scenes = [write_scene(folder, i, name, example, drawn, hidden[i]) for i, name in enumerate(names)]
        summary = _summary(config, source, scenes, colours, seconds)
        (folder / "samples.json").write_text(json.dumps(dataclasses.asdict(summary), indent=1) + "\n")
        write_report(folder, summary, _loss_curve(workdir, summary.step))
        return summary

    return from_first(write)


def camera_paths(config: Config, example: Example, names: Sequence[str]) -> list[Trajectory]:
    """A path for the videos of each scene, in the frame of the example."""
    paths = []
    for i, name in enumerate(names):
        scene: Example = jax.tree.map(lambda x, i=i: np.asarray(x[i], np.float64), example)
        valid = scene.context.valid.astype(bool)
        cameras = jax.tree.map(
            lambda c, t, valid=valid: np.concatenate([c[valid], t]), scene.context.camera, scene.target.camera
        )
        paths.append(
            make_path(
                config.sample.video_path,
                cameras,
                target=int(valid.sum()),
                near=float(scene.near),
                far=float(scene.far),
                num_frames=config.sample.video_frames,
                recorded=_recorded_cameras(config, name, scene) if config.sample.video_path == "dataset" else None,
            )
        )
    return paths


def _along_path(
    config: Config, example: Example, names: Sequence[str], paths: Sequence[Trajectory]
) -> Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch] | None:
    """What samples further views along the camera paths; None where none are asked for."""
    step = config.sample.autoregressive_step
    if not step:
        return None
    cameras = []
    for i, (name, path) in enumerate(zip(names, paths, strict=True)):
        if config.sample.video_path == "dataset":
            recorded = _recorded_cameras(config, name, jax.tree.map(lambda x, i=i: np.asarray(x[i]), example))
            start = np.argmin(np.abs(recorded.camera_to_world - np.eye(4)).max((1, 2)))  # the first context view
            cameras.append(recorded_key_cameras(recorded, int(start), step))
        else:
            cameras.append(key_cameras(path, step))
    keys = autoregressive.path_views(cameras, example)
    if keys is None:
        raise UserError(
            f"config.sample.autoregressive_step={step} is longer than every camera path (config.sample.video_path="
            f"'{config.sample.video_path}'): lower it"
        )
    counts = keys.valid.sum(1)
    logger.info(f"{counts.min()} to {counts.max()} views are sampled along each path, after the first")
    known, seen = config.data.view_sampling.max_context, int(example.context.valid.sum(1).max() + counts.max())
    if seen > known:
        logger.info(
            f"the last scene has {seen} context views; in training there were {known} at most: it may come out blurred"
        )
    return partial(autoregressive.extend, example, keys, jax.random.key(config.seed))


def _recorded_cameras(config: Config, name: str, scene: Example) -> Camera:
    """A camera for each frame of the scene's source from its first to its last, relative to the first context view."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    record = data.scene(data.names.index(name))
    reference = np.vstack([scene.context.absolute_pose[0], [0.0, 0.0, 0.0, 1.0]])
    cameras = Camera(np.linalg.inv(reference) @ record.camera_to_world, record.intrinsics)
    return without_holes(cameras, record.positions)


def _hidden_part(
    config: Config, names: Sequence[str], example: Example, drawn: SampledImages
) -> tuple[HiddenColours | None, Sequence[np.ndarray | None]]:
    """What samples say about the hidden attribute, and for each scene which pixels show it, [h, w] bool, of data sets
    that have a known one; None for all others."""
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    if not has_known_odds(data):
        return None, [None] * len(names)
    samples = drawn.views[:, :, example.context.valid.shape[1]]
    colours = read_hidden_colours(data, names, example, samples, drawn.estimate)
    return colours, hidden_pixels(data, names, example, config.image_size)


def _least_bytes(config: Config) -> int:
    """Of the arrays, which are compressed to little less than that; pictures and videos are small beside them."""
    images = (
        config.sample.num_scenes * config.sample.num_samples * 2
    )  # the scene's, and those that diffusion ended with
    return images * config.image_size**2 * 3 * 4


def _summary(
    config: Config,
    source: dict[str, Any],
    scenes: Sequence[SceneResult],
    hidden: HiddenColours | None,
    seconds: dict[str, float],
) -> Summary:
    return Summary(
        step=source["step"],
        deterministic=config.model.deterministic,
        settings=dataclasses.asdict(config.sample)
        | {
            "seed": config.seed,
            "image_size": config.image_size,
            "data": f"{config.data.name}, {config.data.eval_split}",
        },
        commands=_commands(),
        scenes=tuple(scenes),
        context_psnr=float(np.mean([sample.context_psnr for scene in scenes for sample in scene.samples])),
        estimate_psnr=float(np.mean([scene.estimate_psnr for scene in scenes])),
        spread=float(np.mean([scene.spread for scene in scenes])),
        hidden=hidden,
        made_from=source,
        seconds=seconds,
    )


def _loss_curve(workdir: str | os.PathLike, until: int) -> list[tuple[int, float]]:
    """(step, loss) as logged while training up to a step; empty if nothing was. A checkpoint that was imported (step 0)
    may lie where another run was."""
    lines = read_metrics(workdir) if (path_of(workdir) / METRICS_FILE).exists() else []
    return [(line["step"], line["loss"]) for line in lines if "loss" in line and line["step"] <= until]


def _commands() -> tuple[str, ...]:
    """This program's command lines for training (where a config is named) and for sampling, as a person would type
    them; none if it was not started as a command."""
    _, *arguments = sys.orig_argv
    if "dfm_jax.main" not in arguments:
        return ()
    sampling = shlex.join(["python", *arguments])
    if not any(re.match("--?config(=|$)", argument) for argument in arguments):
        return (sampling,)
    return re.sub(r" --?(mode|out)[= ]\S+", "", sampling), sampling
