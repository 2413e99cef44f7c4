"""What guidance does to colours, and which cure to take: saturation, contrast and diversity of samples over the scale.

    python -m dfm_jax.studies.guidance_sweep --workdir=runs/toy [--config.FIELD=VALUE ...]

The model must have been trained with `diffusion.guidance_dropout` above 0. Scenes and samples are as many as
`sample.num_scenes` and `sample.num_samples` say, and all begin with the same noise. Writes to `<workdir>/guidance/`
`index.html`, which says which cure to take, `guidance.png`, `guidance_samples.png` and `guidance.json`; the last line
on standard output is that JSON. Several processes, as of `dfm_jax.main`, share out the points.

Saturation and contrast are those of `evaluation/appearance.py`; diversity is the standard deviation over the samples of
a scene, averaged over pixels and colours. `scene_psnr` compares the sampled scene, rendered where it was sampled, with
the guided image that diffusion ended with; `context_psnr` the scene, rendered at the context cameras, with what was
given there.
"""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tqdm import tqdm

from dfm_jax.config import Config
from dfm_jax.data.loading import dataset, evaluation_views
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.appearance import appearance
from dfm_jax.evaluation.image_metrics import psnr
from dfm_jax.evaluation.scores import LARGEST_PSNR
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.pages import guidance_page, plots
from dfm_jax.runs import log
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.output_folders import replacing
from dfm_jax.runs.processes import check_same, share_out
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params, sample_keys, to_image
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Example
from dfm_jax.studies.arguments import run_sweep
from dfm_jax.visualization import pictures

logger = logging.getLogger(__name__)

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
# Settings that differ from plain guidance without thresholding. Factor 0.7 and momentum -0.5 are their papers'; the
# interval leaves out the highest noise levels and the lowest, where guidance costs diversity and gains nothing.
PLAIN = {
    "threshold_quantile": 1.0,
    "guidance_from": 0.0,
    "guidance_to": 1.0,
    "guidance_rescale": 0.0,
    "guidance_parallel": 1.0,
    "guidance_momentum": 0.0,
    "guidance_bound": 0.0,
}
CURES: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "dynamic thresholding": {"threshold_quantile": 0.95},
    "rescaling": {"guidance_rescale": 0.7},
    "interval": {"guidance_from": 0.2, "guidance_to": 0.8},
    "projection": {"guidance_parallel": 0.0, "guidance_momentum": -0.5, "guidance_bound": 0.1},
}
SAMPLES_SHOWN = 2
OURS = ("index.html", "guidance.png", "guidance_samples.png", "guidance.json")


def sweep(config: Config, workdir: str | os.PathLike, folder: Path) -> dict[str, Any]:
    """Measures every cure at every scale, writes the plots, and returns the numbers.

    Raises:
      UserError: the model has no scenes, no colours or no guidance, there is no checkpoint or data set, another
        process is at it, or the folder cannot be written.
    """
    require_scenes(config, "guidance_sweep")
    require_colours(config, "guidance_sweep")
    if config.model.deterministic or config.diffusion.guidance_dropout == 0:
        raise UserError(
            "this config trains a model that knows no guidance: config.diffusion.guidance_dropout must be above 0, "
            "when it is trained as well"
        )
    with failing_together():
        require_checkpoints(workdir)
    with by_first(replacing(folder, OURS, "measuring guidance")) as building:
        return _sweep(config, workdir, building)


def _sweep(config: Config, workdir: str | os.PathLike, folder: Path | None) -> dict[str, Any]:
    """Writes everything to `folder` (in the first process), and returns the numbers."""
    with failing_together():
        trained = restore_trained(config, workdir)
        if not trained.trained_with["diffusion"]["guidance_dropout"]:
            raise UserError(
                f"the model in {workdir} was trained with diffusion.guidance_dropout=0: it knows no guidance"
            )
    config = with_data_set(config)
    with failing_together():
        example, _ = evaluation_views.evaluation_examples(
            config.data, image_size=config.image_size, num_scenes=config.sample.num_scenes
        )
        data = dataset.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        source = made_from.model_and_data(trained.params, trained.step, data)
    check_same(source, "checkpoint or data set")
    measured: dict[str, list[dict[str, float]]] = {}
    rows: dict[tuple[str, float], np.ndarray] = {}  # samples of the first scene

    def receive(point: tuple[str, float], found: tuple[dict[str, float], np.ndarray]) -> None:
        measured.setdefault(point[0], []).append(found[0])
        rows[point] = found[1]
        bar.update()

    points = [(cure, scale) for cure in CURES for scale in SCALES]
    with tqdm(total=len(points), unit="point", desc="guidance", disable=not is_first()) as bar:
        share_out(points, partial(_measure_point, config, trained.params, example), receive)

    def write() -> dict[str, Any]:
        truth = appearance(np.asarray(example.target.images[:, :1]))
        ranks = guidance_page.ranking(measured, truth)
        counts = {"num_scenes": config.sample.num_scenes, "num_samples": config.sample.num_samples, "made_from": source}
        result = {"step": trained.step, **counts, "truth": truth, "cures": CURES, "measured": measured}
        result |= {"ranking": ranks, "advice": guidance_page.advice(ranks, CURES)}
        plots.guidance(folder / "guidance.png", measured, truth)
        pictures.write_png(folder / "guidance_samples.png", _sheet(rows, example))
        (folder / "guidance.json").write_text(json.dumps(result, indent=1) + "\n")
        guidance_page.write_page(folder, result)
        return result

    return from_first(write)


def _measure_point(
    config: Config, params: Params, example: Example, point: tuple[str, float]
) -> tuple[dict[str, float], np.ndarray]:
    """Numbers of a cure at a scale, and its samples of the first scene [n, h, w, 3]."""
    cure, scale = point
    images, seen, given = _samples(config, params, example, CURES[cure], scale)
    context_psnr = _mean_psnr(given, np.asarray(example.context.images)[:, None], np.asarray(example.context.valid))
    return {"scale": scale} | measure(images, seen) | {"context_psnr": context_psnr}, images[0]


def measure(images: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Of samples [s, n, h, w, 3] in [0, 1], and of their scenes rendered at the same camera."""
    diversity = float(images.std(1).mean())
    return appearance(images) | {"diversity": diversity, "scene_psnr": _mean_psnr(seen, images)}


def _mean_psnr(images: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Over images [s, n, ...], of views [s, v] that are valid, if some may not be."""
    agreement = np.minimum(LARGEST_PSNR, psnr(images, truth))
    return float(agreement.mean() if valid is None else agreement.mean(1)[valid].mean())


def _samples(
    config: Config, params: Params, example: Example, cure: Mapping[str, float], scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Samples [s, n, h, w, 3] of target view 0, their scenes rendered there, and at the context views
    [s, n, v, h, w, 3]; a sample of every scene at a time."""
    # The scale is an argument of the program: it compiles once a cure. Its own must not be that of no guidance.
    settings = dataclasses.replace(config.sample, **{**PLAIN, **cure, "guidance": 2.0})
    sampler = DiffusionSampler.from_config(config, params, settings).replace(guidance_scale=jnp.float32(scale))
    sample_number = partial(_sample_and_render, sampler, example, jax.random.key(config.seed))
    parts = [jax.device_get(sample_number(jnp.int32(j))) for j in range(config.sample.num_samples)]
    images, seen = (np.stack(part, axis=1) for part in zip(*parts, strict=True))
    return images, seen[:, :, 0], seen[:, :, 1:]


@jax.jit
def _sample_and_render(sampler: DiffusionSampler, example: Example, key: Array, number: Array) -> tuple[Array, Array]:
    """Sample `number` of each scene [s, h, w, 3], and what its scene looks like at the same camera and at those of the
    context [s, 1 + v, h, w, 3]."""
    samples = sampler.sample(example, sample_keys(key, example.index, number))
    scene, _ = sampler.scene(samples)
    cameras = jax.tree.map(
        lambda t, c: jnp.concatenate([t[:, :1], c], axis=1), example.target.camera, example.context.camera
    )
    size = sampler.model.image_size
    return to_image(samples.x0), sampler.render(scene, cameras, size, size).rgb


def _sheet(images: Mapping[tuple[str, float], np.ndarray], example: Example) -> np.ndarray:
    """A row a cure, in the columns what was given, the truth, and the first samples of the first scene, whose
    `images` [n, h, w, 3] these are, at every scale."""
    shown = min(SAMPLES_SHOWN, len(next(iter(images.values()))))
    known = [np.asarray(example.context.images[0, 0]), np.asarray(example.target.images[0, 0])]
    rows = [
        [*(known if cure == next(iter(CURES)) else [None, None])]
        + [image for scale in SCALES for image in images[cure, scale][:shown]]
        for cure in CURES
    ]
    columns = [f"scale {scale:g}" if j == 0 else "" for scale in SCALES for j in range(shown)]
    return pictures.grid(rows, ["context", "truth", *columns], list(CURES), side=96)


@log.command
def main(argv: list[str]) -> int:
    result, folder = run_sweep(argv, __doc__, sweep, name="guidance", ours=OURS, marker="guidance.json")
    logger.info(result["advice"])
    logger.info(f"look at {folder / 'index.html'}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
