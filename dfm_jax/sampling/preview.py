"""The pictures that training logs: samples of a few scenes."""

import jax
import numpy as np
from jax import Array

from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import sample_batch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.structs import Example
from dfm_jax.visualization.pictures import colour_depth, grid


def preview(sampler: DiffusionSampler, example: Example, key: Array) -> np.ndarray:
    """A sheet for the training log, uint8 [H, W, 3]: a row a scene of `example` [b], in the columns context, a sample
    at the target camera, the deterministic estimate, the truth, the sample's depth, the context rendered again."""
    count, num_context = example.context.valid.shape
    sampler = sampler.on_devices(count)
    num_devices = sampler.mesh.shape[devices.DATA]
    filled = lambda indices: np.pad(indices, (0, -count % num_devices), mode="edge")
    batch = sample_batch(sampler, example, key, filled(np.arange(count)), filled(np.zeros(count, np.int32)))
    views, estimate, given = jax.device_get((batch.views, batch.estimate, example))
    cells = []
    for i in range(count):
        sampled = jax.tree.map(lambda x, i=i: x[i, num_context], views)
        depth = colour_depth(sampled.depth_before(given.far[i]), given.near[i], given.far[i])
        context, truth = given.context.images[i, 0], given.target.images[i, 0]
        cells.append([context, sampled.rgb, estimate[i], truth, depth, views.rgb[i, 0]])
    return grid(cells, ["context", "sample", "estimate", "truth", "depth", "context again"], side=96)
