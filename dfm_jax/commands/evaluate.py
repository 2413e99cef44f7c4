"""`--mode=evaluate`: numbers of a trained model, on views that an index file names.

Everything is written below `<workdir>/evaluation/` (see `evaluation/results.py`); a run that was interrupted goes on
with the scenes that are missing. docs/evaluation.md says what each number means.
"""

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from dfm_jax.commands import signals
from dfm_jax.config import Config
from dfm_jax.data.loading import evaluation_views, pipeline
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import evaluation_index, made_from
from dfm_jax.evaluation.calibration import calibrate, toy_modes
from dfm_jax.evaluation.distribution_metrics import frechet_distance, kernel_distance
from dfm_jax.evaluation.features import Extractor, load_inception, vgg
from dfm_jax.evaluation.results import SceneStore, summarise, write_scene_table
from dfm_jax.evaluation.scores import SceneSamples, measure
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.models import lpips
from dfm_jax.pages.evaluation_page import write_page
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.log import say
from dfm_jax.runs.output_folders import check_ours, check_room, replacing_files, writing_to
from dfm_jax.runs.workdirs import path_of, results_folder
from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import SampledBatch, pairs_at_once, sample_in_batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Example

# What is written when all scenes are evaluated.
PAGES = ("index.html", "scenes.csv", "protocol.json", "metrics.json")


@dataclasses.dataclass(frozen=True)
class _Networks:
    """Networks that measure; None where their weights are missing, which `left_out` explains."""

    lpips: lpips.Distance | None
    extractor: Extractor | None
    left_out: dict[str, str]


def evaluate(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> dict[str, Any]:
    """Evaluates the latest averaged parameters of `workdir`; returns the numbers, which are `metrics.json` too, in
    `out` (by default `<workdir>/evaluation`).

    Sample j of example i depends on (config.seed, i, j) only: not on the number of devices, nor on interruptions.

    Raises:
      UserError: there is no checkpoint, it is of another model, the data set or all views are missing, weights that the
        config names are not what they should be, this is one of several processes, another process evaluates there, or
        the folder cannot be written.
    """
    if not isinstance(make_model(config), SceneModel):
        return signals.evaluate(config, workdir, out)
    if jax.process_count() > 1:
        raise UserError("--mode=evaluate runs in one process, on all its devices: start it once, with --nodistributed")
    require_checkpoints(workdir)
    folder = results_folder(workdir, "evaluation", out)
    if out:
        check_ours(folder, PAGES, "metrics.json")
    stays = f"the scenes in {folder} that are done stay, and the same command goes on with the others"
    with writing_to(folder, "evaluating", stays):
        return _evaluate(config, workdir, folder)


def _evaluate(config: Config, workdir: str | os.PathLike, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    trained = restore_trained(config, workdir)
    params, step = trained.params, trained.step
    networks = _load_networks(config)
    config = with_data_set(config)
    data = _open_data(config)
    views, skipped = _views(config, data)
    source = made_from.scores(config, params, step, data, views, networks.lpips)
    store = SceneStore(folder, source)
    done = store.done()
    if done:
        say(f"going on: {len(done)} of {len(views)} scenes are there already")
    remaining = [i for i in range(len(views)) if i not in done]
    check_room(folder, len(remaining) * _least_bytes(config))
    _evaluate_scenes(config, params, data, views, remaining, store, networks)
    scores = [store.scores(i) for i in range(len(views))]
    distances, missing = _distribution_numbers(store, len(views), networks.extractor)
    numbers = summarise(scores) | distances | {"num_skipped": len(skipped)}
    sweep = _sweep(config, params, data, views, store) if numbers.get("num_colours_read") else []
    result = {
        **numbers,
        "step": step,
        "deterministic": config.model.deterministic,
        "skipped": [dataclasses.asdict(skip) for skip in skipped],
        "left_out": networks.left_out | missing,
        "features": networks.extractor.description if networks.extractor else None,
        "sweep": sweep,
        "settings": dataclasses.asdict(config.sample) | dataclasses.asdict(config.evaluate) | {"seed": config.seed},
        "made_from": made_from.summary(source, networks.extractor),
        "seconds": time.monotonic() - start,
    }
    with replacing_files(store.folder) as pages:
        evaluation_index.write(pages / "protocol.json", views, data, f"evaluated in {path_of(workdir).name}")
        write_scene_table(pages / "scenes.csv", scores)
        (pages / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")
        write_page(pages, store, result, scores)
    store.complete()
    page = folder / "index.html"
    say(f"{numbers['num_samples']} samples of {len(views)} scenes, {len(skipped)} skipped; look at {page}")
    return result


def _least_bytes(config: Config) -> int:
    """Of a scene's images, if they can be compressed to half of their size."""
    images = (config.evaluate.num_samples + 1) * config.evaluate.num_target
    return images * config.image_size**2 * 3 // 2


def _open_data(config: Config) -> SceneDataset:
    data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
    if config.evaluate.sweep_samples and len(data) and not toy_modes.has_known_odds(data):
        raise UserError(
            "config.evaluate.sweep_samples compares samples with known odds, which only toy scenes have; leave it out "
            "with --config.evaluate.sweep_samples=0"
        )
    return data


def _views(config: Config, data: SceneDataset) -> tuple[list[tuple[int, ViewIndices]], list[evaluation_index.Skipped]]:
    """What is evaluated: as an index file says, or as drawn from the split; and what of it cannot be."""
    if config.evaluate.protocol:
        entries, skipped = evaluation_index.read(config.evaluate.protocol)
        if changes := evaluation_index.changed_data(config.evaluate.protocol, data):
            say(
                f"the index file {config.evaluate.protocol} was stored for other data than split '{data.split}' of "
                f"{data.path} ({changes}): scenes of the same names may be others"
            )
        found = evaluation_index.resolve(entries, data)
        for skip in (skipped + found.skipped)[:5]:
            say(f"skipped: {skip.scene}: {skip.reason}")
        return found.views, skipped + found.skipped
    sampling = dataclasses.replace(config.data.view_sampling, num_target=config.evaluate.num_target)
    source = dataclasses.replace(config.data, view_sampling=sampling)
    views = evaluation_views.evaluation_views(source, num_scenes=config.evaluate.num_scenes, fewer=True)
    if len(views) < config.evaluate.num_scenes:
        say(
            f"evaluating {len(views)} scenes in the place of config.evaluate.num_scenes={config.evaluate.num_scenes}: "
            f"split '{data.split}' of {data.path} has no more that can be used"
        )
    return views, []


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


def _evaluate_scenes(
    config: Config,
    params: Params,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    remaining: Sequence[int],
    store: SceneStore,
    networks: _Networks,
) -> None:
    """Draws, measures and stores the scenes whose places in `views` are `remaining`."""
    if not remaining:
        return
    sampling = _Sampling.start(config, params, len(remaining))
    most = {"num_context": max(len(draw.context) for _, draw in views)}
    most["num_target"] = max(len(draw.target) for _, draw in views)
    with tqdm(total=len(remaining), unit="scene", desc="evaluating") as bar:
        for start in range(0, len(remaining), sampling.at_once):
            group = list(remaining[start : start + sampling.at_once])
            filled = group + group[-1:] * (sampling.at_once - len(group))  # groups of one size: one compilation
            example = evaluation_views.load_views(
                config.data, [views[i] for i in filled], image_size=config.image_size, indices=filled, **most
            )
            drawn = sampling(example)
            for row, index in enumerate(group):
                one: Example = jax.tree.map(lambda x, row=row: x[row], example)
                _measure_and_store(config, data, views[index][0], index, one, drawn[row], store, networks)
            bar.update(len(group))


@dataclasses.dataclass(frozen=True)
class _Sampling:
    """Makes the samples of some scenes at a time, on all devices."""

    sampler: DiffusionSampler  # on all devices that the scenes can use
    key: Array
    at_once: int  # scenes
    num_samples: int  # of each

    @classmethod
    def start(cls, config: Config, params: Params, num_scenes: int) -> "_Sampling":
        """For `num_scenes` scenes in all."""
        num_samples = config.evaluate.num_samples
        sampler = DiffusionSampler.from_config(config, params).on_devices(num_scenes * num_samples)
        num_devices = sampler.mesh.shape[devices.DATA]
        at_once = min(num_scenes, max(1, num_devices * pairs_at_once(config.image_size) // num_samples))
        return cls(sampler, jax.random.key(config.seed), at_once, num_samples)

    def __call__(self, example: Example) -> list[SceneSamples]:
        """All samples of each scene of `example` [at_once]."""
        parts = [_images(batch) for _, batch in sample_in_batches(self.sampler, example, self.num_samples, self.key)]
        count = self.at_once * self.num_samples
        joined = jax.tree.map(lambda *x: np.concatenate(x)[:count], *parts)
        of_scene = lambda start: jax.tree.map(lambda x: x[start : start + self.num_samples], joined)
        scenes = map(of_scene, range(0, count, self.num_samples))
        return [scene.replace(estimate=scene.estimate[0]) for scene in scenes]


def _images(batch: SampledBatch) -> SceneSamples:
    """Of several scenes; an estimate for each sample."""
    return jax.device_get(SceneSamples(batch.views, batch.x0, batch.estimate))


def _measure_and_store(
    config: Config,
    data: SceneDataset,
    number: int,
    index: int,
    example: Example,
    samples: SceneSamples,
    store: SceneStore,
    networks: _Networks,
) -> None:
    known = {}
    num_context = len(example.context.valid)
    targets = samples.views.rgb[:, num_context:]
    if toy_modes.has_known_odds(data):
        attributes, poses = data.scene(number).attributes, example.target.absolute_pose
        intrinsics = example.target.camera.intrinsics
        known["modes"], known["clean"] = toy_modes.read_views(attributes, poses, intrinsics, targets)
        known["depth"] = toy_modes.true_depth(attributes, poses, intrinsics, config.image_size)
    grid = config.model.pixel_grid
    scores = measure(data.names[number], example, samples, grid=grid, lpips_fn=networks.lpips, **known)
    valid = np.asarray(example.target.valid)
    images = {"samples": targets[:, valid], "truth": example.target.images[valid], "estimate": samples.estimate}
    store.write(index, scores, images | {"context": example.context.images[example.context.valid]})


def _distribution_numbers(
    store: SceneStore, count: int, extractor: Extractor | None
) -> tuple[dict[str, float | int], dict[str, str]]:
    """FID and KID between all samples and all true views; and what is left out, and why."""
    if extractor is None:
        return {}, {}
    images = [store.images(i) for i in range(count)]
    truth = np.concatenate([x["truth"] for x in images])
    if len(truth) < 2:
        return {}, {"fid, kid": "there is one true view, and they compare two sets of images"}
    drawn = extractor(np.concatenate([x["samples"].reshape(-1, *truth.shape[1:]) for x in images]))
    real = extractor(truth)
    mean, spread = kernel_distance(drawn, real)
    names = {"fid": frechet_distance(drawn, real), "kid": mean, "kid_std": spread}
    counts = {"num_drawn_images": len(drawn), "num_real_images": len(real)}
    return {extractor.prefix + name: value for name, value in names.items()} | counts, {}


def _sweep(
    config: Config, params: Params, data: SceneDataset, views: Sequence[tuple[int, ViewIndices]], store: SceneStore
) -> list[dict[str, Any]]:
    """Total variation over sampling steps, if that is asked for and the model takes any."""
    asked = config.evaluate.sweep_samples
    if asked == 0 or config.model.deterministic:
        return []
    records = calibrate.sweep(config, params, data, views, store.folder / "sweep")
    if (count := records[0]["num_samples"]) < asked:
        say(f"of config.evaluate.sweep_samples={asked} samples {count} show the hidden side: the others do not count")
    return records
