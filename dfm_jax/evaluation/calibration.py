"""How many sampling steps the odds need: total variation between hidden colours drawn and their known odds (toy), for
every sampler, over the number of its steps.

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
from tqdm import tqdm

from dfm_jax.config import SAMPLERS, Config, SampleConfig
from dfm_jax.data import evaluation_views
from dfm_jax.data.builders import toy
from dfm_jax.data.dataset import SceneDataset
from dfm_jax.data.view_sampling import Draw
from dfm_jax.diffusion.schedule import Schedule, cosine_schedule
from dfm_jax.evaluation import toy_modes
from dfm_jax.evaluation.draw import PIXELS_PER_DRAW, Params, draw_target, prepare_drawing
from dfm_jax.forward_model import RadianceFieldModel
from dfm_jax.metrics import total_variation
from dfm_jax.pixelnerf import make_model
from dfm_jax.structs import Example

STEPS = (5, 10, 20, 40)


def sweep(
    config: Config, params: Params, data: SceneDataset, views: Sequence[tuple[int, Draw]], folder: Path
) -> list[dict[str, Any]]:
    """A record for each sampler and number of steps; records that `folder` holds already are not computed again.

    Sample j of scene i begins with the same noise whatever the sampler.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = [(sampler, steps) for sampler in SAMPLERS for steps in STEPS if steps <= config.diffusion.num_timesteps]
    records = []
    for sampler, steps in tqdm(settings, unit="point", desc="total variation over steps"):
        path = folder / f"{sampler}-{steps}-{config.evaluate.sweep_samples}.json"
        if not path.is_file():
            sample = dataclasses.replace(config.sample, sampler=sampler, num_steps=steps)
            record = {"sampler": sampler, "num_steps": steps} | _point(config, params, data, views, sample)
            path.write_text(json.dumps(record) + "\n")
        records.append(json.loads(path.read_text()))
    return records


def _point(
    config: Config, params: Params, data: SceneDataset, views: Sequence[tuple[int, Draw]], sample: SampleConfig
) -> dict[str, Any]:
    """Draws scene after scene, then the next sample of each."""
    count = config.evaluate.sweep_samples
    pairs = [(k % len(views), k // len(views)) for k in range(count)]
    size = min(count, max(1, PIXELS_PER_DRAW // config.image_size**2))
    model, schedule = (
        make_model(config.model, config.image_size, config.loss),
        cosine_schedule(config.diffusion.num_timesteps),
    )
    draw = partial(_draw, params, schedule, jax.random.key(config.seed), model=model, sample=sample)
    modes, clean = [], []
    for start in range(0, count, size):
        batch = pairs[start : start + size]
        filled = batch + batch[-1:] * (size - len(batch))
        scenes = [i for i, _ in filled]
        example = evaluation_views.load_views(
            config.data, [_first_target(views[i]) for i in scenes], image_size=config.image_size, indices=scenes
        )
        images = np.asarray(draw(example, jnp.array([j for _, j in filled])))
        for row, scene in enumerate(scenes[: len(batch)]):
            attributes, target = data.scene(views[scene][0]).attributes, example.target
            poses, intrinsics = target.absolute_pose[row], target.camera.intrinsics[row]
            mode, pure = toy_modes.read_views(attributes, poses, intrinsics, images[row][None, None])
            modes.append(mode.item())
            clean.append(pure.item())
    seen = [mode for mode in modes if mode != toy_modes.UNSEEN]
    counts = np.bincount(seen, minlength=len(toy.HIDDEN_COLOURS))
    return {
        "num_samples": len(seen),
        "total_variation": total_variation(counts, toy.HIDDEN_PROBABILITIES),
        "mode_purity": float(np.mean(clean)),
        "counts": counts.tolist(),
    }


def _first_target(view: tuple[int, Draw]) -> tuple[int, Draw]:
    number, draw = view
    return number, Draw(draw.context, draw.target[:1])


@partial(jax.jit, static_argnames=("model", "sample"))
def _draw(
    params: Params,
    schedule: Schedule,
    key: Array,
    example: Example,
    sample_index: Array,
    *,
    model: RadianceFieldModel,
    sample: SampleConfig,
) -> Array:
    """Images [b, h, w, 3] in [0, 1] of target view 0, without the scene behind them."""
    keys = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(example.index, sample_index)
    prepared = prepare_drawing(params, example, model=model, sample=sample)
    x0 = draw_target(params, prepared, keys, model=model, schedule=schedule, sample=sample)
    return jnp.clip(0.5 * x0 + 0.5, 0, 1)
