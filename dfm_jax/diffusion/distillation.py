"""Score distillation: what a denoiser says of pictures that are optimised instead of sampled, each as in its paper.

Notation, that of `samplers.py`, and
  x           the pictures that are optimised, or renderings of what is, in diffusion's range
  alpha_t, sigma_t   signal and noise rate of level t
  n           noise; x_t = alpha_t x + sigma_t n
  D_c, D_u    the denoiser's x0-predictions with and without its condition
  e_c, e_u    the noise that these see in x_t: (x_t - alpha_t D) / sigma_t
  e_k         that of guidance with scale k: e_u + k (e_c - e_u)
  w           weight of a noise level
`b` is the batch, in which every picture has its own level.

All gradients take a `Prior`, x, levels t [b] and noise n like x, and return an array like x, to descend along. (It is
handed backwards through the renderer; the denoiser itself is not differentiated.) As e_k - n is alpha_t / sigma_t
(x - D_k), each pulls x to some prediction of it.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from dfm_jax.diffusion.guidance import Guidance
from dfm_jax.diffusion.process import add_noise, along, noise_from_x0, x0_from_noise
from dfm_jax.diffusion.schedule import Schedule

Pictures = Float[Array, "b *data"]
Levels = Int[Array, " b"]
Denoiser = Callable[[Array, Array], Array]  # (x_t [b, ...], t [b]) -> x0 [b, ...]
Weight = Callable[[Array, Array], Array]  # of (alpha_t, sigma_t)

UNGUIDED = Guidance(1.0)
NFSD_LEVEL = 0.2  # share of the noise levels below which NFSD takes e_u for clean


def noise_variance(alpha_t: Array, sigma_t: Array) -> Array:
    """DreamFusion's weight."""
    return sigma_t**2


def of_prediction(alpha_t: Array, sigma_t: Array) -> Array:
    """With which the gradient of SDS is x - D: a step of length 1 goes to the prediction."""
    return sigma_t / alpha_t


@dataclasses.dataclass(frozen=True)
class Prior:
    """A trained denoiser, with its condition and without."""

    schedule: Schedule
    conditional: Denoiser
    unconditional: Denoiser
    weight: Weight = noise_variance

    def predict(self, x_t: Pictures, t: Levels, guidance: Guidance = UNGUIDED) -> Pictures:
        """D_k; without evaluating the denoiser without condition for `UNGUIDED` itself. Momentum has no meaning here:
        levels come in any order."""
        x0_c = self.conditional(x_t, t)
        if guidance is UNGUIDED:
            return x0_c
        return guidance(x0_c, self.unconditional(x_t, t), jnp.zeros_like(x_t))[0]

    def noise(self, x_t: Pictures, t: Levels, guidance: Guidance = UNGUIDED) -> Pictures:
        """e_k."""
        return self.noise_of(x_t, t, self.predict(x_t, t, guidance))

    def noise_of(self, x_t: Pictures, t: Levels, x0: Pictures) -> Pictures:
        """The noise that a prediction sees in x_t."""
        return noise_from_x0(self.schedule, x_t, t, x0)

    def noised(self, x: Pictures, t: Levels, noise: Pictures) -> Pictures:
        """x_t."""
        return add_noise(self.schedule, x, t, noise)

    def weighted(self, t: Levels, difference: Pictures) -> Pictures:
        """w times a difference of noises."""
        w = self.weight(self.schedule.signal_rate[t], self.schedule.noise_rate[t])
        return along(w, difference) * difference


def sds(prior: Prior, x: Pictures, t: Levels, noise: Pictures, guidance: Guidance = UNGUIDED) -> Pictures:
    """w (e_k - n): score distillation sampling (Poole et al., *DreamFusion*, 2022, eq. 3).

    With the noise that inverting DDIM finds in x, instead of noise that is drawn (`inversion.py`), it is score
    distillation via inversion (Lukoianov et al., *Score Distillation via Reparametrized DDIM*, 2024).
    """
    e_k = prior.noise(prior.noised(x, t, noise), t, guidance)
    return prior.weighted(t, e_k - noise)


def sjc(prior: Prior, x: Pictures, t: Levels, noise: Pictures, guidance: Guidance = UNGUIDED) -> Pictures:
    """(x + s n - D_k) / s with s = sigma_t / alpha_t: perturb-and-average scoring (Wang et al., *Score Jacobian
    Chaining*, 2022, eq. 12), weighted as in its code. Without the term s n, which is zero on average, it is SDS whose
    weight is 1.
    """
    s = along(prior.schedule.noise_rate[t] / prior.schedule.signal_rate[t], x)
    x0 = prior.predict(prior.noised(x, t, noise), t, guidance)
    return (x + s * noise - x0) / s


def csd(prior: Prior, x: Pictures, t: Levels, noise: Pictures) -> Pictures:
    """w (e_c - e_u): guidance alone (Yu et al., *Text-to-3D with Classifier Score Distillation*, 2023, eq. 7)."""
    x_t = prior.noised(x, t, noise)
    return prior.weighted(t, _condition(prior, x_t, t))


def nfsd(
    prior: Prior,
    x: Pictures,
    t: Levels,
    noise: Pictures,
    scale: float | Float[Array, ""],
    negative: Denoiser | None = None,
) -> Pictures:
    """w (d + k (e_c - e_u)): noise-free score distillation (Katzir et al., 2023, eq. 8).

    `d` is e_u where there is little noise, and e_u - e_negative elsewhere.

    Args:
      scale: k, the nominal one.
      negative: a denoiser whose condition describes what is not wanted; None: there is none, and `d` is 0 there.
    """
    x_t = prior.noised(x, t, noise)
    e_u = prior.noise_of(x_t, t, prior.unconditional(x_t, t))
    e_c = prior.noise(x_t, t)
    unwanted = e_u if negative is None else prior.noise_of(x_t, t, negative(x_t, t))
    little = along(t < NFSD_LEVEL * prior.schedule.num_timesteps, x)
    return prior.weighted(t, jnp.where(little, e_u, e_u - unwanted) + scale * (e_c - e_u))


def dds(
    prior: Prior,
    x: Pictures,
    t: Levels,
    noise: Pictures,
    source: Pictures,
    source_denoiser: Denoiser,
    guidance: Guidance = UNGUIDED,
) -> Pictures:
    """w (e_k(x_t) - e_source(source_t)), with the same noise: delta denoising score (Hertz et al., 2023, eq. 3).

    Args:
      source: pictures that are edited, like x.
      source_denoiser: its condition describes them.
    """
    source_t = prior.noised(source, t, noise)
    e_source = prior.noise_of(source_t, t, source_denoiser(source_t, t))
    return prior.weighted(t, prior.noise(prior.noised(x, t, noise), t, guidance) - e_source)


def vsd(
    prior: Prior, x: Pictures, t: Levels, noise: Pictures, particles: Denoiser, guidance: Guidance = UNGUIDED
) -> Pictures:
    """w (e_k - e_particles): variational score distillation (Wang et al., *ProlificDreamer*, 2023, eq. 9)."""
    return esd(prior, x, t, noise, particles, guidance, entropy=1.0)


def esd(
    prior: Prior,
    x: Pictures,
    t: Levels,
    noise: Pictures,
    particles: Denoiser,
    guidance: Guidance = UNGUIDED,
    *,
    entropy: float,
) -> Pictures:
    """w (e_k - l e_particles - (1 - l) n): entropic score distillation (Wang et al., *Taming Mode Collapse in Score
    Distillation*, 2024, eq. 11), which follows the divergence of p with the entropy weighted by l.

    The paper's conditional score is that of renderings from one camera. Here it is the score of one picture, whose
    noise is n itself: so SDS is l = 0, and VSD is l = 1.

    Args:
      particles: denoiser of the distribution of all x.
      entropy: l.
    """
    x_t = prior.noised(x, t, noise)
    e_k, e_particles = prior.noise(x_t, t, guidance), prior.noise_of(x_t, t, particles(x_t, t))
    return prior.weighted(t, e_k - entropy * e_particles - (1 - entropy) * noise)


def ism(prior: Prior, x_s: Pictures, s: Levels, e_s: Pictures, t: Levels, guidance: Guidance = UNGUIDED) -> Pictures:
    """w (e_k(x_t) - e_s): interval score matching (Liang et al., *LucidDreamer*, 2023, eq. 17).

    Args:
      x_s: x at level s, found by inverting DDIM.
      e_s: the noise that the denoiser without condition, or whichever was used to invert, sees there.
      t: levels above s, which one more step of the inversion leads to.
    """
    x_t = prior.noised(x0_from_noise(prior.schedule, x_s, s, e_s), t, e_s)
    return prior.weighted(t, prior.noise(x_t, t, guidance) - e_s)


def reused(
    gradient: Callable[[Array, Array, Array], Array], x: Pictures, t: Int[Array, "m b"], noise: Float[Array, "m b ..."]
) -> Pictures:
    """The mean of a gradient over m draws of level and noise for the same renderings (the reuse of *CARV*, 2026): the
    same expectation, less variance, and x is rendered once.

    Args:
      gradient: of x, t and noise.
    """
    return jnp.mean(jax.lax.map(lambda drawn: gradient(x, *drawn), (t, noise)), axis=0)


def _condition(prior: Prior, x_t: Pictures, t: Levels) -> Pictures:
    """e_c - e_u."""
    x0_u = prior.unconditional(x_t, t)
    return prior.noise(x_t, t) - prior.noise_of(x_t, t, x0_u)
