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
from dfm_jax.data.loading import evaluation_views, pipeline, toy_scenes
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.evaluation.calibration import toy_modes
from dfm_jax.evaluation.image_metrics import psnr, total_variation
from dfm_jax.sampling.batches import pairs_at_once
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples, sample_keys, to_image
from dfm_jax.structs import Example


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The contexts that are sampled behind, and what is known of them."""

    example: Example  # [s]
    data: SceneDataset
    numbers: tuple[int, ...]  # [s] of the scenes in the data set
    num_samples: int  # of each

    @classmethod
    def of(cls, config: Config) -> "Scenes":
        """As `--mode=evaluate` chooses them."""
        sampling = dataclasses.replace(config.data.view_sampling, num_target=config.evaluate.num_target)
        source = dataclasses.replace(config.data, view_sampling=sampling)
        views = evaluation_views.evaluation_views(source, num_scenes=config.evaluate.num_scenes, fewer=True)
        data = pipeline.open_dataset(config.data.dir, config.data.name, config.data.eval_split)
        example = evaluation_views.load_views(config.data, views, image_size=config.image_size)
        return cls(jax.device_put(example), data, tuple(number for number, _ in views), config.evaluate.num_samples)

    @property
    def pairs(self) -> np.ndarray:
        """[s * n, 2]: scene and sample."""
        return np.array([(i, j) for i in range(len(self.numbers)) for j in range(self.num_samples)], np.int32)

    def batches(self, image_size: int) -> list[tuple[np.ndarray, int]]:
        """The pairs in batches of one size, filled up with the last pair, and how many of each are counted."""
        pairs = self.pairs
        size = min(len(pairs), pairs_at_once(image_size))
        parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        return [(np.concatenate([part, part[-1:].repeat(size - len(part), 0)]), len(part)) for part in parts]


def sample_all(
    sampler: DiffusionSampler, finishing: DiffusionSampler, scenes: Scenes, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """What diffusion ended with [s * n, h, w, 3], and what the scenes look like at the context and target cameras
    [s * n, v + t, h, w, 3], in the order of `scenes.pairs`.

    Args:
      finishing: infers the scenes and renders them, whatever samples.
    """
    found = []
    for batch, count in scenes.batches(sampler.model.image_size):
        samples, example = _sample(sampler, scenes.example, jax.random.key(seed), *batch.T)
        found.append([np.asarray(x)[:count] for x in _finish(finishing, samples, example)])
    x0, views = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return x0, views


def seconds_in_turn(samplers: Mapping[str, DiffusionSampler], scenes: Scenes, rounds: int) -> dict[str, list[float]]:
    """Seconds of a sample without its scene in each of some rounds, in which all take turns; compiling is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    for number in range(rounds + 1):
        for name, sampler in samplers.items():
            batch, _ = scenes.batches(sampler.model.image_size)[0]
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


def quality(scenes: Scenes, views: np.ndarray) -> dict[str, float]:
    """Of scenes [s * n] at their context and target cameras: `context_psnr`; where the odds of the hidden colour are
    known (toy), `total_variation` to them, `purity`, the share of samples of one colour, and `novel_view_agreement`,
    the share of novel views that show the colour of target view 0."""
    example, n = jax.device_get(scenes.example), scenes.num_samples
    by_scene = views.reshape(-1, n, *views.shape[1:])
    v = example.context.images.shape[1]
    known = example.context.valid[:, None].repeat(n, 1)
    numbers = {"context_psnr": float(psnr(by_scene[:, :, :v], example.context.images[:, None])[known].mean())}
    if not toy_modes.has_known_odds(scenes.data):
        return numbers
    modes, clean = [], []
    for i, number in enumerate(scenes.numbers):
        attributes, poses = scenes.data.scene(number).attributes, example.target.absolute_pose[i]
        read = partial(toy_modes.read_views, attributes, poses, example.target.camera.intrinsics[i])
        shown, pure = read(by_scene[i, :, v:])
        seen = shown[:, 0] != toy_modes.UNSEEN
        modes.append(shown[seen])
        clean.append(pure[seen, 0])
    modes = np.concatenate(modes)
    odds = toy_scenes.HIDDEN_PROBABILITIES
    counts = np.bincount(modes[:, 0], minlength=len(odds))
    told = modes[:, 1:] != toy_modes.UNSEEN
    return numbers | {
        "total_variation": total_variation(counts, np.array(odds)),
        "purity": float(np.concatenate(clean).mean()),
        "novel_view_agreement": float((modes[:, 1:] == modes[:, :1])[told].mean()),
    }
