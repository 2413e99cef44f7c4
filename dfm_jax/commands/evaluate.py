"""`--mode=evaluate`: numbers of a trained model, on views that an index file names.

Everything is written below `<workdir>/evaluation/` (see `evaluation/scene_store.py`); a run that was interrupted
continues with the scenes that are missing. docs/evaluation.md says what each number means.
"""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dfm_jax.commands import signals
from dfm_jax.commands.evaluated_scenes import evaluate_scenes
from dfm_jax.commands.evaluated_views import ChosenViews, choose_views, compared, open_data
from dfm_jax.commands.foreground import check_masks
from dfm_jax.commands.measured_scenes import load_networks
from dfm_jax.config import Config
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.evaluation import evaluation_index, made_from
from dfm_jax.evaluation.calibration import calibrate
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.distributions import distribution_numbers
from dfm_jax.evaluation.index_layouts import NONE_LISTED
from dfm_jax.evaluation.scene_store import SceneStore, StoredScores, write_scene_table
from dfm_jax.evaluation.summary import calibration_of_scalars, odds_of_attributes, summarise
from dfm_jax.evaluation.video_distance import video_numbers
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import SceneModel, in_colour
from dfm_jax.pages.evaluation_page import write_page
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.output_folders import check_ours, check_room, replacing_files, writing_to
from dfm_jax.runs.processes import check_same
from dfm_jax.runs.workdirs import path_of, results_folder
from dfm_jax.sampling.diffusion_sampler import Params
from dfm_jax.sampling.solver_files import with_solver_file
from dfm_jax.sampling.trained import restore_trained

logger = logging.getLogger(__name__)

# What is written when all scenes are evaluated.
PAGES = ("index.html", "scenes.csv", "protocol.json", "metrics.json")


def evaluate(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> dict[str, Any]:
    """Evaluates the latest averaged parameters of `workdir`; returns the numbers, which are `metrics.json` too, in
    `out` (by default `<workdir>/evaluation`).

    Sample j of example i depends on (config.seed, i, j) only: not on the number of devices or processes, nor on
    interruptions. Several processes share out the scenes, and the first one writes; all return the same.

    Raises:
      UserError: there is no checkpoint, it is of another model, the data set or all views are missing, weights that the
        config names are not what they should be, another run evaluates there, the folder cannot be written, or another
        process of this run failed.
    """
    if not isinstance(make_model(config), SceneModel):
        if config.evaluate.protocol_name or config.evaluate.index or config.evaluate.masks != "none":
            raise UserError("index files, protocols and masks are for models of scenes: signals of this one are none")
        return signals.evaluate(config, workdir, out)
    if config.evaluate.num_scales and not in_colour(make_model(config)):
        raise UserError(
            "evaluate.num_scales chooses by pictures in colour, which this model does not make: set it to 0"
        )
    folder = results_folder(workdir, "evaluation", out)
    with failing_together():
        require_checkpoints(workdir)
        if out and is_first():
            check_ours(folder, PAGES, "metrics.json")
    stays = f"the scenes in {folder} that are done stay, and the same command continues with the others"
    with by_first(writing_to(folder, "evaluating", stays)):
        return _evaluate(config, workdir, folder)


def _evaluate(config: Config, workdir: str | os.PathLike, folder: Path) -> dict[str, Any]:
    start = time.monotonic()
    with failing_together():
        trained, networks = restore_trained(config, workdir), load_networks(config)
    config = with_data_set(with_solver_file(config, workdir))
    with failing_together():
        data = open_data(config)
        chosen = choose_views(config, data)
        check_masks(config, data, chosen.views)
        views = chosen.views
        source = made_from.scores(config, trained.params, trained.step, data, views, networks.lpips, networks.dists)
    check_same(source, "checkpoint, data set or weights")
    store, remaining = _open_store(config, folder, source, len(views))
    evaluate_scenes(config, trained.params, data, views, remaining, store, networks)

    def summarised() -> tuple[dict[str, Any], dict[str, str]]:
        num_true = sum(len(indices.target) for _, indices in views)
        counts = (config.evaluate.num_samples * num_true, num_true)
        truth = made_from.true_views(config, data, views)
        distances, missing = distribution_numbers(store, networks.extractor, len(views), counts, truth, data.path)
        scores = StoredScores(store, len(views))
        if networks.video is not None:
            of_videos = video_numbers(networks.video, map(store.images, range(len(views))), store.folder)
            distances, missing = distances | of_videos[0], missing | of_videos[1]
        known = known_odds(data) if in_colour(make_model(config)) else None
        of_odds = {"scalars": calibration_of_scalars(scores, known.likely if known else {})}
        if known:
            of_odds |= {"attributes": odds_of_attributes(scores, known), "odds": known.odds.ravel().tolist()}
        return summarise(scores, of_odds.get("odds", ())) | distances | of_odds, missing

    numbers, missing = from_first(summarised)
    sweep = _sweep(config, trained.params, data, views, store) if numbers.get("num_colours_read") else []
    result = {
        **numbers,
        "num_skipped": sum(skip.kind != NONE_LISTED for skip in chosen.skipped),
        "step": trained.step,
        "deterministic": config.model.deterministic,
        "skipped": [dataclasses.asdict(skip) for skip in chosen.skipped],
        "extent": chosen.extent and dataclasses.asdict(chosen.extent),
        "left_out": networks.left_out | missing,
        "features": networks.extractor.description if networks.extractor else None,
        "sweep": sweep,
        "settings": dataclasses.asdict(config.sample) | dataclasses.asdict(config.evaluate) | {"seed": config.seed},
        "made_from": made_from.summary(source, networks.extractor, networks.video),
        "seconds": time.monotonic() - start,
    }
    result["protocol"] = compared(config, data, chosen, result)
    return from_first(lambda: _write(result, workdir, folder, data, chosen, store))


def _open_store(
    config: Config, folder: Path, source: Mapping[str, Any], count: int
) -> tuple[SceneStore | None, list[int]]:
    """What the first process keeps the `count` scenes in, for others None; and the numbers of those that are not there
    yet."""
    store = None

    def open_first() -> list[int]:
        nonlocal store
        store = SceneStore(folder, source)
        done = store.done()
        if done:
            logger.info(f"resuming: {len(done)} of {count} scenes are there already")
        remaining = [i for i in range(count) if i not in done]
        check_room(folder, len(remaining) * _least_bytes(config))
        return remaining

    remaining = from_first(open_first)
    return store, remaining


def _write(
    result: Mapping[str, Any],
    workdir: str | os.PathLike,
    folder: Path,
    data: SceneDataset,
    chosen: ChosenViews,
    store: SceneStore,
) -> dict[str, Any]:
    """Writes what is made of all scenes, puts it in its place, and returns the numbers."""
    views = chosen.views
    scores = StoredScores(store, len(views))
    with replacing_files(store.folder) as pages:
        evaluation_index.write(pages / "protocol.json", views, data, f"evaluated in {path_of(workdir).name}")
        write_scene_table(pages / "scenes.csv", scores)
        (pages / "metrics.json").write_text(json.dumps(result, indent=1) + "\n")
        write_page(pages, store, result, scores)
    store.complete()
    page = folder / "index.html"
    holes = f"WITH HOLES, {chosen.extent.headline()}: " if chosen.extent and chosen.extent.has_holes else ""
    logger.info(
        f"{holes}{result['num_samples']} samples of {len(views)} scenes, {result['num_skipped']} skipped; look at "
        f"{page}"
    )
    return dict(result)


def _least_bytes(config: Config) -> int:
    """Of a scene's images, if they can be compressed to half of their size."""
    images = (config.evaluate.num_samples + 1) * config.evaluate.num_target
    return images * config.image_size**2 * 3 // 2


def _sweep(
    config: Config,
    params: Params,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    store: SceneStore | None,
) -> list[dict[str, Any]]:
    """Total variation over sampling steps, if that is asked for and the model takes any."""
    asked = config.evaluate.sweep_samples
    if asked == 0 or config.model.deterministic:
        return []
    records = calibrate.sweep(config, params, data, views, store and store.folder / "sweep")
    if (count := records[0]["num_samples"]) < asked:
        logger.info(
            f"of config.evaluate.sweep_samples={asked} samples {count} show the hidden side: the others do not count"
        )
    return records
