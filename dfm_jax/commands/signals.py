"""`--mode=sample` and `--mode=evaluate` of models whose signals are no scenes: arrays and numbers, no videos.

They write what the modes of scenes write, as far as there is a meaning: `samples/samples.{npz,json}`,
`evaluation/metrics.json`, and a page each. What is known of a model's signals is measured, and what can be looked at is
shown (`forward_models/protocol.py`).
"""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from dfm_jax.config import Config
from dfm_jax.evaluation.signal_scores import error_scores, observation_scores, odds_scores, posterior_scores
from dfm_jax.examples import held_out_examples
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import (
    DiscretePosterior,
    EstimatedSignals,
    ForwardModel,
    KnownPosterior,
    MeasuredSignals,
    Params,
    PicturedSignals,
)
from dfm_jax.pages.signals_page import MOST_PICTURED, PICTURES, Pictured, write_page
from dfm_jax.runs import fingerprints
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.output_folders import check_ours, replacing
from dfm_jax.runs.processes import check_same
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.signals import SampledSignals, sample_signals
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.visualization.observations import observation_sheet
from dfm_jax.visualization.pictures import check_video_encoder

logger = logging.getLogger(__name__)

SAMPLES = ("samples.json", "samples.npz", "samples.png", PICTURES, "index.html")
EVALUATION = ("metrics.json", "samples.png", PICTURES, "index.html")
MOST_SHOWN = 8  # examples on a page


def sample(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> dict[str, Any]:
    """Samples behind held-out contexts, with the latest averaged parameters of `workdir`, and writes `out`, by default
    `<workdir>/samples`.

    `samples.npz` holds `x0 [s, n, ...]`, `truth [s, ...]`, `estimate [s, ...]` where the model makes one, and the
    arrays of the signal as `signal...`.

    Raises:
      UserError: there is no checkpoint, it is of another model, there are no examples, another process samples there,
        or the folder cannot be written.
    """
    folder = _folder(workdir, "samples", out, SAMPLES)
    with by_first(replacing(folder, SAMPLES, "sampling")) as building:
        _check_videos(config, building)
        found = _scores(config, workdir, config.sample.num_scenes, config.sample.num_samples)

        def write() -> None:
            leaves = jax.tree_util.tree_leaves_with_path(found.sampled.signal)
            arrays = {"signal" + jax.tree_util.keystr(path): leaf for path, leaf in leaves}
            arrays |= {"x0": found.sampled.x0, "truth": found.truth}
            arrays |= {} if found.sampled.estimate is None else {"estimate": found.sampled.estimate}
            np.savez(building / "samples.npz", **arrays)
            (building / "samples.json").write_text(json.dumps(found.numbers, indent=1) + "\n")
            _write_pictures(building, "Samples", found)

        from_first(write)
    _tell(found.numbers, folder)
    return found.numbers


def evaluate(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> dict[str, Any]:
    """Numbers of the latest averaged parameters of `workdir`, which are `metrics.json` too, in `out` (by default
    `<workdir>/evaluation`); see `evaluation/signal_scores.py`.

    Raises:
      UserError: as `sample`.
    """
    folder = _folder(workdir, "evaluation", out, EVALUATION)
    with by_first(replacing(folder, EVALUATION, "evaluating")) as building:
        _check_videos(config, building)
        found = _scores(config, workdir, config.evaluate.num_scenes, config.evaluate.num_samples)

        def write() -> None:
            (building / "metrics.json").write_text(json.dumps(found.numbers, indent=1) + "\n")
            _write_pictures(building, "Evaluation", found)

        from_first(write)
    _tell(found.numbers, folder)
    return found.numbers


def _folder(workdir: str | os.PathLike, name: str, out: str | os.PathLike | None, ours: Sequence[str]) -> Path:
    folder = results_folder(workdir, name, out)
    with failing_together():
        require_checkpoints(workdir)
        if out and is_first():
            check_ours(folder, ours, ours[0])
    return folder


def _check_videos(config: Config, folder: Path) -> None:
    """Before anything is sampled: pictures of signals may be videos."""
    if isinstance(make_model(config), PicturedSignals):
        from_first(lambda: check_video_encoder(folder))


def _tell(numbers: dict[str, Any], folder: Path) -> None:
    count = f"{numbers['num_samples']} samples behind each of {numbers['num_scenes']} contexts"
    logger.info(f"{count}; look at {folder / 'index.html'}")


@dataclasses.dataclass(frozen=True)
class _Found:
    """The numbers, what they are of, and what can be looked at."""

    numbers: dict[str, Any]
    sampled: SampledSignals
    truth: np.ndarray  # [s, ...] the true targets
    pictured: Pictured  # of the first examples


def _scores(config: Config, workdir: str | os.PathLike, num_scenes: int, num_samples: int) -> _Found:
    """What samples behind held-out contexts are worth; in all processes."""
    start = time.monotonic()
    with failing_together():
        trained = restore_trained(config, workdir)
        params, step = trained.params, trained.step
        example, _ = held_out_examples(config, num_scenes)
        made_from = {"step": step, "parameters": fingerprints.of_arrays(params)}
    check_same(made_from, "checkpoint")
    sampler = trained.diffusion()
    sampled = sample_signals(sampler, example, num_samples, jax.random.key(config.seed), together=True)
    truth = np.asarray(sampler.model.target(example)[0])
    scores = observation_scores(sampled.x0, truth)
    if sampled.estimate is not None:
        sampled = dataclasses.replace(sampled, estimate=sampled.estimate.reshape(truth.shape))
        scores["estimate_error"] = float(np.sqrt(np.mean(np.square(sampled.estimate - truth))))
    estimate = _estimates(sampler.model, params, example)
    scores |= signal_scores(sampler.model, params, example, sampled.signal, estimate)
    numbers = scores | {
        "num_scenes": num_scenes,
        "num_samples": num_samples,
        "step": step,
        "settings": dataclasses.asdict(config.sample) | {"seed": config.seed},
        "made_from": made_from,
        "seconds": time.monotonic() - start,
    }
    pictured = picture_signals(sampler.model, params, example, sampled.signal, estimate)
    return _Found(numbers, sampled, truth, pictured)


def signal_scores(
    model: ForwardModel, params: Params, example: Any, signal: Any, estimate: Any | None
) -> dict[str, Any]:
    """What can be measured of sampled signals [s, n, ...] of a model, and of its `estimate` [s, 1, ...], if there is
    one: nothing, where it knows nothing of them."""
    scores: dict[str, Any] = {}
    if isinstance(model, KnownPosterior):
        scores |= posterior_scores(signal, *model.posterior(example))
    if isinstance(model, DiscretePosterior):
        found = np.asarray(model.read_values(params, example, signal))
        scores |= odds_scores(found, np.asarray(model.value_odds(example)), model.attribute, model.values)
        if estimate is not None:
            of_estimate = np.asarray(model.read_values(params, example, estimate))
            scores["mode_purity_of_estimate"] = float(np.mean(of_estimate >= 0))
    if isinstance(model, MeasuredSignals):
        scores |= error_scores(model.signal_errors(params, example, signal))
        if estimate is not None:
            errors = model.signal_errors(params, example, estimate)
            scores |= {f"{name}_of_estimate": float(np.mean(each)) for name, each in errors.items()}
    return scores


def _estimates(model: ForwardModel, params: Params, example: Any) -> Any | None:
    """The signals that a model infers from the contexts alone, [s, 1, ...] as one sample of each, if it does so."""
    if not isinstance(model, EstimatedSignals):
        return None
    return jax.tree.map(lambda x: np.asarray(x)[:, None], model.estimated_signal(params, example))


def picture_signals(model: ForwardModel, params: Params, example: Any, signal: Any, estimate: Any | None) -> Pictured:
    """Pictures of the first signals [s, n, ...], by caption, if the model's can be looked at; and of the `estimate` [s,
    1, ...], if there is one."""
    if not isinstance(model, PicturedSignals):
        return {}
    example = jax.tree.map(lambda x: x[:MOST_SHOWN], example)
    signal = jax.tree.map(lambda x: x[:MOST_SHOWN, :MOST_PICTURED], signal)
    if estimate is None:
        # Not as a pytree: the captions have an order.
        return {name: np.asarray(images) for name, images in model.pictures(params, example, signal).items()}
    both = jax.tree.map(lambda x, y: np.concatenate([x, y[:MOST_SHOWN]], axis=1), signal, estimate)
    drawn = {name: np.asarray(images) for name, images in model.pictures(params, example, both).items()}
    of_signals = [name for name, images in drawn.items() if images.shape[1] > 1]
    of_estimate = {f"{name}: one estimate": drawn[name][:, -1:] for name in of_signals}
    return {name: x[:, :-1] if name in of_signals else x for name, x in drawn.items()} | of_estimate


def _write_pictures(folder: Path, title: str, found: _Found) -> None:
    shown, sampled = slice(MOST_SHOWN), found.sampled
    estimate = None if sampled.estimate is None else sampled.estimate[shown]
    sheet = observation_sheet(sampled.x0[shown], found.truth[shown], estimate)
    Image.fromarray(sheet).save(folder / "samples.png")
    write_page(folder, title, found.numbers, "samples.png", found.pictured)
