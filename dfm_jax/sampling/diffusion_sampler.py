"""A trained model, and how it is sampled: whole scenes behind context views.

Letters: `b` the examples that are sampled at once, `k` cameras that look at one scene, `h w` pixels.
"""

import dataclasses
import pkgutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jax.sharding import Mesh
from jaxtyping import Float, Int, Key

from dfm_jax.config import FITTED, SAMPLERS, SPACINGS, Config, SampleConfig
from dfm_jax.config.marching import marching_levels
from dfm_jax.denoiser import StepCache, cache_context, denoise, guided_denoise
from dfm_jax.diffusion.fitted_solver import FittedSolver
from dfm_jax.diffusion.guidance import Guidance, dynamic_threshold
from dfm_jax.diffusion.samplers import STOCHASTIC, Callback, DenoiseFn
from dfm_jax.diffusion.schedule import Schedule, cosine_schedule
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import ForwardModel, MarchedModel, SceneModel
from dfm_jax.sampling import devices
from dfm_jax.sampling.solver_files import solver_of
from dfm_jax.structs import Camera, RenderedViews, Scene

Params = dict[str, Any]

# Noise level, as a share of all, that a finished sample is said to have when its scene is inferred. At 0 the model
# takes every pixel for the truth, its own grain included; told of a little noise, it keeps what the views agree on.
SCENE_NOISE_LEVEL = 0.03
# Folded into a sample's key for the noise of its steps. Views along a path fold their numbers into it, which are small.
STEP_NOISE = 2**31 - 1


@struct.dataclass
class Samples:
    """Finished samples of target view 0, and what their scenes are inferred from."""

    x0: Array  # [b, ...] in diffusion's range
    context: Any  # [b] as the model encodes it


@struct.dataclass
class DiffusionSampler:
    """Samples a model. It is a tree of arrays (the parameters and the schedule), and can be given to a compiled
    function whole; all else is part of the function's identity.

    What guidance is, whether there is any, and between which noise levels, is decided here and nowhere else.
    """

    model: ForwardModel = struct.field(pytree_node=False)
    params: Params
    schedule: Schedule
    settings: SampleConfig = struct.field(pytree_node=False)
    mesh: Mesh | None = struct.field(pytree_node=False, default=None)  # of `devices.py`; None: the first device
    # In the place of the settings' scale of guidance, which must not be off (1): a scale that need not be compiled.
    guidance_scale: Float[Array, ""] | None = None
    solver: FittedSolver | None = None  # of the sampler 'fitted'

    @classmethod
    def from_config(cls, config: Config, params: Params, settings: SampleConfig | None = None) -> "DiffusionSampler":
        """Samples as the config says, or with other `settings`. A fitted solver's file must be known to them
        (`solver_files.with_solver_file`).

        Raises:
          UserError: it is of another number of steps, or damaged.
        """
        model, settings = make_model(config), settings or config.sample
        if isinstance(model, MarchedModel):
            model = model.saving(settings)
        schedule = cosine_schedule(config.diffusion.num_timesteps)
        solver = solver_of(settings, schedule.num_timesteps)
        settings = dataclasses.replace(settings, solver_file="")  # by any other name a program is the same
        return cls(model, params, schedule, settings, solver=solver)

    def on_devices(self, num_pairs: int) -> "DiffusionSampler":
        """The same on all devices of this process that `num_pairs` pairs of a scene and a sample can use."""
        num_rays = self.model.image_size**2 if isinstance(self.model, SceneModel) else 1
        mesh = devices.make_mesh(num_pairs, num_rays)
        return self.replace(params=devices.replicate(self.params, mesh), mesh=mesh)

    @property
    def guided(self) -> bool:
        return self.settings.guidance != 1

    @property
    def guidance(self) -> Guidance:
        settings = self.settings
        return Guidance(
            scale=settings.guidance if self.guidance_scale is None else self.guidance_scale,
            rescale=settings.guidance_rescale,
            momentum=settings.guidance_momentum,
            bound=settings.guidance_bound or float("inf"),
            parallel=settings.guidance_parallel,
        )

    @property
    def guidance_interval(self) -> tuple[int, int] | None:
        """First and last timestep to guide at; None if these are all."""
        between = (self.settings.guidance_from, self.settings.guidance_to)
        if between == (0, 1):
            return None
        first, last = (round(level * self.schedule.num_timesteps) for level in between)
        return first, last

    @property
    def observers(self) -> tuple[tuple[int, ForwardModel], ...]:
        """The models that observe in denoising steps, with the first timestep of each, rising: one, unless there is a
        marching schedule."""
        levels = marching_levels(self.settings.marching_schedule)
        last = self.schedule.num_timesteps
        found = tuple((round(level.noise_level * last), self.model.at_level(level)) for level in levels)
        return found if found and found[0][0] == 0 else ((0, self.model), *found)

    @property
    def times(self) -> Int[Array | np.ndarray, "levels"]:
        """The noise levels of the steps, falling to -1, of other samplers than the fitted one."""
        return pkgutil.resolve_name(SPACINGS[self.settings.spacing])(self.schedule, self.settings.num_steps)

    def cache_context(self, example: Any) -> StepCache:
        """What the denoising steps of examples [b] share; of twice as many, if they are guided."""
        at_once = jax.tree.leaves(example)[0].shape[0] * (1 + self.guided)
        cache_bytes = int(self.settings.context_cache_gb * 1e9) // at_once
        models = [model for _, model in self.observers]
        return cache_context(self.params, models, example, guided=self.guided, cache_bytes=cache_bytes)

    def denoise_fn(self, cache: StepCache) -> DenoiseFn:
        """The denoiser of cached examples [b], guided as the settings say: a function of `x_t [b, ...]`, timesteps
        [b], and the average that guidance carries from step to step, 0 in the first; returns x0 and the new
        average.

        Where the marching schedule has levels, all examples are observed as the lowest of the timesteps asks for."""
        first_timesteps, models = zip(*self.observers, strict=True)
        steps = [
            self._denoise_fn(model, cache.replace(query=query, other_queries=()))
            for model, query in zip(models, (cache.query, *cache.other_queries), strict=True)
        ]

        def call(x_t: Array, timestep: Array, average: Array) -> tuple[Array, Array]:
            reached = jnp.sum(jnp.min(timestep) >= jnp.array(first_timesteps))
            return jax.lax.switch(reached - 1, steps, x_t, timestep, average)

        return call if len(steps) > 1 else steps[0]

    def _denoise_fn(self, model: ForwardModel, cache: StepCache) -> DenoiseFn:
        """The denoiser with one model that observes."""

        def call(x_t: Array, timestep: Array, average: Array) -> tuple[Array, Array]:
            if not self.guided:
                return denoise(self.params, model, x_t, timestep, cache).x0, average
            denoised, average = guided_denoise(
                self.params,
                model,
                x_t,
                timestep,
                cache,
                self.guidance,
                average,
                interval=self.guidance_interval,
            )
            return denoised.x0, average

        return call

    def sample(self, example: Any, keys: Key[Array, "b"], callback: Callback | None = None) -> Any:
        """One sample of target view 0 for each example [b], which depends on its own key only: `Samples`.

        Args:
          callback: sees every denoising step (`diffusion/samplers.py`); what it returned comes back with the samples.
        """
        cache = self.cache_context(example)
        shape = jax.eval_shape(self.model.target, example)[0].shape[1:]
        noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
        settings = self.settings
        denoise_fn = self.denoise_fn(cache)

        def thresholded(x_t: Array, timestep: Array, average: Array) -> tuple[Array, Array]:
            x0, average = denoise_fn(x_t, timestep, average)
            return dynamic_threshold(x0, settings.threshold_quantile), average

        sampler = pkgutil.resolve_name(SAMPLERS[settings.sampler])
        randomness = {}
        if sampler in STOCHASTIC:
            step_keys = jax.vmap(lambda key: jax.random.fold_in(key, STEP_NOISE))(keys)
            randomness = {"keys": step_keys, "temperature": settings.temperature}
        x_T, carry = settings.temperature * noise, jnp.zeros_like(noise)
        steps = self.solver if settings.sampler == FITTED else self.times
        found = sampler(thresholded, x_T, self.schedule, steps, carry=carry, callback=callback, **randomness)
        x0, seen = found if callback else (found, None)
        samples = Samples(x0, cache.conditional(len(keys)).context)
        return (samples, seen) if callback else samples

    def scene(self, samples: Samples, noise_level: float = SCENE_NOISE_LEVEL) -> tuple[Any, Any | None]:
        """The signal (scene) behind the context and a finished sample, and the deterministic estimate of the target
        view, if the model makes one.

        The sample enters as the target view. The scene of the last denoising step would not do: it is that of the
        conditional branch, which guided samples differ from.

        Args:
          noise_level: what the model is told of the sample, as a share of all.
        """
        level = round(noise_level * self.schedule.num_timesteps)
        timestep = jnp.full(samples.x0.shape[0], level, jnp.int32)
        return self.model.infer(self.params, samples.context, samples.x0, timestep)

    def render(self, scene: Scene, camera: Camera, height: int, width: int) -> RenderedViews:
        """What cameras [b, k] see of scenes [b]: views [b, k, height, width]."""
        return self.model.render(self.params, scene, camera, height, width)


def sample_keys(key: Key[Array, ""], scene: Int[Array, "b"], sample: Int[Array, "b"]) -> Key[Array, "b"]:
    """The keys of samples: sample j of scene i depends on (key, i, j) only.

    Args:
      scene: the `index` of their examples.
      sample: their numbers; one for all is enough.
    """
    sample = jnp.broadcast_to(jnp.asarray(sample), scene.shape)
    return jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(scene, sample)


def to_image(x0: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Samples as images in [0, 1]."""
    return jnp.clip(0.5 * x0 + 0.5, 0, 1)
