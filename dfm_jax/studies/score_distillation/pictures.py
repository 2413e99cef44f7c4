"""Score distillation of the target observation itself: a picture, or a vector.

Letters: `s` example, `n` results behind each, `b` those that are computed at once.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dfm_jax.config import Config
from dfm_jax.denoiser import StepCache, cache_context, denoise
from dfm_jax.diffusion.cfg_plus_plus import cfg_plus_plus
from dfm_jax.diffusion.distillation import Denoiser, Prior
from dfm_jax.diffusion.optimisation import falling_rate, optimised
from dfm_jax.diffusion.samplers import ddim, dpm_solver
from dfm_jax.diffusion.timesteps import log_snr_timesteps, uniform_timesteps
from dfm_jax.forward_models.protocol import SceneModel
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params, sample_keys
from dfm_jax.studies.score_distillation.methods import (
    PARTICLES,
    SAMPLED,
    Method,
    estimate_of,
    first_carry,
    usual_rate,
)

START_NOISE = 0.1  # standard deviation around mid-grey, in diffusion's range
_PROGRAMS: dict[tuple, Any] = {}
NUMBERS_AT_ONCE = {"cpu": 2**16}  # that are optimised in one call, of observations; elsewhere, as many as there are


def results(
    config: Config, params: Params, example: Any, num_results: int, method: Method, num_evaluations: int
) -> tuple[np.ndarray, float]:
    """x0 [s, n, ...] in diffusion's range, and the seconds that all took, but for compiling. Result j of example i
    begins with the same noise whatever the method.

    Args:
      num_results: n, a multiple of `PARTICLES`.
      num_evaluations: of the denoiser, for each result at most.
    """
    sampler = DiffusionSampler.from_config(config, params)
    x0 = jax.eval_shape(sampler.model.target, example)[0]
    count, key = x0.shape[0] * num_results, jax.random.key(config.seed)
    of_backend = NUMBERS_AT_ONCE.get(jax.default_backend(), x0.size * num_results)
    at_once = min(count, max(1, of_backend * x0.shape[0] // (x0.size * PARTICLES)) * PARTICLES)
    num_steps = max(1, num_evaluations // method.evaluations)
    shared, calls = (sampler, jax.device_put(example), key), []
    for start in range(0, count, at_once):
        pairs = np.minimum(np.arange(start, start + at_once), count - 1)  # of one shape: one compilation
        numbers = (pairs // num_results).astype(np.int32), (pairs % num_results).astype(np.int32)
        steps = np.int32(num_steps)
        calls.append((*shared, *numbers, method.numbers, steps))
    # Samplers unroll their noise levels; optimising is one program for any number of steps.
    times = num_steps if method.family in SAMPLED else None
    program = compiled(_results, calls[0], kind=method.kind, times=times)
    begin = time.perf_counter()
    found = np.concatenate([np.asarray(program(*call)) for call in calls])[:count]
    seconds = time.perf_counter() - begin
    return found.reshape(x0.shape[0], num_results, *x0.shape[1:]), seconds


@partial(jax.jit, static_argnames=("kind", "times"))
def _results(
    sampler: DiffusionSampler,
    example: Any,
    key: Array,
    scene_index: Array,
    sample_index: Array,
    numbers: dict[str, Any],
    num_steps: Array,
    *,
    kind: Method,
    times: int | None,
) -> Array:
    method = kind.with_numbers(numbers)
    example = jax.tree.map(lambda x: x[scene_index], example)
    keys = sample_keys(key, example.index, sample_index)
    shape = jax.eval_shape(sampler.model.target, example)[0].shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    prior = prior_of(sampler, example)
    if method.family in SAMPLED:
        return _sampled(prior, method, noise, times)
    bounded = method.bounded and isinstance(sampler.model, SceneModel)
    render = lambda x, keys: (jnp.tanh(x / 2) if bounded else x, None)
    start = START_NOISE * noise * (2 if bounded else 1)  # a sigmoid halves it
    negative = negative_of(sampler, example) if method.family == "nfsd" else None
    estimate = estimate_of(method, lambda known: prior, lambda known: negative, render(start, keys)[0])
    carry = first_carry(method, key, noise)
    found = optimised(render, estimate, start, keys, num_steps, optimiser_of(method, num_steps), carry)
    return render(found, keys)[0]


def compiled(function: Any, arguments: tuple, **static: Any) -> Callable[..., Any]:
    """The program of a jitted function for arguments of these shapes, so that its run can be timed alone; it is kept
    for the next call that needs the same."""
    leaves, structure = jax.tree.flatten(arguments)
    key = (function, structure, tuple(map(jax.typeof, leaves)), tuple(static.items()))
    if key not in _PROGRAMS:
        _PROGRAMS[key] = function.lower(*arguments, **static).compile()
    return _PROGRAMS[key]


def optimiser_of(method: Method, num_steps: Array) -> optax.GradientTransformation:
    if method.plain:
        return optax.sgd(1.0)
    return optax.adam(falling_rate(method.rate * usual_rate(num_steps), num_steps), b1=0.9, b2=0.99)


def prior_of(sampler: DiffusionSampler, example: Any, *, cached: bool = True) -> Prior:
    """The denoiser of examples [b], with their contexts and without.

    Args:
      cached: whether it is used for more than one step, so that keeping what these share is worth it.
    """
    b = example.index.shape[0]
    cache_bytes = int(sampler.settings.context_cache_gb * 1e9) // (2 * b) if cached else 0
    both = cache_context(sampler.params, sampler.model, example, guided=True, cache_bytes=cache_bytes)
    without = jax.tree.map(lambda x: x[b:], both)
    return Prior(sampler.schedule, denoiser_of(sampler, both.conditional(b)), denoiser_of(sampler, without))


def denoiser_of(sampler: DiffusionSampler, cache: StepCache) -> Denoiser:
    return lambda x_t, t: denoise(sampler.params, sampler.model, x_t, t, cache).x0


def negative_of(sampler: DiffusionSampler, example: Any) -> Denoiser | None:
    """The denoiser of what is not wanted: behind photographic negatives of the contexts; None of other models."""
    if not isinstance(sampler.model, SceneModel):
        return None
    unwanted = example.replace(context=example.context.replace(images=1 - example.context.images))
    return denoiser_of(sampler, cache_context(sampler.params, sampler.model, unwanted))


def _sampled(prior: Prior, method: Method, noise: Array, num_steps: int) -> Array:
    schedule = prior.schedule
    if method.family == "cfg++":
        both = lambda x_t, t: (prior.conditional(x_t, t), prior.unconditional(x_t, t))
        return cfg_plus_plus(both, noise, schedule, uniform_timesteps(schedule, num_steps), method.scale)
    denoise_fn = lambda x_t, t, carry: (prior.predict(x_t, t, method.guidance), carry)
    if method.family == "ddim":
        return ddim(denoise_fn, noise, schedule, uniform_timesteps(schedule, num_steps))
    return dpm_solver(denoise_fn, noise, schedule, log_snr_timesteps(schedule, num_steps))
