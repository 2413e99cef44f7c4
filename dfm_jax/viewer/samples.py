"""Samples one at a time, with settings that change from one to the next, and their denoising steps."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.sampling.batches import sample_pairs
from dfm_jax.sampling.denoising import DenoisingSteps, denoising_steps, scene_of_step
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.scenes import Sampled, SampledScene, Scenes
from dfm_jax.viewer import limits
from dfm_jax.viewer.sources import Source

ANY_GUIDANCE = 2.0  # that programs are compiled with: its true scale is an argument of theirs


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample, and how it came about."""

    scene: SampledScene
    source: Source
    sampler: Sampler  # with the settings that it was sampled with
    steps: DenoisingSteps | None = None  # [m, 1], if they were asked for
    gaussians: Gaussians | None = None  # in the scene's coordinates, when they are fitted

    @property
    def num_steps(self) -> int:
        return self.sampler.config.sample.num_steps

    @property
    def label(self) -> str:
        """For people; no two samples that differ have the same."""
        settings, seed = self.sampler.config.sample, self.sampler.config.seed
        guided = f", guidance {settings.guidance!r}" if settings.guidance != 1 else ""
        return f"sample {self.scene.number}: seed {seed}, {settings.sampler} in {settings.num_steps}{guided}"

    def is_same(self, other: "Sample") -> bool:
        """Whether both are one sample, whatever else is known of it."""
        return self.source is other.source and self.label == other.label


def sampled_as(sampler: Sampler, seed: Any, steps: Any, guidance: Any, name: Any) -> Sampler:
    """The model, sampled as a browser says.

    Raises:
      UserError: there is no such sampler, or a number is outside of its range.
    """
    steps = limits.whole_number(steps, 1, min(limits.MAX_STEPS, sampler.config.diffusion.num_timesteps), "steps")
    seed = limits.whole_number(seed, 0, limits.MAX_SEED, "seed")
    if isinstance(guidance, bool) or not isinstance(guidance, int | float):
        raise UserError(f"guidance is a number, not {guidance!r}")
    return sampler.sampled_with(seed=seed, num_steps=steps, guidance=float(guidance), sampler=name)


def sample_one(sampler: Sampler, source: Source, number: int) -> SampledScene:
    """Sample `number` behind a source: the one that every command samples with the same seed and settings."""
    diffusion = _diffusion(sampler)
    batch = sample_pairs(diffusion, jax.device_put(source.example), [(0, number)], _key(sampler.config))
    found = jax.device_get((batch.scene, batch.x0, batch.estimate))
    return SampledScene(diffusion, Sampled(*found, source.example, source.world, (source.frame,)), 0, 0, number)


def together(samples: Sequence[Sample]) -> Scenes:
    """Samples 0, 1, ... of one source, sampled alike, as if at once."""
    parts = [sample.scene.sampled for sample in samples]
    joined = lambda name: jax.tree.map(lambda *x: np.concatenate(x), *(getattr(part, name) for part in parts))
    sampled = dataclasses.replace(parts[0], **{name: joined(name) for name in ("signal", "x0", "estimate")})
    first = samples[0].sampler
    made_from = {"name": first.name, "step": first.step, "seed": first.config.seed}
    return Scenes(samples[0].scene.sampler, sampled, made_from)


def steps_of(sample: Sample) -> DenoisingSteps:
    """The denoising steps [m, 1] of a sample, in numpy: it is sampled again."""
    numbers = np.array([0], np.int32), np.array([sample.scene.number], np.int32)
    diffusion = sample.scene.sampler.replace(mesh=None)
    return jax.device_get(denoising_steps(diffusion, sample.source.example, _key(sample.sampler.config), *numbers))


def scene_at(sample: Sample, step: int) -> SampledScene:
    """The scene that a denoising step (from 0) of a sample with `steps` infers."""
    steps, diffusion = sample.steps, sample.scene.sampler.replace(mesh=None)
    signal = scene_of_step(diffusion, sample.source.example, steps.x_t[step], steps.timestep[step])
    sampled = dataclasses.replace(sample.scene.sampled, signal=jax.device_get(signal), x0=steps.x0[step])
    return dataclasses.replace(sample.scene, sampled=sampled)


def _diffusion(sampler: Sampler) -> DiffusionSampler:
    """On one pair's devices; another scale of guidance is not compiled anew."""
    diffusion = sampler.diffusion()
    if diffusion.guided:
        settings = dataclasses.replace(diffusion.settings, guidance=ANY_GUIDANCE)
        diffusion = diffusion.replace(settings=settings, guidance_scale=np.float32(sampler.config.sample.guidance))
    return diffusion.on_devices(1)


def _key(config: Config) -> jax.Array:
    return jax.random.key(config.seed)
