"""Sampled scenes, rendered along camera paths: the videos of `--mode=sample`.

Letters: `s` scene, `n` sample of it, `b` the (scene, sample) pairs that are computed at once, `v t` context and target
views of a scene, `h w` pixels.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
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
from dfm_jax.structs import Example, RenderedViews, Scene

# Videos of smaller images are rendered at a multiple of their size: a radiance field has no pixels of its own.
MIN_VIDEO_SIDE = 48
# Pixels of videos that are rendered and kept at once.
FRAME_PIXELS_AT_ONCE = 2**26
MOST_KEPT = 2**31
# Of the distance from `near` to `far`, within which a ray is stopped at once; and the share of such rays of a picture
# whose camera is inside of something.
AT_ONCE, COVERED = 0.04, 0.25

Pairs = list[tuple[int, int]]  # scene and sample


@dataclasses.dataclass(frozen=True)
class SampledImages:
    """The images of all sampled scenes, in [0, 1], as in `SampledBatch`."""

    views: np.ndarray  # [s, n, v + t, h, w, 3]
    x0: np.ndarray  # [s, n, h, w, 3]
    estimate: np.ndarray  # [s, h, w, 3]
    inside: np.ndarray  # [s, n] share of the frames of each video whose camera is inside of something opaque
    signal: Scene | None = None  # [b] the scenes themselves, unless they are more than MOST_KEPT bytes


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
      paths: a camera path for each scene, all of one length and size.
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

    def collect(_: Pairs, made: tuple[tuple[np.ndarray, ...], list[Any]]) -> None:
        images, handed = made
        sampled.append(images)
        for each in handed:
            receive(each)

    with tqdm(total=total, unit="image", desc="sampling scenes", disable=not is_first()) as bar:
        share_out(parts, partial(_sample_and_render, sampler, example, key, paths, on_video, extend, bar), collect)
    return _joined(sampled, len(paths), count) if is_first() else None


def _images_per_pair(sampler: DiffusionSampler, paths: Sequence[Trajectory]) -> int:
    """That are computed, in the size of the model's images."""
    return sampler.settings.num_steps + 1 + len(paths[0].camera.intrinsics) * _images_per_frame(sampler, paths[0])


def _images_per_frame(sampler: DiffusionSampler, path: Trajectory) -> int:
    height, width = _size(sampler, path)
    return -(-height * width // sampler.model.image_size**2)


def _size(sampler: DiffusionSampler, path: Trajectory) -> tuple[int, int]:
    """Height and width of the frames of a video."""
    side = -(-MIN_VIDEO_SIDE // sampler.model.image_size) * sampler.model.image_size
    return path.size or (side, side)


def share_inside(frames: RenderedViews, near: float, far: float) -> float:
    """The share of frames [n, h, w] whose camera looks at the inside of something opaque: rays that begin at `near` are
    stopped at once in a good part of the picture."""
    stopped = (frames.opacity > 0.5) & (frames.surface_depth() < near + AT_ONCE * (far - near))
    return float((stopped.mean((1, 2)) > COVERED).mean())


def _sample_and_render(
    sampler: DiffusionSampler,
    example: Example,
    key: Array,
    paths: Sequence[Trajectory],
    on_video: Callable[[int, int, RenderedViews], Any],
    extend: Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch] | None,
    bar: tqdm,
    pairs: Pairs,
) -> tuple[tuple[np.ndarray, ...], list[Any]]:
    """Of a batch, its views, final images, estimates and so on, and what `on_video` returned for each pair."""
    batch = sample_pairs(sampler, example, pairs, key)
    batch = extend(sampler, batch, *np.array(pairs).T) if extend else batch
    images = jax.device_get((batch.views.rgb, batch.x0, batch.estimate))
    bar.update(len(pairs) * (sampler.settings.num_steps + 1))
    inside, handed = np.zeros(len(pairs)), {}
    for b, frames in _frames(sampler, batch.scene, [paths[i] for i, _ in pairs], bar):
        i, j = pairs[b]
        inside[b] = share_inside(frames, float(example.near[i]), float(example.far[i]))
        if (i, j) not in handed:  # the last batch is filled up by repetitions
            handed[i, j] = on_video(i, j, frames)
    signal = jax.device_get(batch.scene) if _is_kept(sampler, batch.scene, len(paths)) else None
    return (*images, inside, signal), list(handed.values())


def _is_kept(sampler: DiffusionSampler, scene: Scene, num_scenes: int) -> bool:
    """Whether all scenes, of which some [b] are here, are few enough to be kept."""
    num_bytes = sum(x.nbytes for x in jax.tree.leaves(scene)) / len(scene.near)
    return num_bytes * num_scenes * sampler.settings.num_samples <= MOST_KEPT


def _frames(
    sampler: DiffusionSampler, scene: Scene, paths: Sequence[Trajectory], bar: tqdm
) -> Iterator[tuple[int, RenderedViews]]:
    """The videos [n, h, w] of scenes [b] along a path each, with their numbers; as many at once as memory holds."""
    height, width = _size(sampler, paths[0])
    at_once = max(1, FRAME_PIXELS_AT_ONCE // (height * width * len(paths[0].camera.intrinsics)))
    camera = jax.tree.map(lambda *c: np.stack(c).astype(np.float32), *(path.camera for path in paths))
    scene = scene if at_once >= len(paths) else jax.device_get(scene)
    done = lambda images: bar.update(images * _images_per_frame(sampler, paths[0]))
    for start in range(0, len(paths), at_once):
        chosen = slice(start, start + at_once)
        part = scene if at_once >= len(paths) else jax.tree.map(lambda x, chosen=chosen: x[chosen], scene)
        cameras = jax.tree.map(lambda x, chosen=chosen: x[chosen], camera)
        frames = render_cameras(sampler, part, cameras, height, width, done)
        for b, path in enumerate(paths[chosen]):
            yield start + b, jax.tree.map(lambda x, b=b, path=path: x[b][path.order], frames)


def _joined(sampled: Sequence[tuple[np.ndarray, ...]], num_scenes: int, count: int) -> SampledImages:
    """Of the views, final images and so on of batches [b], whose first `count` pairs are the scenes' samples."""
    *images, signals = zip(*sampled, strict=True)
    views, x0, estimate, inside = (
        rearrange(np.concatenate(part)[:count], "(s n) ... -> s n ...", s=num_scenes) for part in images
    )
    signal = None if signals[0] is None else jax.tree.map(lambda *x: np.concatenate(x)[:count], *signals)
    return SampledImages(views, x0, estimate[:, 0], inside, signal)
