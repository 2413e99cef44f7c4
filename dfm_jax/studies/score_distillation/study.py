"""All methods on one model, one after the other: what `__main__.py` runs.

Letters: `s` example, `n` results behind each.
"""

import dataclasses
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.config import Config
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration import toy_modes
from dfm_jax.examples import held_out_examples
from dfm_jax.forward_models.build import make_model, require_colours, require_scenes
from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.runs import fingerprints
from dfm_jax.runs.barriers import from_first
from dfm_jax.runs.output_folders import writing_to
from dfm_jax.sampling.diffusion_sampler import Params, to_image
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.held_out_scenes import HeldOutScenes
from dfm_jax.studies.score_distillation import measures, pictures, records, scene_target
from dfm_jax.studies.score_distillation.methods import PARTICLES, SAMPLED, Method

logger = logging.getLogger(__name__)

FILE = "score_distillation.json"
OURS = ("index.html", "methods*.png", FILE)
SCENES_SHOWN, RESULTS_SHOWN = 2, 6

Found = tuple[dict[str, Any], np.ndarray | None]  # numbers, and pictures [s, n, h, w, 3]
Shown = dict[str, list[list[np.ndarray | None]]]


@dataclasses.dataclass(frozen=True)
class Options:
    methods: Mapping[str, Method]  # by their names
    num_evaluations: int  # of the denoiser, for each result
    num_results: int  # of each method, at least
    targets: tuple[str, ...] = ("image",)  # what is optimised, by the names of `SECTIONS`


def study(config: Config, workdir: str, folder: Path, options: Options) -> dict[str, Any]:
    """Runs the methods, writes the folder, and returns the numbers. The first process does it.

    Raises:
      UserError: the model is deterministic, or knows no guidance or no colours, there is no checkpoint or data set,
        another process is at it, or the folder cannot be written.
    """
    if getattr(config.model, "deterministic", False):
        raise UserError("this config's model is deterministic: there is no score to distil")
    require_colours(config, "this study")
    trained = restore_trained(config, workdir)
    if not trained.trained_with["diffusion"]["guidance_dropout"]:
        raise UserError(
            f"the model in {workdir} was trained with diffusion.guidance_dropout=0: it has never seen an example "
            "without context, with which most methods compare"
        )
    scenes = isinstance(make_model(config), SceneModel)
    if "scene" in options.targets:
        _require_scene_target(config, options.methods)
    config = with_data_set(config) if scenes else config

    def run() -> dict[str, Any]:
        with writing_to(folder, "distilling scores", "methods that are complete stay, and the same command goes on"):
            result, shown = (_of_scenes if scenes else _of_signals)(config, trained, folder, options)
            (folder / FILE).write_text(json.dumps(result, indent=1) + "\n")
            # Plots need a library of their own: should it not start, all results are there already.
            from dfm_jax.pages import distillation_page

            distillation_page.write_page(folder, result, shown)
            return result

    return from_first(run)


def _require_scene_target(config: Config, methods: Mapping[str, Method]) -> None:
    """Raises:
    UserError: the model has no scenes, it is not known where cameras are, or a method cannot be used for scenes.
    """
    require_scenes(config, "--target=scene")
    scene_target.require_cameras(config, "--target=scene")
    if any(method.family == "dds" for method in methods.values()):
        raise UserError("--target=scene: dds edits a picture, and there is none of a scene; leave it out of --methods")


def _of_scenes(config: Config, trained: Sampler, folder: Path, options: Options) -> tuple[dict[str, Any], Shown]:
    num_scenes = -(-options.num_results // PARTICLES)
    scenes = measures.scenes_of(config, num_scenes, "--results")
    source = made_from.model_and_data(trained.params, trained.step, scenes.data) | {"scenes": num_scenes}
    result: dict[str, Any] = {"truth": measures.of_truth(scenes), "step": trained.step, "made_from": source}
    if toy_modes.has_known_odds(scenes.data):
        result["honest"] = measures.limits(num_scenes * PARTICLES)
    shown = {}
    for target in options.targets:
        measured = partial(MEASURED[target], config, trained.params, scenes, options.num_evaluations)
        found = _run_all(folder, target, source | {"seed": config.seed}, options, measured)
        name = SECTIONS[target]
        result[name] = {method: numbers for method, (numbers, _) in found.items()}
        shown[name] = _shown(scenes, found)
    return result, shown


def _of_a_picture(config: Config, params: Params, scenes: HeldOutScenes, num_evaluations: int, method: Method) -> Found:
    x0, seconds = pictures.results(config, params, scenes.example, PARTICLES, method, num_evaluations)
    images = np.asarray(to_image(x0))
    seen = measures.rendered_scenes(config, params, scenes.example, np.clip(x0, -1, 1))
    return measures.of_pictures(scenes, images) | measures.of_views(scenes, images, seen) | {"seconds": seconds}, images


def _of_a_scene(config: Config, params: Params, scenes: HeldOutScenes, num_evaluations: int, method: Method) -> Found:
    """Sampling's scenes are those that the model infers from its samples."""
    if method.family in SAMPLED:
        x0, seconds = pictures.results(config, params, scenes.example, PARTICLES, method, num_evaluations)
        seen = measures.rendered_scenes(config, params, scenes.example, np.clip(x0, -1, 1))
    else:
        seen, seconds = scene_target.results(
            config, params, scenes.example, PARTICLES, method, num_evaluations, scene_target.voxels_of(config)
        )
    images = seen[:, :, scenes.example.context.images.shape[1]]
    return measures.of_pictures(scenes, images) | measures.of_views(scenes, images, seen) | {"seconds": seconds}, images


SECTIONS = {"image": "methods", "scene": "methods_3d"}  # of the results, by target
MEASURED = {"image": _of_a_picture, "scene": _of_a_scene}


def _of_signals(config: Config, trained: Sampler, folder: Path, options: Options) -> tuple[dict[str, Any], Shown]:
    num_examples = config.sample.num_scenes
    example, _ = held_out_examples(config, num_examples)
    wanted = max(config.sample.num_samples, -(-options.num_results // num_examples))
    num_results = -(-wanted // PARTICLES) * PARTICLES
    source = {"step": trained.step, "parameters": fingerprints.of_arrays(trained.params)}
    source |= {"examples": fingerprints.of_arrays(example), "results": num_results}

    def measured(method: Method) -> Found:
        x0, seconds = pictures.results(config, trained.params, example, num_results, method, options.num_evaluations)
        return measures.of_signals(config, trained.params, example, x0) | {"seconds": seconds}, None

    found = _run_all(folder, "image", source | {"seed": config.seed}, options, measured)
    methods = {name: numbers for name, (numbers, _) in found.items()}
    return {"methods": methods, "step": trained.step, "made_from": source}, {}


def _run_all(
    folder: Path, target: str, source: Mapping[str, Any], options: Options, measured: Callable[[Method], Found]
) -> dict[str, Found]:
    """What `measured` returns of each method, or did before."""
    found = {}
    for name, method in options.methods.items():
        if method.evaluations > options.num_evaluations:
            logger.warning(f"left out: {name}: a step of it takes {method.evaluations} evaluations")
            continue
        path = folder / records.FOLDER / f"{target}-{name}-{options.num_evaluations}-{options.num_results}.npz"
        made = {**source, "method": dataclasses.asdict(method), "evaluations": options.num_evaluations}
        numbers, images = records.kept_or_made(path, made, partial(measured, method))
        numbers = numbers | {"evaluations": options.num_evaluations // method.evaluations * method.evaluations}
        logger.info(f"{name}: {json.dumps(numbers)}")
        found[name] = numbers, images
    return found


def _shown(scenes: HeldOutScenes, found: Mapping[str, Found]) -> list[list[np.ndarray | None]]:
    """A row of what was given and true of the first scenes, and one of results a method."""
    known: list[np.ndarray | None] = []
    for i in range(min(SCENES_SHOWN, len(scenes.views))):
        views = (scenes.example.context.images[i, 0], scenes.example.target.images[i, 0])
        known += [*map(np.asarray, views), *[None] * (RESULTS_SHOWN - len(views))]
    of_method = lambda images: [image for each in images[:SCENES_SHOWN] for image in _first(each)]
    return [known, *(of_method(images) for _, images in found.values())]


def _first(images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    return images[:RESULTS_SHOWN]
