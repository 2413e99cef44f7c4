"""`--mode=sample` and `--mode=evaluate` of models whose signals are no scenes: arrays and numbers, no videos.

They write what the modes of scenes write, as far as there is a meaning: `samples/samples.{npz,json}`,
`evaluation/metrics.json`, and a page each.
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
from dfm_jax.evaluation.signal_scores import observation_scores, posterior_scores
from dfm_jax.examples import held_out_examples
from dfm_jax.forward_models.protocol import KnownPosterior
from dfm_jax.pages.signals_page import write_page
from dfm_jax.runs import fingerprints
from dfm_jax.runs.barriers import by_first, failing_together, from_first, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.output_folders import check_ours, replacing
from dfm_jax.runs.processes import check_same
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.signals import SampledSignals, sample_signals
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.visualization.observations import observation_sheet

logger = logging.getLogger(__name__)

SAMPLES = ("samples.json", "samples.npz", "samples.png", "index.html")
EVALUATION = ("metrics.json", "samples.png", "index.html")
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
        numbers, sampled, truth = _scores(config, workdir, config.sample.num_scenes, config.sample.num_samples)

        def write() -> None:
            leaves = jax.tree_util.tree_leaves_with_path(sampled.signal)
            arrays = {"signal" + jax.tree_util.keystr(path): leaf for path, leaf in leaves}
            arrays |= {"x0": sampled.x0, "truth": truth}
            arrays |= {} if sampled.estimate is None else {"estimate": sampled.estimate}
            np.savez(building / "samples.npz", **arrays)
            (building / "samples.json").write_text(json.dumps(numbers, indent=1) + "\n")
            _write_pictures(building, "Samples", numbers, sampled, truth)

        from_first(write)
    _tell(numbers, folder)
    return numbers


def evaluate(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> dict[str, Any]:
    """Numbers of the latest averaged parameters of `workdir`, which are `metrics.json` too, in `out` (by default
    `<workdir>/evaluation`); see `evaluation/signal_scores.py`.

    Raises:
      UserError: as `sample`.
    """
    folder = _folder(workdir, "evaluation", out, EVALUATION)
    with by_first(replacing(folder, EVALUATION, "evaluating")) as building:
        counts = config.evaluate.num_scenes, config.evaluate.num_samples
        numbers, sampled, truth = _scores(config, workdir, *counts)

        def write() -> None:
            (building / "metrics.json").write_text(json.dumps(numbers, indent=1) + "\n")
            _write_pictures(building, "Evaluation", numbers, sampled, truth)

        from_first(write)
    _tell(numbers, folder)
    return numbers


def _folder(workdir: str | os.PathLike, name: str, out: str | os.PathLike | None, ours: Sequence[str]) -> Path:
    folder = results_folder(workdir, name, out)
    with failing_together():
        require_checkpoints(workdir)
        if out and is_first():
            check_ours(folder, ours, ours[0])
    return folder


def _tell(numbers: dict[str, Any], folder: Path) -> None:
    count = f"{numbers['num_samples']} samples behind each of {numbers['num_scenes']} contexts"
    logger.info(f"{count}; look at {folder / 'index.html'}")


def _scores(
    config: Config, workdir: str | os.PathLike, num_scenes: int, num_samples: int
) -> tuple[dict[str, Any], SampledSignals, np.ndarray]:
    """The numbers, what they are of, and the true targets [s, ...]; in all processes."""
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
    if isinstance(sampler.model, KnownPosterior):
        scores |= posterior_scores(sampled.signal, *sampler.model.posterior(example))
    numbers = scores | {
        "num_scenes": num_scenes,
        "num_samples": num_samples,
        "step": step,
        "settings": dataclasses.asdict(config.sample) | {"seed": config.seed},
        "made_from": made_from,
        "seconds": time.monotonic() - start,
    }
    return numbers, sampled, truth


def _write_pictures(
    folder: Path, title: str, numbers: dict[str, Any], sampled: SampledSignals, truth: np.ndarray
) -> None:
    shown = slice(MOST_SHOWN)
    estimate = None if sampled.estimate is None else sampled.estimate[shown]
    Image.fromarray(observation_sheet(sampled.x0[shown], truth[shown], estimate)).save(folder / "samples.png")
    write_page(folder, title, numbers, ["samples.png"])
