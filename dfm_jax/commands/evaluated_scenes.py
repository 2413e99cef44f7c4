"""The scenes of an evaluation: sampled a group at a time, and measured."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from dfm_jax.commands.foreground import foreground_of
from dfm_jax.commands.measured_scenes import Measured, Networks, measure_scene
from dfm_jax.config import Config
from dfm_jax.data.loading import evaluation_views
from dfm_jax.data.loading.dataset import SceneDataset
from dfm_jax.data.loading.view_sampling import ViewIndices
from dfm_jax.evaluation.scene_store import SceneStore
from dfm_jax.evaluation.scores import Foreground, SceneSamples, view_psnr
from dfm_jax.runs.barriers import is_first
from dfm_jax.runs.processes import share_out
from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import SampledBatch, pairs_at_once, sample_in_batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params
from dfm_jax.structs import Example


def evaluate_scenes(
    config: Config,
    params: Params,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    remaining: Sequence[int],
    store: SceneStore | None,
    networks: Networks,
) -> None:
    """Samples, measures and stores the scenes whose places in `views` are `remaining`. Several processes share out the
    groups that one would sample, so that the numbers are the same."""
    if not remaining:
        return
    sampling = _Sampling.start(config, params, len(remaining))
    most = {"num_context": max(len(indices.context) for _, indices in views)}
    most["num_target"] = max(len(indices.target) for _, indices in views)
    sampled = functools.partial(_sampled, config, data, views, most, sampling)
    groups = [remaining[start : start + sampling.at_once] for start in range(0, len(remaining), sampling.at_once)]

    def work(group: Sequence[int]) -> list[Measured]:
        # One try after the other: pictures of all would take the memory of all. Only the best is measured in full.
        best = functools.reduce(_better, (sampled(group, scale) for scale in _scales(config)))
        return [measure_scene(config, data, views[i], *one, networks) for i, one in zip(group, best, strict=True)]

    def receive(group: Sequence[int], measured: list[Measured]) -> None:
        for index, (scores, images) in zip(group, measured, strict=True):
            store.write(index, scores, images)
        bar.update(len(group))

    with tqdm(total=len(remaining), unit="scene", desc="evaluating", disable=not is_first()) as bar:
        share_out(groups, work, receive)


def _scales(config: Config) -> list[float | None]:
    """Of the cameras; None: the data set's own."""
    count = config.evaluate.num_scales
    return [2 * (i + 1) / count for i in range(count)] or [None]


class _Sampled(NamedTuple):
    """A scene that was sampled, with its cameras at one of the scales."""

    example: Example  # without batch axis
    samples: SceneSamples
    scale: float | None
    foreground: Foreground | None  # what counts of its views; None: everything


def _better(first: list[_Sampled], second: list[_Sampled]) -> list[_Sampled]:
    """Of each scene, the one of higher PSNR."""
    return [max(pair, key=_mean_psnr) for pair in zip(first, second, strict=True)]


def _mean_psnr(one: _Sampled) -> float:
    values = np.array(view_psnr(one.example, one.samples, one.foreground), np.float64)  # NaN where nothing counts
    return np.mean(values[np.isfinite(values)]) if np.isfinite(values).any() else -np.inf


def _sampled(
    config: Config,
    data: SceneDataset,
    views: Sequence[tuple[int, ViewIndices]],
    most: Mapping[str, int],
    sampling: "_Sampling",
    group: Sequence[int],
    scale: float | None,
) -> list[_Sampled]:
    """Some scenes, sampled together.

    Args:
      most: context and target views of any of `views`.
      group: places in `views`.
      scale: of the cameras; None: the data set's own.
    """
    filled = [*group, *group[-1:] * (sampling.at_once - len(group))]  # groups of one size: one compilation
    size = {"image_size": config.image_size, "scale": scale or 1.0, "data": data}
    example = evaluation_views.load_views(config.data, [views[i] for i in filled], indices=filled, **size, **most)
    rows = enumerate(sampling(example)[: len(group)])
    sampled = []
    for row, samples in rows:
        one: Example = jax.tree.map(lambda x, row=row: x[row], example)
        sampled.append(_Sampled(one, samples, scale, foreground_of(config, data, views[group[row]])))
    return sampled


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
