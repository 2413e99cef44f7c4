"""`--mode=sample`: whole scenes sampled from context images, as videos, pictures, numbers and a page.

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
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dfm_jax.commands import signals
from dfm_jax.commands.camera_paths import in_source
from dfm_jax.commands.kept_scenes import SCENES, sampled_scenes
from dfm_jax.commands.sample_options import SampleOptions
from dfm_jax.commands.sampled_from import SampledFrom, of_data_set, of_photographs, with_path_of_photographs
from dfm_jax.commands.scenes_in_3d import in_3d
from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.evaluation.reference_scenes import find_reference
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import SceneModel, in_colour, parameter_shapes
from dfm_jax.pages.sample_page import write_report
from dfm_jax.pages.scene_media import write_scene, write_videos
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.metric_writers import METRICS_FILE, read_metrics
from dfm_jax.runs.output_folders import check_ours, replacing
from dfm_jax.runs.processes import ResultFiles, result_files
from dfm_jax.runs.workdirs import path_of, results_folder
from dfm_jax.sampling.familiarity import judge, measure
from dfm_jax.sampling.load import signal_shapes
from dfm_jax.sampling.sample_summary import Familiarity, HiddenColours, SceneResult, Summary
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.sampling.videos import MOST_KEPT, SampledImages, sample_scenes
from dfm_jax.structs import Example, RenderedViews
from dfm_jax.visualization import pictures

logger = logging.getLogger(__name__)

PAGE = "index.html"
DATA_SET = SampleOptions()
OURS = ("scene_*", "samples.json", SCENES, PAGE)


def sample(
    config: Config,
    workdir: str | os.PathLike,
    out: str | os.PathLike | None = None,
    options: SampleOptions = DATA_SET,
) -> Summary | dict[str, Any]:
    """Samples scenes behind held-out views of the data set, or photographs of one's own, with the latest averaged
    parameters of `workdir`, and writes `out`, by default `<workdir>/samples`; earlier samples there stay until these
    are complete.

    Sample j of scene i depends on (config.seed, i, j) only. Several processes share out the batches, and the first one
    writes; all return the same.

    Raises:
      UserError: there is no checkpoint, it is of another model, the data set is missing, another run samples there,
        videos or anything else cannot be written, or another process of this run failed.
    """
    options.check()
    if not isinstance(make_model(config), SceneModel):
        if options.images:
            raise UserError(f"--image is for models of scenes: this is {config.model.name}")
        return signals.sample(config, workdir, out)
    folder = results_folder(workdir, "samples", out)
    with failing_together():
        require_checkpoints(workdir)
        if out and is_first():
            check_ours(folder, OURS, "samples.json")
    num_scenes = 1 if options.images else config.sample.num_scenes
    writing = replacing(folder, OURS, "sampling", _least_bytes(config, num_scenes))
    with by_first(writing) as building, result_files(building) as files:
        with failing_together():
            pictures.check_video_encoder(files.folder)
        summary = _sample(config, workdir, files, options)
    psnr = summary.context_psnr
    agreement = "" if psnr is None else f" agree with their context views at {psnr:.1f} dB"
    logger.info(f"sampled scenes{agreement}; look at {folder / PAGE}")
    return summary


def _sample(config: Config, workdir: str | os.PathLike, files: ResultFiles, options: SampleOptions) -> Summary:
    """Samples and writes everything to the folder of `files`."""
    seconds, start = {}, time.monotonic()
    with failing_together():
        config = with_path_of_photographs(config, options) if options.images else config
        trained = restore_trained(config, workdir)
    source = of_photographs(config, trained, options) if options.images else of_data_set(config, trained)
    example = source.example
    seconds["loading"] = time.monotonic() - start

    def on_video(scene: int, sample: int, frames: RenderedViews) -> dict[str, bytes]:
        write_videos(files.folder, example, scene, sample, frames, source.paths[scene].fps)
        return files.take()

    start = time.monotonic()
    sampled = sample_scenes(trained.diffusion(), example, source.paths, config.seed, on_video, source.extend, files.put)
    seconds["sampling and rendering"] = time.monotonic() - start

    start = time.monotonic()
    familiarity = from_first(lambda: _familiarity(trained, workdir, example, sampled)) if options.images else None
    seconds["comparing with held-out scenes"] = time.monotonic() - start

    def write() -> Summary:
        folder = files.folder
        colours, hidden = source.hidden(sampled) if source.hidden else (None, [None] * len(source.names))
        paths = [in_source(*each) for each in zip(source.paths, *source.place(), strict=True)]
        known = {"known": source.known, "in_colour": in_colour(make_model(config))}
        scenes = [
            write_scene(folder, i, name, example, sampled, hidden[i], source.photographs, paths[i], **known)
            for i, name in enumerate(source.names)
        ]
        _tell_inside(scenes, config.sample.video_path)
        start = time.monotonic()
        if (kept := sampled_scenes(trained, source, sampled)) is not None:
            kept.save(folder / SCENES)
            scenes = in_3d(folder, scenes, kept, source.paths, config.sample.scenes_in_3d)
        seconds["pages in 3D"] = time.monotonic() - start
        summary = _summary(config, source, scenes, colours, seconds, familiarity)
        (folder / "samples.json").write_text(json.dumps(dataclasses.asdict(summary), indent=1) + "\n")
        write_report(folder, summary, _loss_curve(workdir, summary.step))
        return summary

    return from_first(write)


def _familiarity(trained: Sampler, workdir: str | os.PathLike, example: Example, sampled: SampledImages) -> Familiarity:
    """Whether the photographs are like the model's own data."""
    reference, why = find_reference(trained, workdir)
    found = judge(measure(example, sampled.views, sampled.estimate)[0], reference, why)
    if found.score is None:
        logger.info(f"whether the photograph is like what the model was trained on is not known: {found.said}")
        return found
    compared = f"score {found.score:.1f}; above {found.limit:.1f} is none of {found.held_out} held-out scenes"
    if found.unfamiliar:
        logger.warning(
            f"the photograph is unlike all that the model was trained on ({compared}): what is sampled behind it means "
            "little"
        )
    else:
        logger.info(f"the photograph is like what the model was trained on ({compared})")
    return found


def _tell_inside(scenes: Sequence[SceneResult], path: str) -> None:
    """Warns of cameras inside of something, whose videos show its inside."""
    share = float(np.mean([scene.inside for scene in scenes]))
    if share > 0:
        logger.warning(
            f"{100 * share:.0f} % of the frames are seen from inside of something opaque: the camera path {path}"
            " leads through it; --path= names another"
        )


def in_short(
    summary: Summary | dict[str, Any], workdir: str | os.PathLike, out: str | os.PathLike | None
) -> dict[str, Any]:
    """The numbers of a run that sampled, and where to look, for scripts; JSON can hold it."""
    folder = results_folder(workdir, "samples", out)
    where = {"page": str(folder / PAGE), "samples": str(folder / "samples.json")}
    if not isinstance(summary, Summary):
        return where | summary
    numbers = dataclasses.asdict(summary)
    kept = ["step", "context_psnr", "estimate_psnr", "spread", "hidden", "assumptions", "familiarity", "made_from"]
    kept.append("seconds")
    counts = {"num_scenes": len(summary.scenes), "num_samples": len(summary.scenes[0].samples)}
    return where | counts | {name: numbers[name] for name in kept}


def _least_bytes(config: Config, num_scenes: int) -> int:
    """Of the arrays, which are compressed to little less than that, and of the scenes, unless they are too many to be
    kept; pictures and videos are small beside them."""
    count = num_scenes * config.sample.num_samples
    # The samples' images, and those that diffusion ended with; these are beside the scenes once more.
    image = config.image_size**2 * 3 * 4
    shapes = signal_shapes(config, parameter_shapes(make_model(config)))
    signals = count * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    return count * 2 * image + (signals + count * image if signals <= MOST_KEPT else 0)


def _summary(
    config: Config,
    source: SampledFrom,
    scenes: Sequence[SceneResult],
    hidden: HiddenColours | None,
    seconds: dict[str, float],
    familiarity: Familiarity | None,
) -> Summary:
    mean = lambda values: None if None in values else float(np.mean(values))
    return Summary(
        step=source.made_from["step"],
        deterministic=config.model.deterministic,
        settings=dataclasses.asdict(config.sample)
        | {
            "seed": config.seed,
            "image_size": config.image_size,
            "data": source.description,
        },
        commands=_commands(),
        scenes=tuple(scenes),
        context_psnr=mean([sample.context_psnr for scene in scenes for sample in scene.samples]),
        estimate_psnr=mean([scene.estimate_psnr for scene in scenes]),
        spread=mean([scene.spread for scene in scenes]),
        hidden=hidden,
        made_from=source.made_from,
        assumptions=source.assumptions,
        familiarity=familiarity,
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
