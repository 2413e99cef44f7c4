"""Samples of many scenes, some at a time: one compiled program for all.

Letters: `s` scene, `n` sample of it, `b` the (scene, sample) pairs that are computed at once, `v t` context and target
views of a scene, `h w` pixels.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Int, Key

from dfm_jax.sampling import devices
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, sample_keys, to_image
from dfm_jax.structs import Example, RenderedViews, Scene

# Pixels that one call samples: bounds the memory of sampling, whose encoder sees whole images.
PIXELS_AT_ONCE = 2**14


@struct.dataclass
class SampledBatch:
    """Some sampled scenes, as they leave the device; images in [0, 1]."""

    scene: Scene  # [b]
    views: RenderedViews  # [b, v + t] at the context and target cameras
    x0: Array  # [b, h, w, 3] what diffusion ended with, of which view v is the rendering
    estimate: Array  # [b, h, w, 3] deterministic estimate of target view 0


def sample_batch(
    sampler: DiffusionSampler,
    example: Example,
    key: Key[Array, ""],
    scene_index: Int[Array, "b"],
    sample_index: Int[Array, "b"],
) -> SampledBatch:
    """Samples pairs [b] of scenes of `example` [s] and numbers of samples, on the sampler's devices, and renders them
    where images are known.

    A sample depends on the scene's `index`, not on its place in the batch.
    """
    compiled = devices.over_scenes(_sample_batch, sampler.mesh)
    return compiled(sampler.replace(mesh=None), example, key, scene_index, sample_index)


@jax.jit
def _sample_batch(
    sampler: DiffusionSampler, example: Example, key: Array, scene_index: Array, sample_index: Array
) -> SampledBatch:
    example = jax.tree.map(lambda x: x[scene_index], example)
    samples = sampler.sample(example, sample_keys(key, example.index, sample_index))
    scene, estimate = sampler.scene(samples)
    cameras = jax.tree.map(lambda *c: jnp.concatenate(c, axis=1), example.context.camera, example.target.camera)
    size = sampler.model.image_size
    views = sampler.render(scene, cameras, size, size)
    # A model that makes no estimate is deterministic: all that it samples is its estimate.
    estimated = views.rgb[:, example.context.valid.shape[1]]
    if estimate is not None:
        estimated = sampler.model.estimated_view(estimate).rgb
    return SampledBatch(scene=scene, views=views, x0=to_image(samples.x0), estimate=estimated)


def sample_in_batches(
    sampler: DiffusionSampler, example: Example, num_samples: int, key: Key[Array, ""]
) -> Iterator[tuple[list[tuple[int, int]], SampledBatch]]:
    """Samples `num_samples` of each scene of `example` [s], on the sampler's devices, as many at a time as they take.

    Yields:
      (scene, sample) pairs, as `batches` lists them, and what was sampled for them.
    """
    num_scenes = len(example.near)
    for pairs in batches(num_scenes, num_samples, sampler.model.image_size, sampler.mesh.shape[devices.DATA]):
        yield pairs, sample_pairs(sampler, example, pairs, key)


def sample_pairs(
    sampler: DiffusionSampler, example: Example, pairs: Sequence[tuple[int, int]], key: Key[Array, ""]
) -> SampledBatch:
    """`sample_batch` of (scene, sample) pairs."""
    return sample_batch(sampler, example, key, *np.array(pairs, np.int32).T)


def pairs_at_once(image_size: int) -> int:
    """Scenes and samples that one device samples in one call."""
    return max(1, PIXELS_AT_ONCE // image_size**2)


def batches(num_scenes: int, num_samples: int, image_size: int, num_devices: int = 1) -> list[list[tuple[int, int]]]:
    """All (scene, sample) pairs in batches of one size, a multiple of the devices; the last is filled up by repeating
    the last pair."""
    pairs = [(i, j) for i in range(num_scenes) for j in range(num_samples)]
    size = num_devices * min(-(-len(pairs) // num_devices), pairs_at_once(image_size))
    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    parts[-1] += parts[-1][-1:] * (size - len(parts[-1]))
    return parts
