"""How many sampling steps the odds need: total variation between what samples show to be hidden and its known odds,
for samplers and spacings of their steps, over the number of steps.

With few steps DDIM is biased to the likelier modes even for a perfect denoiser. Colours are read off the image that
diffusion ends with, so that no scene need be rendered.
"""

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float
from tqdm import tqdm

from dfm_jax.config import OF_DISTILLED, Config, SampleConfig
from dfm_jax.data.loading import evaluation_views
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.calibration.reading import UNSEEN
from dfm_jax.evaluation.image_metrics import total_variation
from dfm_jax.runs.barriers import from_first, is_first
from dfm_jax.runs.processes import share_out
from dfm_jax.sampling.batches import pairs_at_once
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params, sample_keys, to_image
from dfm_jax.structs import Example

STEPS = (5, 10, 20, 40)
# Samplers with the spacing of their steps.
SETTINGS = (("ddim", "uniform"), ("dpm-solver++", "uniform"), ("dpm-solver++", "log-snr"))
# Of models that are distilled for few steps.
FEW_STEPS = (1, 2, 3, 4)

Point = tuple[str, str, int]  # sampler, spacing, and number of steps


def points_of(config: Config) -> list[Point]:
    """All of `SETTINGS` and `STEPS`; of a model that is sampled as distilled ones are, their own."""
    distilled = config.sample.sampler in OF_DISTILLED
    settings, numbers = ((OF_DISTILLED,), FEW_STEPS) if distilled else (SETTINGS, STEPS)
    return [(*each, steps) for each in settings for steps in numbers if steps <= config.diffusion.num_timesteps]


def sweep(
    config: Config, params: Params, data: SceneDataset, views: Sequence[tuple[int, ViewIndices]], folder: Path | None
) -> list[dict[str, Any]]:
    """A record for each of `points_of`; records that `folder` holds already are not computed again. Several processes
    share out the others.

    Sample j of scene i begins with the same noise whatever the sampler.

    Args:
      folder: of the first process; None in the others.
    """
    count = config.evaluate.sweep_samples
    points = points_of(config)

    def path_of(point: Point) -> Path:
        sampler, spacing, steps = point
        return folder / f"{sampler}-{spacing}-{steps}-{count}.json"

    def work(point: Point) -> dict[str, Any]:
        settings = dict(zip(("sampler", "spacing", "num_steps"), point, strict=True))
        sample = dataclasses.replace(config.sample, **settings)
        colours = read_colours(data, views, sample_images(config, params, views, sample, count))
        return settings | dataclasses.asdict(colours)

    def receive(point: Point, record: dict[str, Any]) -> None:
        unfinished = path_of(point).with_suffix(".incomplete")
        unfinished.write_text(json.dumps(record) + "\n")
        unfinished.replace(path_of(point))
        bar.update()

    def missing() -> list[Point]:
        folder.mkdir(parents=True, exist_ok=True)
        return [point for point in points if not path_of(point).is_file()]

    todo = from_first(missing)
    with tqdm(total=len(todo), unit="point", desc="total variation over steps", disable=not is_first()) as bar:
        share_out(todo, work, receive)
    return from_first(lambda: [json.loads(path_of(point).read_text()) for point in points])


@dataclasses.dataclass(frozen=True)
class Colours:
    """Which hidden colours (or other cases of known odds) samples show."""

    num_samples: int  # that show enough of the hidden side
    counts: tuple[int, ...]  # of each
    total_variation: float  # to the known odds
    mode_purity: float  # share of clean ones among them


def sample_images(
    config: Config, params: Params, views: Sequence[tuple[int, ViewIndices]], sample: SampleConfig, count: int
) -> Float[np.ndarray, "count h w 3"]:
    """Samples of target view 0, in [0, 1]: one of each of `views`, then the next of each, and so on."""
    pairs = [(k % len(views), k // len(views)) for k in range(count)]
    size = min(count, pairs_at_once(config.image_size))
    sample_pairs = partial(_sample, DiffusionSampler.from_config(config, params, sample), jax.random.key(config.seed))
    images = []
    for start in range(0, count, size):
        batch = pairs[start : start + size]
        filled = batch + batch[-1:] * (size - len(batch))
        scenes = [i for i, _ in filled]
        example = evaluation_views.load_views(
            config.data, [_first_target(views[i]) for i in scenes], image_size=config.image_size, indices=scenes
        )
        images.append(np.asarray(sample_pairs(example, jnp.array([j for _, j in filled])))[: len(batch)])
    return np.concatenate(images)


def read_colours(
    data: SceneDataset, views: Sequence[tuple[int, ViewIndices]], images: Float[np.ndarray, "count h w 3"]
) -> Colours:
    """Reads samples in the order of `sample_images`."""
    kind = known_odds(data)
    modes, clean = [], []  # of the samples that show enough of the hidden side
    for k, image in enumerate(images):
        number, indices = views[k % len(views)]
        scene, frames = data.scene(number), indices.target[:1]
        poses, intrinsics = scene.camera_to_world[frames, :3], scene.intrinsics[frames]
        shown = kind.read(scene.attributes, poses, intrinsics, image[None, None])
        if shown.modes.item() != UNSEEN:
            modes.append(shown.modes.item())
            clean.append(shown.clean.item())
    counts = np.bincount(modes, minlength=kind.odds.size)
    distance = total_variation(counts, kind.odds.ravel())
    return Colours(len(modes), tuple(counts.tolist()), distance, float(np.mean(clean)))


def _first_target(view: tuple[int, ViewIndices]) -> tuple[int, ViewIndices]:
    number, indices = view
    return number, ViewIndices(indices.context, indices.target[:1])


@jax.jit
def _sample(sampler: DiffusionSampler, key: Array, example: Example, sample_index: Array) -> Array:
    """Images [b, h, w, 3] in [0, 1] of target view 0, without the scene behind them."""
    return to_image(sampler.sample(example, sample_keys(key, example.index, sample_index)).x0)
