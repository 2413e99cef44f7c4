"""The way of a sample from noise: what goes into each denoising step, what comes out, and the scene in between.

Letters: `m` steps, `b` the (scene, sample) pairs, `h w` pixels.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, sample_keys, to_image
from dfm_jax.structs import Example, Scene


@struct.dataclass
class DenoisingSteps:
    """From the noisiest to the last."""

    timestep: Array  # [m]
    x_t: Array  # [m, b, h, w, 3] in diffusion's range
    x0: Array  # [m, b, h, w, 3] the x0-predictions as images in [0, 1]; guided, if sampling is


@jax.jit
def denoising_steps(
    sampler: DiffusionSampler, example: Example, key: Array, scene_index: Array, sample_index: Array
) -> DenoisingSteps:
    """Those of the samples that `batches.sample_batch` draws for the same arguments, on one device."""
    example = jax.tree.map(lambda x: x[scene_index], example)
    keys = sample_keys(key, example.index, sample_index)
    _, seen = sampler.sample(example, keys, lambda timestep, x_t, x0: (timestep, x_t, to_image(x0)))
    return DenoisingSteps(*seen)


@jax.jit
def scene_of_step(sampler: DiffusionSampler, example: Example, x_t: Array, timestep: Array) -> Scene:
    """The scenes [b] that a denoising step of `example` [b] infers from `x_t [b, h, w, 3]` at `timestep []`, of which
    its x0-prediction is the rendering; where steps are guided, those of the conditional branch."""
    context = sampler.cache_context(example).conditional(len(x_t)).context
    signal, _ = sampler.model.infer(sampler.params, context, x_t, jnp.full(len(x_t), timestep))
    return signal
