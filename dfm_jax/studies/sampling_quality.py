"""What ways to sample are compared by: the quality of their scenes, as `--mode=evaluate` has it, and their time.

Letters: `s` contexts, `n` samples behind each, `v t` context and target views, `h w` pixels.
"""

import dataclasses
import time
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dfm_jax.config import Config
from dfm_jax.evaluation.calibration.honest_draws import expected_total_variation
from dfm_jax.evaluation.calibration.known_odds import known_odds
from dfm_jax.evaluation.calibration.reading import UNSEEN
from dfm_jax.evaluation.image_metrics import psnr, total_variation
from dfm_jax.sampling.batches import pairs_at_once
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples, sample_keys, to_image
from dfm_jax.structs import Example
from dfm_jax.studies.held_out_scenes import HeldOutScenes


@dataclasses.dataclass(frozen=True)
class SampledScenes(HeldOutScenes):
    """Scenes whose contexts are sampled behind."""

    num_samples: int  # of each

    @classmethod
    def to_evaluate(cls, config: Config) -> "SampledScenes":
        """As `--mode=evaluate` chooses them."""
        scenes = HeldOutScenes.of(config, config.evaluate.num_scenes, config.evaluate.num_target, fewer=True)
        return cls(scenes.data, scenes.views, jax.device_put(scenes.example), config.evaluate.num_samples)

    @property
    def pairs(self) -> np.ndarray:
        """[s * n, 2]: scene and sample."""
        return np.array([(i, j) for i in range(len(self.views)) for j in range(self.num_samples)], np.int32)

    def batches(self, size: int) -> list[tuple[np.ndarray, int]]:
        """The pairs in batches of one size, filled up with the last pair, and how many of each are counted.

        Args:
          size: 0: what is sampled at once elsewhere.
        """
        pairs = self.pairs
        size = min(len(pairs), size or pairs_at_once(self.example.target.images.shape[2]))
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        return [(np.concatenate([part, part[-1:].repeat(size - len(part), 0)]), len(part)) for part in parts]


def sample_all(
    sampler: DiffusionSampler, finishing: DiffusionSampler, scenes: SampledScenes, seed: int, at_once: int = 0
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """What diffusion ended with [s * n, h, w, 3], and what the scenes look like at the context and target cameras
    [s * n, v + t, h, w, 3], in the order of `scenes.pairs`; and the seconds of a sample without its scene, of each
    batch (of the first, with those of compiling).

    Args:
      finishing: infers the scenes and renders them, whatever samples.
      at_once: as `SampledScenes.batches`.
    """
    found, seconds = [], []
    for batch, count in scenes.batches(at_once):
        start = time.perf_counter()
        samples, example = jax.block_until_ready(_sample(sampler, scenes.example, jax.random.key(seed), *batch.T))
        seconds.append((time.perf_counter() - start) / len(batch))
        found.append([np.asarray(x)[:count] for x in _finish(finishing, samples, example)])
    x0, views = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return x0, views, seconds


def seconds_in_turn(
    samplers: Mapping[str, DiffusionSampler], scenes: SampledScenes, rounds: int, at_once: int = 0
) -> dict[str, list[float]]:
    """The same seconds in each of some rounds, in which all take turns; compiling is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    batch, _ = scenes.batches(at_once)[0]
    for number in range(rounds + 1):
        for name, sampler in samplers.items():
            start = time.perf_counter()
            jax.block_until_ready(_sample(sampler, scenes.example, jax.random.key(number), *batch.T))
            seconds[name].append((time.perf_counter() - start) / len(batch))
    return {name: each[1:] for name, each in seconds.items()}


@jax.jit
def _sample(
    sampler: DiffusionSampler, example: Example, key: Array, scene: Array, number: Array
) -> tuple[Samples, Example]:
    """Samples [b], and their examples."""
    example = jax.tree.map(lambda x: x[scene], example)
    return sampler.sample(example, sample_keys(key, example.index, number)), example


@jax.jit
def _finish(sampler: DiffusionSampler, samples: Samples, example: Example) -> tuple[Array, Array]:
    scene, _ = sampler.scene(samples)
    cameras = jax.tree.map(lambda *c: jnp.concatenate(c, axis=1), example.context.camera, example.target.camera)
    size = sampler.model.image_size
    return to_image(samples.x0), sampler.render(scene, cameras, size, size).rgb


def quality(scenes: SampledScenes, x0: np.ndarray, views: np.ndarray) -> dict[str, float]:
    """Of what `sample_all` gave: `context_psnr`; where the odds of what is hidden are known, `total_variation` to them,
    `purity`, the share of samples that show one case alone, in their scenes and (`purity_of_x0`) in what diffusion
    ended with, and `novel_view_agreement`, the share of novel views that show the case of target view 0."""
    example, n = jax.device_get(scenes.example), scenes.num_samples
    by_scene = lambda x: x.reshape(-1, n, *x.shape[1:])
    v = example.context.images.shape[1]
    contexts, targets, images = by_scene(views[:, :v]), by_scene(views[:, v:]), by_scene(x0)
    valid = example.context.valid[:, None].repeat(n, 1)
    numbers = {"context_psnr": float(psnr(contexts, example.context.images[:, None])[valid].mean())}
    if (kind := known_odds(scenes.data)) is None:
        return numbers
    modes, clean, clean_x0 = [], [], []
    for i, (number, _) in enumerate(scenes.views):
        attributes, poses = scenes.data.scene(number).attributes, example.target.absolute_pose[i]
        read = partial(kind.read, attributes, poses, example.target.camera.intrinsics[i])
        shown = read(targets[i])
        seen = shown.modes[:, 0] != UNSEEN
        modes.append(shown.modes[seen])
        clean.append(shown.clean[seen, 0])
        clean_x0.append(read(np.concatenate([images[i][:, None], targets[i][:, 1:]], axis=1)).clean[seen, 0])
    modes = np.concatenate(modes)
    counts = np.bincount(modes[:, 0], minlength=kind.odds.size)
    told = modes[:, 1:] != UNSEEN
    return numbers | {
        "total_variation": total_variation(counts, kind.odds.ravel()),
        "purity": float(np.concatenate(clean).mean()),
        "purity_of_x0": float(np.concatenate(clean_x0).mean()),
        "novel_view_agreement": float((modes[:, 1:] == modes[:, :1])[told].mean()),
    }


def of_honest_draws(scenes: SampledScenes) -> dict[str, float]:
    """The `total_variation_of_honest_draws` that as many samples have on average; nothing where odds are not known."""
    if (kind := known_odds(scenes.data)) is None:
        return {}
    return {"total_variation_of_honest_draws": expected_total_variation(len(scenes.pairs), kind.odds.ravel().tolist())}
