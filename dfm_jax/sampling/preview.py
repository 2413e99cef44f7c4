"""The pictures that training logs: samples of a few scenes."""

import jax
import numpy as np
from jax import Array

from dfm_jax.config import SampleConfig
from dfm_jax.diffusion.schedule import Schedule
from dfm_jax.forward_model import RadianceFieldModel
from dfm_jax.sampling import devices
from dfm_jax.sampling.draw import Params, draw_batch
from dfm_jax.structs import Example
from dfm_jax.visualization.pictures import colour_depth, grid


def preview(
    params: Params,
    model: RadianceFieldModel,
    schedule: Schedule,
    sample: SampleConfig,
    example: Example,
    key: Array,
) -> np.ndarray:
    """A sheet for the training log, uint8 [H, W, 3]: a row a scene of `example` [b], in the columns context, a sample
    at the target camera, the deterministic estimate, the truth, the sample's depth, the context seen again."""
    count, num_context = example.context.valid.shape
    rows, zeros = np.arange(count), np.zeros(count, np.int32)
    mesh = devices.make_mesh(count, model.image_size**2)
    draw = devices.over_scenes(draw_batch, mesh, model, num_shared=4, num_split=2, sample=sample)
    num_devices = mesh.shape[devices.DATA]
    filled = lambda indices: np.pad(indices, (0, -count % num_devices), mode="edge")
    batch = draw(devices.replicate(params, mesh), schedule, example, key, filled(rows), filled(zeros))
    views, guess, given = jax.device_get((batch.views, batch.estimate, example))
    cells = []
    for i in range(count):
        depth = colour_depth(views.distance[i, num_context], given.near[i], given.far[i])
        context, truth = given.context.images[i, 0], given.target.images[i, 0]
        cells.append([context, views.rgb[i, num_context], guess[i], truth, depth, views.rgb[i, 0]])
    return grid(cells, ["context", "sample", "estimate", "truth", "depth", "context again"], side=96)
