"""How few sampling steps are enough: samples in few steps against a solution in many, from the same noise.

    python -m dfm_jax.studies.steps_sweep --workdir=runs/toy [--config.FIELD=VALUE ...]

Draws `sample.num_samples` images behind each of `sample.num_scenes` contexts: by the published way (DDIM, steps even in
time) in 250 steps, by the same with steps even in log-SNR, and then in few steps by every sampler and spacing. Each is
compared with the two long solutions: `psnr`, the median over samples, and `lpips`, the mean (if its weights are there);
`same`, the share of samples nearer than 20 dB, which chose as the long solution did. A sampler that draws noise in its
steps (ddpm) ends elsewhere: of it, only the odds say how well it samples. On toy also the odds of the hidden
colours. Writes `steps.json` and `steps.png` to `<workdir>/steps/`; the last line on standard output is that JSON.
Several processes, as of `dfm_jax.main`, share out the points.
"""

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from dfm_jax.config import FITTED, OF_DISTILLED, SAMPLERS, SPACINGS, Config
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration import calibrate
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.image_metrics import psnr
from dfm_jax.forward_models.build import require_colours, require_scenes
from dfm_jax.models import lpips
from dfm_jax.pages import plots
from dfm_jax.runs import log
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.output_folders import replacing
from dfm_jax.runs.processes import check_same, share_out
from dfm_jax.sampling.diffusion_sampler import Params
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.studies.arguments import run_sweep

logger = logging.getLogger(__name__)

LONG = 250
STEPS = (8, 10, 12, 15, 20, 30, 50)
SAME_PSNR = 20.0
HIGHEST_PSNR = 99.0  # of equal images
OURS = ("steps.png", "steps.json")


def sweep(config: Config, workdir: str | os.PathLike, folder: Path) -> dict[str, Any]:
    """Measures every sampler, spacing and number of steps, writes the plot, and returns the numbers.

    Raises:
      UserError: the model has no scenes or no colours, or is deterministic, there is no checkpoint or data set, another
        process is at it, or the folder cannot be written.
    """
    require_scenes(config, "steps_sweep")
    require_colours(config, "steps_sweep")
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has no sampling steps")
    with failing_together():
        require_checkpoints(workdir)
    with by_first(replacing(folder, OURS, "measuring steps")) as building:
        return _sweep(config, workdir, building)


def _sweep(config: Config, workdir: str | os.PathLike, folder: Path | None) -> dict[str, Any]:
    """Writes everything to `folder` (in the first process), and returns the numbers."""
    with failing_together():
        trained = restore_trained(config, workdir)
    config = with_data_set(config)
    with failing_together():
        data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        views = evaluation_views.evaluation_views(config.data, num_scenes=config.sample.num_scenes)
        source = made_from.model_and_data(trained.params, trained.step, data)
        distance = _perceptual_distance(config.image_size)
    check_same(source, "checkpoint or data set")
    long = min(LONG, config.diffusion.num_timesteps)
    records = _measure_points(config, trained.params, data, views, long, distance)

    def write() -> dict[str, Any]:
        plots.distance_over_steps(folder / "steps.png", [record for record in records if record["num_steps"] < long])
        count = len(views) * config.sample.num_samples
        result = {"step": trained.step, "num_samples": count, "made_from": source, "records": records}
        (folder / "steps.json").write_text(json.dumps(result, indent=1) + "\n")
        return result

    return from_first(write)


def _measure_points(
    config: Config,
    params: Params,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    long: int,
    distance: lpips.Distance | None,
) -> list[dict[str, Any]]:
    """A record for each sampler, spacing and number of steps, and those of the solutions in `long` steps."""
    compared = partial(compare, distance=distance, at_once=len(views))
    references: dict[str, np.ndarray] = {}
    records: list[dict[str, Any]] = []

    def solve(point: calibrate.Point) -> np.ndarray:
        sample = dataclasses.replace(config.sample, **_settings(point))
        return calibrate.sample_images(config, params, views, sample, len(views) * config.sample.num_samples)

    def measure(point: calibrate.Point) -> dict[str, Any]:
        images = solve(point)
        to_references = {f"to_{name}": compared(images, reference) for name, reference in references.items()}
        return _settings(point) | to_references | _odds(data, views, images)

    def receive(point: calibrate.Point, found: Any) -> None:
        if point[2] == long:
            references[point[1]] = found
        else:
            records.append(found)
        bar.update()

    solvers, spacings = (
        [name for name in names if name not in (FITTED, *OF_DISTILLED)] for names in (SAMPLERS, SPACINGS)
    )
    solutions = [("ddim", spacing, long) for spacing in spacings]
    points = [(a, b, n) for n in STEPS if n < long for a in solvers for b in spacings]
    with tqdm(total=len(solutions) + len(points), unit="point", desc="steps", disable=not is_first()) as bar:
        share_out(solutions, solve, receive)
        references = from_first(lambda: references)  # all compare with them
        share_out(points, measure, receive)

    def compare_solutions() -> list[dict[str, Any]]:
        for point in solutions:
            images = references[point[1]]
            to_others = {f"to_{name}": compared(images, x) for name, x in references.items() if name != point[1]}
            records.append(_settings(point) | to_others | _odds(data, views, images))
        return records

    return from_first(compare_solutions)


def _settings(point: calibrate.Point) -> dict[str, Any]:
    return dict(zip(("sampler", "spacing", "num_steps"), point, strict=True))


def compare(
    images: Float[np.ndarray, "n h w 3"],
    reference: Float[np.ndarray, "n h w 3"],
    distance: lpips.Distance | None,
    at_once: int,
) -> dict[str, float]:
    """How near samples come to those of a long solution, in [0, 1].

    Args:
      at_once: images that LPIPS sees in one call; divides n.
    """
    decibels = np.minimum(HIGHEST_PSNR, psnr(images, reference))
    numbers = {"psnr": float(np.median(decibels)), "same": float(np.mean(decibels > SAME_PSNR))}
    if distance is not None:
        parts = range(0, len(images), at_once)
        each = [_lpips(distance, images[i : i + at_once], reference[i : i + at_once]) for i in parts]
        numbers["lpips"] = float(np.mean(each))
    return numbers


_lpips = jax.jit(lambda distance, a, b: distance(a, b))


def _odds(data: SceneDataset, views: Sequence[tuple[int, ViewIndices]], images: np.ndarray) -> dict[str, Any]:
    if known_odds(data) is None:
        return {}
    return dataclasses.asdict(calibrate.read_colours(data, views, images))


def _perceptual_distance(image_size: int) -> lpips.Distance | None:
    """None, and a line that says why, where there is none."""
    if image_size < lpips.SMALLEST_IMAGE:
        logger.warning(f"left out: lpips: images are smaller than {lpips.SMALLEST_IMAGE} pixels")
        return None
    try:
        return lpips.load_default()
    except UserError as error:
        logger.warning(f"left out: lpips: {error}")
        return None


@log.command
def main(argv: list[str]) -> int:
    result, folder = run_sweep(argv, __doc__, sweep, name="steps", ours=OURS, marker="steps.json")
    logger.info(f"look at {folder / 'steps.png'}")
    if is_first():
        print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
