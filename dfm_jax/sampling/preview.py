"""The pictures that training logs: samples of a few scenes."""

from typing import Any

import jax
import numpy as np
from jax import Array

from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.sampling import devices
from dfm_jax.sampling.batches import sample_batch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.signals import sample_signals
from dfm_jax.structs import Example
from dfm_jax.visualization.observations import observation_sheet
from dfm_jax.visualization.pictures import colour_depth, grid

NUM_POINTS = 256  # samples of each context, where they are shown as points


def preview(sampler: DiffusionSampler, example: Any, key: Array) -> np.ndarray:
    """A sheet for the training log, uint8 [H, W, 3], of what `example` [b] is the context of."""
    return (preview_scenes if isinstance(sampler.model, SceneModel) else preview_signals)(sampler, example, key)


def preview_signals(sampler: DiffusionSampler, example: Any, key: Array) -> np.ndarray:
    """A row an example: samples of the target beside the truth, and the deterministic estimate if there is one."""
    sampled = sample_signals(sampler, example, min(NUM_POINTS, sampler.settings.num_samples), key)
    truth = np.asarray(sampler.model.target(example)[0])
    estimate = None if sampled.estimate is None else sampled.estimate.reshape(truth.shape)
    return observation_sheet(sampled.x0, truth, estimate)


def preview_scenes(sampler: DiffusionSampler, example: Example, key: Array) -> np.ndarray:
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
