"""Whether a photograph is like what a model was trained on, by how it takes it: measured of the scenes that it samples.

Of a photograph that a model knows how to read, sampled scenes look like it from its own camera, and samples lie around
the deterministic estimate as far as they lie apart. Each part is the logarithm (base 10) of a root mean square over
pixels and colours; how far it is above that of held-out scenes, in their standard deviations, tells what is unusual.

Letters: `s` scenes, `n` samples of each, `v t` context and target views, `r` held-out scenes, `h w` pixels.
"""

import dataclasses
import warnings
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm

from dfm_jax.runs.barriers import is_first
from dfm_jax.sampling.batches import sample_in_batches
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.sample_summary import Familiarity, FamiliarityPart
from dfm_jax.structs import Example

PARTS = {
    "context_error": "the sampled scenes, seen from the photograph's camera, against the photograph",
    "estimate_error": "the samples against the model's deterministic estimate, from the target camera",
    "spread": "the samples against each other, from the target camera",
}
VERSION = 1  # of the parts
FEWEST = 8  # held-out scenes that tell anything
LEAST_DEVIATION = 0.02  # of held-out scenes that hardly differ, as those of a deterministic model
MARGIN = 1.5  # a photograph is unlike them if its score is so many times the largest of theirs
SMALLEST = 1e-6  # error that is told from none


def measure(example: Example, views: np.ndarray, estimate: np.ndarray) -> np.ndarray:
    """The parts [s, 3] of sampled scenes; nan where there is one sample only, which has no spread.

    Args:
      views: [s, n, v + t, h, w, 3] of the sampled scenes from the context and target cameras.
      estimate: [s, h, w, 3] of target view 0.
    """
    valid = np.asarray(example.context.valid, bool)  # [s, v]
    num_context = valid.shape[1]
    given = np.asarray(example.context.images)[:, None]
    error = ((views[:, :, :num_context] - given) ** 2).mean((1, 3, 4, 5))
    context = (error * valid).sum(1) / valid.sum(1)
    target = views[:, :, num_context]
    off = ((target - estimate[:, None]) ** 2).mean((1, 2, 3, 4))
    with warnings.catch_warnings(action="ignore"):  # of a single sample
        spread = target.var(1, ddof=1).mean((1, 2, 3))
    return np.log10(np.sqrt(np.stack([context, off, spread], axis=-1)) + SMALLEST)


def sample_parts(sampler: DiffusionSampler, example: Example, num_samples: int, seed: int, *, doing: str) -> np.ndarray:
    """The parts [s, 3] of scenes that are sampled for it, on the devices of this process."""
    count, size = len(example.near), sampler.model.image_size
    sampler = sampler.on_devices(count * num_samples)
    taken = []
    with tqdm(total=count * num_samples, unit="scene", desc=doing, disable=not is_first()) as bar:
        for pairs, batch in sample_in_batches(sampler, jax.device_put(example), num_samples, jax.random.key(seed)):
            taken.append(jax.device_get((batch.views.rgb, batch.estimate)))
            bar.update(min(len(pairs), bar.total - bar.n))
    views, estimates = (np.concatenate(x)[: count * num_samples] for x in zip(*taken, strict=True))
    views = views.reshape(count, num_samples, *views.shape[1:])
    return measure(example, views, estimates.reshape(count, num_samples, size, size, 3)[:, 0])


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """How a model takes held-out scenes of its own data."""

    values: np.ndarray  # [r, 3] parts

    def deviations(self, parts: np.ndarray) -> np.ndarray:
        """How far parts [..., 3] are above those of the held-out scenes, in their standard deviations."""
        deviation = np.maximum(self.values.std(0, ddof=1), LEAST_DEVIATION)
        return (parts - self.values.mean(0)) / deviation

    def scores(self, parts: np.ndarray) -> np.ndarray:
        """The largest of these, at least 0: [...] of [..., 3]."""
        return np.maximum(0.0, np.nanmax(self.deviations(parts), axis=-1))

    @property
    def limit(self) -> float:
        """The score above which a photograph is unlike the held-out scenes."""
        return float(MARGIN * self.scores(self.values).max())


def judge(parts: np.ndarray, reference: Reference | None, why: str = "") -> Familiarity:
    """What the parts [3] of a photograph say.

    Args:
      reference: None: nothing is known to compare with, for the reason `why`.
    """
    made = tuple(_parts(parts, reference))
    if reference is None:
        return Familiarity(score=None, limit=None, unfamiliar=None, parts=made, held_out=0, said=why)
    score = float(reference.scores(parts))
    return Familiarity(score, reference.limit, score > reference.limit, made, len(reference.values), why)


def _parts(parts: np.ndarray, reference: Reference | None) -> Iterator[FamiliarityPart]:
    deviations = None if reference is None else reference.deviations(parts)
    usual = None if reference is None else 10 ** reference.values.mean(0)
    for i, (name, meaning) in enumerate(PARTS.items()):
        if np.isfinite(parts[i]):
            known = (None, None) if reference is None else (float(usual[i]), float(deviations[i]))
            yield FamiliarityPart(name, meaning, float(10 ** parts[i]), *known)
