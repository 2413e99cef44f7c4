"""How few sampling steps are enough: samples in few steps against a solution in many, from the same noise.

    python -m dfm_jax.studies.steps_sweep --workdir=runs/toy [--config.FIELD=VALUE ...]

Draws `sample.num_samples` images behind each of `sample.num_scenes` contexts: by the published way (DDIM, steps even in
time) in 250 steps, by the same with steps even in log-SNR, and then in few steps by every sampler and spacing. Each is
compared with the two long solutions: `psnr`, the median over samples, and `lpips`, the mean (if its weights are there);
`same`, the share of samples nearer than 20 dB, which chose as the long solution did. A sampler that draws noise in its
steps (ddpm) ends elsewhere: of it, only the odds say how well it samples. On toy also the odds of the hidden
colours. Writes `steps.json` and `steps.png` to `<workdir>/steps/`; the last line on standard output is that JSON.
"""

import argparse
import dataclasses
import json
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

from dfm_jax import platforms
from dfm_jax.config import SAMPLERS, SPACINGS, Config
from dfm_jax.config.command_line import read_config
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import Parser, UserError
from dfm_jax.evaluation import made_from
from dfm_jax.evaluation.calibration import calibrate, toy_modes
from dfm_jax.evaluation.image_metrics import psnr
from dfm_jax.models import lpips
from dfm_jax.pages import plots
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.log import say
from dfm_jax.runs.output_folders import check_ours, replacing
from dfm_jax.runs.saved_settings import saved_settings
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.trained import restore_trained

LONG = 250
STEPS = (8, 10, 12, 15, 20, 30, 50)
SAME_PSNR = 20.0
HIGHEST_PSNR = 99.0  # of equal images
OURS = ("steps.png", "steps.json")


def sweep(config: Config, workdir: str | os.PathLike, folder: Path) -> dict[str, Any]:
    """Measures every sampler, spacing and number of steps, writes the plot, and returns the numbers.

    Raises:
      UserError: the model is deterministic, there is no checkpoint or data set, another process is at it, or the
        folder cannot be written.
    """
    if config.model.deterministic:
        raise UserError("this config's model is deterministic: it has no sampling steps")
    require_checkpoints(workdir)
    with replacing(folder, OURS, "measuring steps") as building:
        return _sweep(config, workdir, building)


def _sweep(config: Config, workdir: str | os.PathLike, folder: Path) -> dict[str, Any]:
    """Writes everything to `folder`, and returns the numbers."""
    trained = restore_trained(config, workdir)
    params, step = trained.params, trained.step
    config = with_data_set(config)
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    views = evaluation_views.evaluation_views(config.data, num_scenes=config.sample.num_scenes)
    count = len(views) * config.sample.num_samples
    compared = partial(compare, distance=_perceptual_distance(config.image_size), at_once=len(views))

    def draw(sampler: str, spacing: str, steps: int) -> np.ndarray:
        sample = dataclasses.replace(config.sample, sampler=sampler, spacing=spacing, num_steps=steps)
        return calibrate.draw_samples(config, params, views, sample, count)

    long = min(LONG, config.diffusion.num_timesteps)
    settings = [(a, b, n) for n in STEPS if n < long for a in SAMPLERS for b in SPACINGS]
    references, records = {}, []
    for sampler, spacing, steps in tqdm([("ddim", s, long) for s in SPACINGS] + settings, unit="point", desc="steps"):
        images = draw(sampler, spacing, steps)
        if steps == long:
            references[spacing] = images
            continue
        record = {"sampler": sampler, "spacing": spacing, "num_steps": steps}
        record |= {f"to_{name}": compared(images, reference) for name, reference in references.items()}
        records.append(record | _odds(data, views, images))
    for spacing, images in references.items():
        record = {"sampler": "ddim", "spacing": spacing, "num_steps": long}
        record |= {f"to_{name}": compared(images, x) for name, x in references.items() if name != spacing}
        records.append(record | _odds(data, views, images))

    plots.distance_over_steps(folder / "steps.png", [record for record in records if record["num_steps"] < long])
    source = made_from.model_and_data(params, step, data)
    result = {"step": step, "num_samples": count, "made_from": source, "records": records}
    (folder / "steps.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


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
    if not toy_modes.has_known_odds(data):
        return {}
    return dataclasses.asdict(calibrate.read_colours(data, views, images))


def _perceptual_distance(image_size: int) -> lpips.Distance | None:
    """None, and a line that says why, where there is none."""
    if image_size < lpips.SMALLEST_IMAGE:
        say(f"left out: lpips: images are smaller than {lpips.SMALLEST_IMAGE} pixels")
        return None
    try:
        return lpips.load_default()
    except UserError as error:
        say(f"left out: lpips: {error}")
        return None


def main(argv: list[str]) -> int:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="of a trained model, or the name of one that is shipped")
    parser.add_argument("--config", default="", help="FILE.py or FILE.py:variant; without, the checkpoint's")
    parser.add_argument("--out", help="folder for the results; without, <workdir>/steps")
    try:
        arguments, overrides = parser.parse_known_args(argv)
        saved = None if arguments.config else saved_settings(arguments.workdir)
        config = read_config(arguments.config, overrides, saved)
        folder = results_folder(arguments.workdir, "steps", arguments.out)
        if arguments.out:
            check_ours(folder, OURS, "steps.json")
        platforms.start()
        with platforms.memory_told():
            result = sweep(config, arguments.workdir, folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"look at {folder / 'steps.png'}", file=sys.stderr)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
