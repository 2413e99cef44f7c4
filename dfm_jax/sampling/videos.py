"""Sampled scenes, rendered along camera paths: the videos of `--mode=sample`.

Letters: `s` scene, `n` sample of it, `b` the (scene, sample) pairs that are computed at once, `v t` context and target
views of a scene, `h w` pixels.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import numpy as np
from einops import rearrange
from jax import Array
from tqdm import tqdm

from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import SampledBatch, batches, sample_in_batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.novel_views import render_cameras
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.structs import Example, RenderedViews

# Videos of smaller images are rendered at a multiple of their size: a radiance field has no pixels of its own.
MIN_VIDEO_SIDE = 48


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
    on_video: Callable[[int, int, RenderedViews], None],
    extend: Callable[[DiffusionSampler, SampledBatch, Array, Array], SampledBatch] | None = None,
) -> SampledImages:
    """Samples the settings' number of scenes behind each context of `example` [s], and renders them.

    Sample j of scene i depends on (seed, i, j) only: not on how many others are sampled, nor how many at once.

    Args:
      paths: a camera path for each scene, all of one length.
      on_video: called for every sample with the numbers of its scene and sample, and its frames
        [frames, h, w].
      extend: what is done with a sampled batch before its scenes are rendered along the paths, given its scene and
        sample numbers [b] (sampling further views, say).
    """
    size, num_samples = sampler.model.image_size, sampler.settings.num_samples
    count, zoom = len(paths) * num_samples, -(-MIN_VIDEO_SIDE // size)
    sampler = sampler.on_devices(count)
    num_pairs = sum(map(len, batches(len(paths), num_samples, size, sampler.mesh.shape[devices.DATA])))
    steps = sampler.settings.num_steps + 1
    images_per_pair = steps + len(paths[0].camera.intrinsics) * zoom**2  # of [size, size] pixels
    example, key = jax.device_put(example), jax.random.key(seed)
    sampled = []
    with tqdm(total=num_pairs * images_per_pair, unit="image", desc="sampling scenes") as bar:
        for pairs, batch in sample_in_batches(sampler, example, num_samples, key):
            batch = extend(sampler, batch, *np.array(pairs).T) if extend else batch
            sampled.append(jax.device_get((batch.views.rgb, batch.x0, batch.estimate)))
            bar.update(len(pairs) * steps)
            camera = jax.tree.map(lambda *c: np.stack(c).astype(np.float32), *(paths[i].camera for i, _ in pairs))
            done = lambda images: bar.update(images * zoom**2)
            frames = render_cameras(sampler, batch.scene, camera, zoom * size, zoom * size, done)
            for b, (i, j) in enumerate(dict.fromkeys(pairs)):  # without the repetitions that fill up the last batch
                on_video(i, j, jax.tree.map(lambda x, b=b, i=i: x[b][paths[i].order], frames))

    views, x0, estimate = (
        rearrange(np.concatenate(part)[:count], "(s n) ... -> s n ...", s=len(paths))
        for part in zip(*sampled, strict=True)
    )
    return SampledImages(views, x0, estimate[:, 0])
