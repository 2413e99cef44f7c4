"""How a model, what it would answer without sampling, and score distillation fail on pictures that it never saw.

    python -m dfm_jax.studies.score_distillation.unlike --workdir=toy [--pictures=FOLDER] [--evaluations=200]
        [--methods=dpm-solver++,sds-7.5,vsd] [--of_each=9] [--out=DIR] [--config.FIELD=VALUE ...]

Puts other pictures in the place of the context views of held-out scenes: noise, textures, and these views as negatives,
upside down and with their colours exchanged, and photographs below FOLDER; `--of_each` many, or all photographs where
these are fewer. Of each kind and method: `context_psnr`, how the scene behind a result looks from where the picture was
taken; `saturation`, `contrast`, `diversity`, `mode_purity` and `agreement` of novel views; and the `estimate`, the
answer of the deterministic model that sampling starts from (pixelNeRF's). How early it is seen: at every step of
sampling the areas under the ROC curve by which the predicted scene's `context_error`, its distance to the estimate and
the `spread` of results tell these pictures from held-out ones. Writes `index.html`, two plots, results behind the first
pictures and `unlike.json` to `<workdir>/score_distillation_unlike/`; the last line on standard output is that JSON.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float

from dfm_jax.config import Config
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.runs import fingerprints, log
from dfm_jax.runs.barriers import from_first, is_first
from dfm_jax.runs.output_folders import writing_to
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params, sample_keys, to_image
from dfm_jax.sampling.familiarity import PARTS, SMALLEST
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Example
from dfm_jax.studies.arguments import count, run_sweep
from dfm_jax.studies.familiarity import OF_EACH, other_pictures, photographs_in, roc_area, with_pictures
from dfm_jax.studies.held_out_scenes import HeldOutScenes
from dfm_jax.studies.score_distillation import measures, pictures, records
from dfm_jax.studies.score_distillation.methods import PARTICLES, Method, method_of

logger = logging.getLogger(__name__)

FILE = "unlike.json"
OURS = ("index.html", "unlike.png", "early.png", "pictures.png", FILE)
HELD_OUT = "held-out scenes"
RESULTS_SHOWN = 3  # of each method
WATCHED = 8  # samples of each picture whose steps are looked at


@dataclasses.dataclass(frozen=True)
class Options:
    methods: Mapping[str, Method]
    num_evaluations: int
    folder: str  # of photographs; '': none
    of_each: int = OF_EACH  # pictures of a kind


def study(config: Config, workdir: str, folder: Path, options: Options) -> dict[str, Any]:
    """Measures every kind of picture, writes the folder, and returns the numbers. The first process does it.

    Raises:
      UserError: the model has no scenes or no colours, is deterministic or knows no guidance, there is no checkpoint or
        data set, or no photograph in the folder, another process is at it, or the folder cannot be written.
    """
    require_scenes(config, "this study")
    require_colours(config, "this study")
    trained = restore_trained(config, workdir)
    if config.model.deterministic or not trained.trained_with["diffusion"]["guidance_dropout"]:
        raise UserError(f"the model in {workdir} knows no guidance: there is no score without context to compare with")
    config = with_data_set(config)

    def run() -> dict[str, Any]:
        with writing_to(folder, "sampling behind other pictures", "what is complete stays"):
            scenes = measures.scenes_of(config, options.of_each, "--of_each")
            known = np.asarray(scenes.example.context.images[:, 0])
            kinds = {HELD_OUT: known} | other_pictures(known, options.of_each)
            kinds |= photographs_in(config, options.folder, options.of_each)
            source = made_from.model_and_data(trained.params, trained.step, scenes.data) | {"seed": config.seed}
            found, steps, rows = {}, {}, {}
            for kind, images in kinds.items():
                of_kind = dataclasses.replace(
                    scenes, views=scenes.views[: len(images)], example=with_pictures(scenes.example, images)
                )
                found[kind], rows[kind] = _of_kind(config, trained.params, folder, source, of_kind, kind, options)
                steps[kind] = _parts_of_steps(config, trained.params, of_kind.example)
                logger.info(f"{kind}: {json.dumps(found[kind])}")
            result = {"kinds": found, "early": early(steps), "step": trained.step, "made_from": source}
            (folder / FILE).write_text(json.dumps(result, indent=1) + "\n")
            from dfm_jax.pages import unlike_page  # plots need a library of their own: results come first

            unlike_page.write_page(folder, result, rows)
            return result

    return from_first(run)


def _of_kind(
    config: Config,
    params: Params,
    folder: Path,
    source: dict[str, Any],
    scenes: HeldOutScenes,
    kind: str,
    options: Options,
) -> tuple[dict[str, dict[str, Any]], list[np.ndarray]]:
    """The measures of each method, and of the deterministic estimate; and of the first picture what was given, that
    estimate, and the first results of each method."""

    def measured(method: Method) -> tuple[dict[str, Any], np.ndarray]:
        x0, _ = pictures.results(config, params, scenes.example, PARTICLES, method, options.num_evaluations)
        images = np.asarray(to_image(x0))
        seen = measures.rendered_scenes(config, params, scenes.example, np.clip(x0, -1, 1))
        return measures.of_pictures(scenes, images) | measures.of_views(scenes, images, seen), images

    found, results = {}, []
    for name, method in options.methods.items():
        path = folder / records.FOLDER / f"{kind.replace(' ', '-')}-{name}-{options.num_evaluations}.npz"
        made = source | {"pictures": fingerprints.of_arrays(np.asarray(scenes.example.context.images))}
        made |= {"method": dataclasses.asdict(method), "evaluations": options.num_evaluations}
        found[name], images = records.kept_or_made(path, made, partial(measured, method))
        results += list(images[0, :RESULTS_SHOWN])
    sampler = DiffusionSampler.from_config(config, params)
    estimate = np.asarray(_estimates(sampler, jax.device_put(scenes.example)))
    shown = [np.asarray(scenes.example.context.images[0, 0]), estimate[0], *results]
    return found | {"estimate": measures.of_pictures(scenes, estimate[:, None])}, shown


@jax.jit
def _estimates(sampler: DiffusionSampler, example: Example) -> Float[Array, "s h w 3"]:
    context = sampler.model.encode_context(sampler.params, example)
    return sampler.model.estimated_view(context.estimate).rgb


def _parts_of_steps(config: Config, params: Params, example: Example) -> Float[np.ndarray, "m s 3"]:
    """What `familiarity.PARTS` are of the scene that every step predicts."""
    sampler = DiffusionSampler.from_config(config, params)
    num_scenes = len(example.near)
    pairs = np.arange(num_scenes * WATCHED)
    repeated = jax.tree.map(lambda x: np.asarray(x)[pairs // WATCHED], example)
    x0, again, estimate = map(np.asarray, _watched(sampler, repeated, jax.random.key(config.seed), pairs % WATCHED))
    by_scene = partial(rearrange, pattern="m (s n) h w c -> m s n h w c", n=WATCHED)
    x0, again, estimate = by_scene(x0), by_scene(again), by_scene(estimate[None])
    size = lambda error: np.sqrt((error**2).mean((-4, -3, -2, -1)))
    given = np.asarray(example.context.images[:, 0])[None, :, None]
    parts = size(again - given), size(x0 - estimate), size(x0 - x0.mean(2, keepdims=True))
    return np.log10(np.stack(parts, axis=-1) + SMALLEST)


@jax.jit
def _watched(sampler: DiffusionSampler, example: Example, key: Array, number: Array) -> tuple[Array, Array, Array]:
    """Of all steps the predictions [m, b, h, w, 3] and the predicted scenes, seen from the first context view; and the
    deterministic estimates [b, h, w, 3]."""
    context = sampler.model.encode_context(sampler.params, example)
    first = jax.tree.map(lambda x: x[:, :1], example.context.camera)
    side = sampler.model.image_size

    def watch(timestep: Array, x_t: Array, x0: Array) -> tuple[Array, Array]:
        scene, _ = sampler.model.infer(sampler.params, context, x_t, jnp.full(len(x_t), timestep))
        return to_image(x0), sampler.render(scene, first, side, side).rgb[:, 0]

    _, seen = sampler.sample(example, sample_keys(key, example.index, number), watch)
    return *seen, sampler.model.estimated_view(context.estimate).rgb


def early(steps: Mapping[str, Float[np.ndarray, "m s 3"]]) -> dict[str, dict[str, list[float]]]:
    """Of each kind of picture and each part, the area under the ROC curve after each step, the first first."""
    known = steps[HELD_OUT]
    areas = lambda found, i: [roc_area(at[:, i], as_known[:, i]) for at, as_known in zip(found, known, strict=True)]
    others = {kind: found for kind, found in steps.items() if kind != HELD_OUT}
    return {kind: {part: areas(found, i) for i, part in enumerate(PARTS)} for kind, found in others.items()}


@log.command
def main(argv: list[str]) -> int:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--pictures", default="")
    parser.add_argument("--methods", default="dpm-solver++,sds-7.5,vsd")
    parser.add_argument("--evaluations", type=count, default=200)
    parser.add_argument("--of_each", type=count, default=OF_EACH)
    own, rest = parser.parse_known_args(argv)
    methods = {name.strip(): method_of(name.strip()) for name in own.methods.split(",")}
    options = Options(methods, own.evaluations, own.pictures, own.of_each)
    result, folder = run_sweep(
        rest, __doc__, partial(study, options=options), name="score_distillation_unlike", ours=OURS, marker=FILE
    )
    logger.info(f"look at {folder / 'index.html'}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
