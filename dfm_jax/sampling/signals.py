"""Samples of any forward model, as arrays: signals, and the observations that diffusion ended with.

Letters: `s` example, `n` sample of it, `b` the (example, sample) pairs that are computed at once.
"""

import dataclasses
from typing import Any

import jax
import numpy as np
from einops import rearrange
from flax import struct
from jax import Array

from dfm_jax.runs.barriers import from_first
from dfm_jax.runs.processes import share_out
from dfm_jax.sampling import devices
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, sample_keys

# Numbers of an observation that one call samples: bounds the memory of sampling.
NUMBERS_AT_ONCE = 2**15


@dataclasses.dataclass(frozen=True)
class SampledSignals:
    """All samples, on the host; observations in diffusion's range."""

    signal: Any  # leaves [s, n, ...]
    x0: np.ndarray  # [s, n, ...]
    estimate: np.ndarray | None  # [s, ...] deterministic estimate, in its own layout, of models that make one


@struct.dataclass
class _Batch:
    signal: Any  # leaves [b, ...]
    x0: Array  # [b, ...]
    estimate: Array | None


def sample_signals(
    sampler: DiffusionSampler, example: Any, num_samples: int, key: Array, *, together: bool = False
) -> SampledSignals:
    """`num_samples` samples behind each context of `example` [s], on all devices of this process.

    Sample j of example i depends on (key, i's index, j) only: not on how many others are sampled, nor how many at
    once. A signal is inferred from its finished sample as it is: to the model, that is of the least noisy level.

    Args:
      together: all processes of the run are here: they share out the calls, and all return the same. Else this one
        samples by itself.
    """
    x0 = jax.eval_shape(sampler.model.target, example)[0]
    count = x0.shape[0] * num_samples
    sampler = sampler.on_devices(count)
    num_devices = sampler.mesh.shape[devices.DATA]
    at_once = num_devices * min(-(-count // num_devices), pairs_at_once(x0))
    program = devices.over_scenes(_sample_batch, sampler.mesh)
    example = jax.device_put(example)

    def sample(start: int) -> _Batch:
        pairs = np.minimum(np.arange(start, start + at_once), count - 1)  # calls of one shape: one compilation
        numbers = (pairs // num_samples).astype(np.int32), (pairs % num_samples).astype(np.int32)
        return jax.device_get(program(sampler.replace(mesh=None), example, key, *numbers))

    starts = range(0, count, at_once)
    if together:
        received: list[_Batch] = []
        share_out(starts, sample, lambda _, part: received.append(part))
        parts = from_first(lambda: received)
    else:
        parts = [sample(start) for start in starts]
    by_example = lambda *x: rearrange(np.concatenate(x)[:count], "(s n) ... -> s n ...", n=num_samples)
    joined = jax.tree.map(by_example, *parts)
    return SampledSignals(joined.signal, joined.x0, None if joined.estimate is None else joined.estimate[:, 0])


def pairs_at_once(x0: Any) -> int:
    """Samples that one device makes in one call.

    Args:
      x0: observations [s, ...], or their shapes.
    """
    return max(1, NUMBERS_AT_ONCE * x0.shape[0] // x0.size)


@jax.jit
def _sample_batch(
    sampler: DiffusionSampler, example: Any, key: Array, scene_index: Array, sample_index: Array
) -> _Batch:
    example = jax.tree.map(lambda x: x[scene_index], example)
    samples = sampler.sample(example, sample_keys(key, example.index, sample_index))
    signal, estimate = sampler.scene(samples, noise_level=0)
    if estimate is not None:
        estimate = sampler.model.to_x0(estimate)
    return _Batch(signal, samples.x0, estimate)
