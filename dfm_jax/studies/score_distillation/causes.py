"""What makes colours too strong: each possible cause alone, everything else held.

    python -m dfm_jax.studies.score_distillation.causes --workdir=toy [--causes=scale,noise,...] [--steps=100]
        [--results=64] [--out=DIR] [--config.FIELD=VALUE ...]

Varies one setting of guided score distillation (sds-7.5) at a time, in the same number of steps, whatever these cost:
`scale` of guidance, also of sampling; the `noise` term; the `levels` of noise and their order; the learning `rate`,
with and without the sigmoid that bounds colours; the `parallel` part of guidance; the `mean` of a mixture; the
`field`'s background and density, and the `marching` noise along rays (these two of scenes). Writes `index.html`, a plot
a cause, and `causes.json` to `<workdir>/score_distillation_causes/`; the last line on standard output is that JSON,
with a `ranking` of the causes by their `burn`, the most that one of their lines adds to what saturation and contrast
have beyond those of true images, `from` which of its places `to` which. It goes on where it was interrupted.
"""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dfm_jax.config import Config
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.runs import fingerprints, log
from dfm_jax.runs.barriers import from_first, is_first
from dfm_jax.runs.output_folders import writing_to
from dfm_jax.sampling.diffusion_sampler import Params, to_image
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.arguments import count, run_sweep
from dfm_jax.studies.held_out_scenes import HeldOutScenes
from dfm_jax.studies.score_distillation import measures, pictures, records, scene_target
from dfm_jax.studies.score_distillation.methods import PARTICLES, Method, method_of
from dfm_jax.studies.score_distillation.voxels import Voxels

logger = logging.getLogger(__name__)

FILE = "causes.json"
OURS = ("index.html", "*.png", FILE)
BASE = method_of("sds-7.5")
MEAN = "mean of samples"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One point of a cause."""

    line: str  # that it belongs to
    place: float | str  # on it
    method: Method = BASE
    voxels: dict[str, Any] | None = None  # of scenes, fields of their `Voxels`; None: a picture is optimised
    averaged: bool = False  # over the results of a scene


def _scaled(name: str, scales: Sequence[float]) -> list[Variant]:
    return [Variant(name, scale, method_of(f"{name}-{scale:g}")) for scale in scales]


def _changed(line: str, place: float | str, **changes: Any) -> Variant:
    return Variant(line, place, dataclasses.replace(BASE, **changes))


SCALES = (1.0, 2.0, 4.0, 7.5, 15.0, 30.0, 100.0)
CAUSES: dict[str, list[Variant]] = {
    "scale": _scaled("sds", SCALES) + _scaled("ddim", SCALES),
    "noise": [
        Variant("7.5", "drawn (SDS)"),
        Variant("7.5", "mean of 4 (CARV)", method_of("carv-7.5")),
        Variant("7.5", "none (NFSD)", method_of("nfsd-7.5")),
        Variant("7.5", "guidance alone (CSD)", method_of("csd")),
    ],
    "levels": [
        _changed("7.5", "0.02 to 0.98"),
        _changed("7.5", "0.02 to 0.5", levels=(0.02, 0.5)),
        _changed("7.5", "0.5 to 0.98", levels=(0.5, 0.98)),
        _changed("7.5", "falling", levels=(0.9, 0.98), last_levels=(0.02, 0.1)),
        _changed("7.5", "rising", levels=(0.02, 0.1), last_levels=(0.9, 0.98)),
    ],
    "rate": [
        _changed("sigmoid" if bounded else "no bounds", rate, rate=rate, bounded=bounded)
        for bounded in (True, False)
        for rate in (0.5, 1.0, 2.0, 4.0)
    ],
    "parallel": [_changed("7.5", part, parallel=part) for part in (1.0, 0.5, 0.0)]
    + [_changed("30", part, scale=30.0, parallel=part) for part in (1.0, 0.5, 0.0)],
    "mean": [
        Variant("1", "samples (DDIM)", method_of("ddim")),
        Variant("1", MEAN, method_of("ddim"), averaged=True),
        Variant("1", "SDS", method_of("sds-1")),
        Variant("1", "VSD", method_of("vsd")),
    ],
    "field": [
        *(Variant("background", grey, voxels={"background": grey}) for grey in (0.0, 0.5, 1.0)),
        *(Variant("density at first", bias, voxels={"density_bias": bias}) for bias in (-6.0, -3.7, -1.0)),
    ],
    "marching": [
        Variant("7.5", "even distances", voxels={"jitter": False}),
        Variant("7.5", "drawn distances", voxels={"jitter": True}),
    ],
}


def variants_of(config: Config, cause: str) -> list[Variant]:
    """Those of a cause, with all fields of their voxels.

    Raises:
      UserError: scenes are asked for, and the config does not know where cameras may be.
    """
    if not any(variant.voxels for variant in CAUSES[cause]):
        return CAUSES[cause]
    scene_target.require_cameras(config, f"--causes={cause}")
    usual = dataclasses.asdict(scene_target.voxels_of(config))
    return [dataclasses.replace(variant, voxels=usual | variant.voxels) for variant in CAUSES[cause]]


def study(config: Config, workdir: str, folder: Path, *, causes: Sequence[str], options: tuple[int, int]) -> Any:
    """Measures the causes, writes the folder, and returns the numbers. The first process does it.

    Args:
      options: numbers of steps, and of results, at least.

    Raises:
      UserError: the model has no scenes, no colours or no guidance, a cause is of scenes and the config does not know
        where cameras may be, there is no checkpoint or data set, another process is at it, or the folder cannot be
        written.
    """
    require_scenes(config, "this study")
    require_colours(config, "this study")
    variants = {name: variants_of(config, name) for name in causes}
    trained = restore_trained(config, workdir)
    if not trained.trained_with["diffusion"]["guidance_dropout"]:
        raise UserError(f"the model in {workdir} was trained with diffusion.guidance_dropout=0: it knows no guidance")
    config = with_data_set(config)

    def run() -> dict[str, Any]:
        with writing_to(folder, "distilling scores", "what is complete stays, and the same command goes on"):
            scenes = measures.scenes_of(config, -(-options[1] // PARTICLES), "--results")
            source = made_from.model_and_data(trained.params, trained.step, scenes.data) | {"seed": config.seed}
            source |= {"steps": options[0], "scenes": len(scenes.views)}
            found = {}
            for name in variants:
                measured = partial(_measured, config, trained.params, scenes, options[0])
                found[name] = [_kept(folder, variant, source, measured) for variant in variants[name]]
            truth = measures.of_truth(scenes)
            result = {"causes": found, "ranking": ranking(found, truth), "truth": truth}
            result |= {"step": trained.step, "made_from": source}
            (folder / FILE).write_text(json.dumps(result, indent=1) + "\n")
            from dfm_jax.pages import causes_page  # plots need a library of their own: results come first

            causes_page.write_page(folder, result)
            return result

    return from_first(run)


def _kept(folder: Path, variant: Variant, source: dict[str, Any], measured: Callable[[Variant], Any]) -> dict[str, Any]:
    """What is measured of a variant, once: several causes may have the same one on their lines."""
    made = source | {"variant": dataclasses.asdict(dataclasses.replace(variant, line="", place=""))}
    path = folder / records.FOLDER / f"{variant.method.family}-{fingerprints.of_json(made)}.npz"
    numbers, _ = records.kept_or_made(path, made, partial(measured, variant))
    logger.info(f"{variant.line}, {variant.place}: {json.dumps(numbers)}")
    return {"line": variant.line, "place": variant.place} | numbers


def _measured(
    config: Config, params: Params, scenes: HeldOutScenes, num_steps: int, variant: Variant
) -> tuple[dict[str, Any], np.ndarray]:
    method = variant.method
    arguments = (config, params, scenes.example, PARTICLES, method, num_steps * method.evaluations)
    if variant.voxels is None:
        images = np.asarray(to_image(pictures.results(*arguments)[0]))
    else:
        images = scene_target.results(*arguments, Voxels(**variant.voxels))[0][
            :, :, scenes.example.context.images.shape[1]
        ]
    if variant.averaged:
        images = images.mean(1, keepdims=True)
    return measures.of_pictures(scenes, images), images


def ranking(found: Mapping[str, Sequence[Mapping[str, Any]]], truth: Mapping[str, float]) -> list[dict[str, Any]]:
    """The causes by `burn`, the most that one of their lines adds to what saturation and contrast together have beyond
    true images, relative to these; what pale pictures lack makes up for nothing. Also which `line` that is, `from` its
    place with the least `to` that with the most, which may be where the setting is dropped; what the line adds to
    `saturation` and to `contrast` alone, maybe between other places; and the `burn` `of_lines`: another line of the
    same cause may hardly burn."""
    rows = [{"cause": cause, **_burn(points, truth)} for cause, points in found.items()]
    return sorted(rows, key=lambda row: -row["burn"])


def _burn(points: Sequence[Mapping[str, Any]], truth: Mapping[str, float]) -> dict[str, Any]:
    measures = ("saturation", "contrast")

    def added(line: str, *names: str) -> tuple[float, float | str, float | str]:
        """How much more the place with the most has than that with the least, and both: the least first."""
        excess = lambda point: sum(max(0.0, point[name] / truth[name] - 1) for name in names)
        mine = sorted((point for point in points if point["line"] == line), key=excess)
        return excess(mine[-1]) - excess(mine[0]), mine[0]["place"], mine[-1]["place"]

    of_lines = {line: added(line, *measures) for line in dict.fromkeys(point["line"] for point in points)}
    most = max(of_lines, key=lambda line: of_lines[line][0])
    burn, least, largest = of_lines[most]
    alone = {name: added(most, name)[0] for name in measures}
    only = {line: each for line, (each, _, _) in of_lines.items()}
    return {"burn": burn, "line": most, "from": least, "to": largest, **alone, "of_lines": only}


@log.command
def main(argv: list[str]) -> int:
    parser = Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--causes", default=",".join(CAUSES))
    parser.add_argument("--steps", type=count, default=100)
    parser.add_argument("--results", type=count, default=64)
    own, rest = parser.parse_known_args(argv)
    names = tuple(dict.fromkeys(name.strip() for name in own.causes.split(",")))
    if unknown := [name for name in names if name not in CAUSES]:
        raise UserError(f"--causes: there is no cause {unknown[0]!r}: {', '.join(CAUSES)}")
    sweep = partial(study, causes=names, options=(own.steps, own.results))
    result, folder = run_sweep(rest, __doc__, sweep, name="score_distillation_causes", ours=OURS, marker=FILE)
    logger.info(f"look at {folder / 'index.html'}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
