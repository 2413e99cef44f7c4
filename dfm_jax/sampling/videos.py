"""Sampled scenes, rendered along camera paths: the videos of `--mode=sample`.

Letters: `s` scene, `n` sample of it, `b` the (scene, sample) pairs that are computed at once, `v t` context and target
views of a scene, `h w` pixels.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from einops import rearrange
from jax import Array
from tqdm import tqdm

from dfm_jax.runs.barriers import is_first
from dfm_jax.runs.processes import share_out
from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import SampledBatch, batches, sample_pairs
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.novel_views import render_cameras
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.structs import Example, RenderedViews

# Videos of smaller images are rendered at a multiple of their size: a radiance field has no pixels of its own.
MIN_VIDEO_SIDE = 48

Pairs = list[tuple[int, int]]  # scene and sample


@dataclasses.dataclass(frozen=True)
class SampledImages:
    """The images of all sampled scenes, in [0, 1], as in `SampledBatch`."""

    views: np.ndarray  # [s, n, v + t, h, w, 3]
    x0: np.ndarray  # [s, n, h, w, 3]
    estimate: np.ndarray  # [s, h, w, 3]


def sample_scenes(
    sampler: DiffusionSampler,
    example: Example,
    paths: Sequence[Trajectory],
    seed: int,
    on_video: Callable[[int, int, RenderedViews], Any],
    extend: Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch] | None = None,
    receive: Callable[[Any], None] = lambda handed: None,
) -> SampledImages | None:
    """Samples the settings' number of scenes behind each context of `example` [s], and renders them; several processes
    share that out.

    Sample j of scene i depends on (seed, i, j) only: not on how many others are sampled, nor how many at once.

    Args:
      paths: a camera path for each scene, all of one length.
      on_video: called for every sample, in the process that drew it, with the numbers of its scene and sample, and its
        frames [frames, h, w].
      extend: what is done with a sampled batch before its scenes are rendered along the paths, given its scene and
        sample numbers [b] (sampling further views, say).
      receive: called in the first process with what each call of `on_video` returned.

    Returns:
      the images; None in all processes but the first.
    """
    size, num_samples = sampler.model.image_size, sampler.settings.num_samples
    count = len(paths) * num_samples
    sampler = sampler.on_devices(count)
    parts = batches(len(paths), num_samples, size, sampler.mesh.shape[devices.DATA])
    own = parts[jax.process_index() :: jax.process_count()]
    total = sum(map(len, own)) * _images_per_pair(sampler, paths)
    example, key = jax.device_put(example), jax.random.key(seed)
    sampled: list[tuple[np.ndarray, ...]] = []

    def collect(_: Pairs, drawn: tuple[tuple[np.ndarray, ...], list[Any]]) -> None:
        images, handed = drawn
        sampled.append(images)
        for each in handed:
            receive(each)

    with tqdm(total=total, unit="image", desc="sampling scenes", disable=not is_first()) as bar:
        share_out(parts, partial(_draw, sampler, example, key, paths, on_video, extend, bar), collect)
    return _joined(sampled, len(paths), count) if is_first() else None


def _images_per_pair(sampler: DiffusionSampler, paths: Sequence[Trajectory]) -> int:
    """That are computed, in the size of the model's images."""
    return sampler.settings.num_steps + 1 + len(paths[0].camera.intrinsics) * _zoom(sampler) ** 2


def _zoom(sampler: DiffusionSampler) -> int:
    return -(-MIN_VIDEO_SIDE // sampler.model.image_size)


def _draw(
    sampler: DiffusionSampler,
    example: Example,
    key: Array,
    paths: Sequence[Trajectory],
    on_video: Callable[[int, int, RenderedViews], Any],
    extend: Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch] | None,
    bar: tqdm,
    pairs: Pairs,
) -> tuple[tuple[np.ndarray, ...], list[Any]]:
    """Of a batch, its views, final images and estimates, and what `on_video` returned for each pair."""
    side = _zoom(sampler) * sampler.model.image_size
    batch = sample_pairs(sampler, example, pairs, key)
    batch = extend(sampler, batch, *np.array(pairs).T) if extend else batch
    images = jax.device_get((batch.views.rgb, batch.x0, batch.estimate))
    bar.update(len(pairs) * (sampler.settings.num_steps + 1))
    camera = jax.tree.map(lambda *c: np.stack(c).astype(np.float32), *(paths[i].camera for i, _ in pairs))
    done = lambda images: bar.update(images * _zoom(sampler) ** 2)
    frames = render_cameras(sampler, batch.scene, camera, side, side, done)
    handed = [
        on_video(i, j, jax.tree.map(lambda x, b=b, i=i: x[b][paths[i].order], frames))
        for b, (i, j) in enumerate(dict.fromkeys(pairs))  # without the repetitions that fill up the last batch
    ]
    return images, handed


def _joined(sampled: Sequence[tuple[np.ndarray, ...]], num_scenes: int, count: int) -> SampledImages:
    """Of the views, final images and estimates of batches [b], whose first `count` pairs are the scenes' samples."""
    views, x0, estimate = (
        rearrange(np.concatenate(part)[:count], "(s n) ... -> s n ...", s=num_scenes)
        for part in zip(*sampled, strict=True)
    )
    return SampledImages(views, x0, estimate[:, 0])
