"""`--mode=evaluate`: numbers of a trained model, on views that an index file names.

Everything is written below `<workdir>/evaluation/` (see `evaluation_results.py`); a run that was interrupted goes on
with the scenes that are missing. docs/evaluation.md says what each number means.
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from dfm_jax.config import Config, MeshConfig
from dfm_jax.data import evaluation_views, pipeline
from dfm_jax.data.dataset import SceneDataset
from dfm_jax.data.view_sampling import Draw
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.distribution_metrics import frechet_distance, kernel_distance
from dfm_jax.errors import UserError
from dfm_jax.evaluation import calibration, protocol, toy_modes
from dfm_jax.evaluation.draw import PIXELS_PER_DRAW, Batch, Params, draw_batch
from dfm_jax.evaluation.evaluation_page import write_page
from dfm_jax.evaluation.evaluation_results import SceneStore, summarise, write_scene_table
from dfm_jax.evaluation.features import Extractor, load_inception, vgg
from dfm_jax.evaluation.scene_scores import SampledViews, measure
from dfm_jax.models import lpips
from dfm_jax.pixelnerf import make_model
from dfm_jax.structs import Example
from dfm_jax.training.checkpoints import restore_params
from dfm_jax.training.compatibility import check_same_config
from dfm_jax.training.monitor import say
from dfm_jax.training.sharding import batch_sharding, make_mesh, replicate


@dataclasses.dataclass(frozen=True)
class _Networks:
    """Networks that measure; None where their weights are missing, which `left_out` explains."""

    lpips: lpips.Distance | None
    extractor: Extractor | None
    left_out: dict[str, str]


def evaluate(config: Config, workdir: str | os.PathLike) -> dict[str, Any]:
    """Evaluates the latest averaged parameters of `workdir`; returns the numbers, which are `metrics.json` too.

    Sample j of example i depends on (config.seed, i, j) only: not on the number of devices, nor on interruptions.

    Raises:
      UserError: there is no checkpoint, it is of another model, the data set or all views are missing, weights that the
        config names are not what they should be, or this is one of several processes.
    """
    if jax.process_count() > 1:
        raise UserError(
            "--mode=evaluate runs in one process, on all of its devices: start it once, with --nodistributed"
        )
    if config.evaluate.sweep_samples and config.data.name != "toy":
        raise UserError(
            "config.evaluate.sweep_samples compares samples with known odds, which only the data set 'toy' has; "
            "leave it out with --config.evaluate.sweep_samples=0"
        )
    workdir, start = Path(workdir), time.monotonic()
    params, step, saved = restore_params(workdir)
    # Sampling may have its own seed and data; what the parameters mean may not change.
    check_same_config({**saved, "seed": config.seed, "data": dataclasses.asdict(config.data)}, config, workdir)
    networks = _load_networks(config)
    pipeline.ensure_toy(config.data, config.image_size)
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    views, skipped = _views(config, data)
    store = SceneStore(workdir / "evaluation", _settings(config, step, data, views, networks))
    protocol.write(store.folder / "protocol.json", views, data, f"evaluated in {workdir.name}")

    done = store.done()
    if done:
        say(f"going on: {len(done)} of {len(views)} scenes are there already")
    _evaluate_scenes(config, params, data, views, [i for i in range(len(views)) if i not in done], store, networks)
    scores = [store.scores(i) for i in range(len(views))]
    write_scene_table(store.folder / "scenes.csv", scores)
    numbers = summarise(scores) | _distribution_numbers(store, len(views), networks.extractor)
    numbers |= {"num_skipped": len(skipped)}
    sweep = calibration.sweep(config, params, data, views, store.folder / "sweep") if _has_sweep(config) else []
    result = {
        **numbers,
        "step": step,
        "skipped": [dataclasses.asdict(skip) for skip in skipped],
        "left_out": networks.left_out,
        "features": networks.extractor.description if networks.extractor else None,
        "sweep": sweep,
        "settings": dataclasses.asdict(config.sample) | dataclasses.asdict(config.evaluate) | {"seed": config.seed},
        "seconds": time.monotonic() - start,
    }
    (store.folder / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")
    page = write_page(store, result, scores)
    say(f"{numbers['num_samples']} samples of {len(views)} scenes, {len(skipped)} skipped; look at {page}")
    return result


def _views(config: Config, data: SceneDataset) -> tuple[list[tuple[int, Draw]], list[protocol.Skipped]]:
    """What is evaluated: as an index file says, or as drawn from the split; and what of it cannot be."""
    if config.evaluate.protocol:
        entries, skipped = protocol.read(config.evaluate.protocol)
        found = protocol.resolve(entries, data)
        for skip in (skipped + found.skipped)[:5]:
            say(f"skipped: {skip.scene}: {skip.reason}")
        return found.views, skipped + found.skipped
    sampling = dataclasses.replace(config.data.view_sampling, num_target=config.evaluate.num_target)
    source = dataclasses.replace(config.data, view_sampling=sampling)
    return evaluation_views.evaluation_views(source, num_scenes=config.evaluate.num_scenes, fewer=True), []


def _load_networks(config: Config) -> _Networks:
    left_out, distance, extractor = {}, None, None
    try:
        distance = lpips.load_default()
    except UserError as error:
        left_out["lpips"] = str(error)
    if config.evaluate.inception_file:
        extractor = load_inception(config.evaluate.inception_file)
    elif distance is not None:
        extractor = vgg(distance)
        left_out["fid, kid"] = "config.evaluate.inception_file names no weights: vgg_fid and vgg_kid instead"
    else:
        left_out["fid, kid"] = "neither config.evaluate.inception_file nor the weights of LPIPS (for vgg_fid) are there"
    for name, reason in left_out.items():
        say(f"left out: {name}: {reason}")
    return _Networks(distance, extractor, left_out)


def _settings(config: Config, step: int, data: SceneDataset, views: Sequence, networks: _Networks) -> dict[str, Any]:
    """All that a scene's stored numbers depend on."""
    return {
        "step": step,
        "seed": config.seed,
        "image_size": config.image_size,
        "model": dataclasses.asdict(config.model),
        "sample": dataclasses.asdict(config.sample),
        "bounds": [config.data.near, config.data.far],
        "num_samples": config.evaluate.num_samples,
        "data": str(data.path.absolute()),
        "views": [[number, draw.context.tolist(), draw.target.tolist()] for number, draw in views],
        "lpips": networks.lpips is not None,
    }


def _evaluate_scenes(
    config: Config,
    params: Params,
    data: SceneDataset,
    views: Sequence[tuple[int, Draw]],
    remaining: Sequence[int],
    store: SceneStore,
    networks: _Networks,
) -> None:
    """Draws, measures and stores the scenes whose places in `views` are `remaining`."""
    mesh = make_mesh(MeshConfig(data=-1, fsdp=1))
    params, num_samples = replicate(params, mesh), config.evaluate.num_samples
    most = {"num_context": max(len(draw.context) for _, draw in views)}
    most["num_target"] = max(len(draw.target) for _, draw in views)
    at_once = max(1, mesh.size * _pairs_per_device(config) // num_samples)
    with tqdm(total=len(remaining), unit="scene", desc="evaluating") as bar:
        for start in range(0, len(remaining), at_once):
            group = list(remaining[start : start + at_once])
            filled = group + group[-1:] * (at_once - len(group))  # groups of one size: one compilation
            example = evaluation_views.load_views(
                config.data, [views[i] for i in filled], image_size=config.image_size, indices=filled, **most
            )
            drawn = _draw(config, params, example, mesh)
            for row, index in enumerate(group):
                one: Example = jax.tree.map(lambda x, row=row: x[row], example)
                _measure_and_store(config, data, views[index][0], index, one, drawn(row), store, networks)
            bar.update(len(group))


def _pairs_per_device(config: Config) -> int:
    return max(1, PIXELS_PER_DRAW // config.image_size**2)


def _draw(config: Config, params: Params, example: Example, mesh: Mesh) -> Any:
    """All samples of the scenes of `example` [s], as a function of the scene."""
    num_samples = config.evaluate.num_samples
    pairs = [(i, j) for i in range(len(example.near)) for j in range(num_samples)]
    draw = partial(
        draw_batch,
        params,
        replicate(cosine_schedule(config.diffusion.num_timesteps), mesh),
        replicate(example, mesh),
        replicate(jax.random.key(config.seed), mesh),
        model=make_model(config.model, config.image_size, config.loss),
        sample=config.sample,
    )
    batches = list(_batches(pairs, mesh.size * _pairs_per_device(config), mesh.size))
    indices = ((np.array(axis, np.int32) for axis in zip(*batch, strict=True)) for batch in batches)
    parts = [_pictures(draw(*(jax.device_put(axis, batch_sharding(mesh)) for axis in axes))) for axes in indices]
    joined = jax.tree.map(lambda *x: np.concatenate(x)[: len(pairs)], *parts)

    def of_scene(row: int) -> SampledViews:
        rgb, distance, opacity, x0, estimate = (x[row * num_samples : (row + 1) * num_samples] for x in joined)
        return SampledViews(rgb, distance, opacity, x0, estimate[0])

    return of_scene


def _batches(pairs: list[tuple[int, int]], most: int, devices: int) -> Iterator[list[tuple[int, int]]]:
    """The pairs in batches of one size, at most `most`, a multiple of `devices`; the last pair fills the last batch."""
    size = -(-min(len(pairs), most) // devices) * devices
    for start in range(0, len(pairs), size):
        batch = pairs[start : start + size]
        yield batch + batch[-1:] * (size - len(batch))


def _pictures(batch: Batch) -> tuple[np.ndarray, ...]:
    views = batch.views
    return jax.device_get((views.rgb, views.distance, views.opacity, batch.x0, batch.estimate))


def _measure_and_store(
    config: Config,
    data: SceneDataset,
    number: int,
    index: int,
    example: Example,
    drawn: SampledViews,
    store: SceneStore,
    networks: _Networks,
) -> None:
    known = {}
    num_context = len(example.context.valid)
    targets = drawn.rgb[:, num_context:]
    if config.data.name == "toy":
        attributes, poses = data.scene(number).attributes, example.target.absolute_pose
        intrinsics = example.target.camera.intrinsics
        known["modes"], known["clean"] = toy_modes.read_views(attributes, poses, intrinsics, targets)
        known["depth"] = toy_modes.true_depth(attributes, poses, intrinsics, config.image_size)
    grid = config.model.pixel_grid
    scores = measure(data.names[number], example, drawn, grid=grid, distance=networks.lpips, **known)
    valid = np.asarray(example.target.valid)
    images = {"samples": targets[:, valid], "truth": example.target.images[valid], "estimate": drawn.estimate}
    store.write(index, scores, images | {"context": example.context.images[example.context.valid]})


def _distribution_numbers(store: SceneStore, count: int, extractor: Extractor | None) -> dict[str, float | int]:
    """FID and KID between all samples and all true views."""
    if extractor is None:
        return {}
    images = [store.images(i) for i in range(count)]
    drawn = extractor(np.concatenate([x["samples"].reshape(-1, *x["truth"].shape[1:]) for x in images]) / 255.0)
    real = extractor(np.concatenate([x["truth"] for x in images]) / 255.0)
    mean, spread = kernel_distance(drawn, real)
    names = {"fid": frechet_distance(drawn, real), "kid": mean, "kid_std": spread}
    counts = {"num_drawn_images": len(drawn), "num_real_images": len(real)}
    return {extractor.prefix + name: value for name, value in names.items()} | counts


def _has_sweep(config: Config) -> bool:
    return config.evaluate.sweep_samples > 0 and config.model.conditioning_field is not None
