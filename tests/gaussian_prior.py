"""Gaussian priors, whose denoisers are affine, and what closed forms say of them: of the linear forward model, and of
two Gaussians of equal variance."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from dfm_jax.diffusion.distillation import Denoiser, Prior
from dfm_jax.diffusion.schedule import Schedule, cosine_schedule
from dfm_jax.forward_models.linear import TARGET, LinearModel

SCHEDULE = cosine_schedule(1000)
CONTEXT_VALUE = 1.1  # of the linear model's context: far enough from its mean for the two posteriors to differ


@dataclasses.dataclass(frozen=True)
class Gaussian:
    mean: np.ndarray  # [d]
    covariance: np.ndarray  # [d, d]

    def denoiser(self, schedule: Schedule = SCHEDULE) -> Denoiser:
        """E[x0 | x_t] = m + alpha C (alpha^2 C + sigma^2)^-1 (x_t - alpha m)."""
        variances, axes = (jnp.asarray(x, jnp.float32) for x in np.linalg.eigh(self.covariance))
        mean, variances = jnp.asarray(self.mean, jnp.float32)[None], variances[None]

        def predict(x_t, t):
            alpha, sigma = schedule.signal_rate[t][:, None], schedule.noise_rate[t][:, None]
            gain = alpha * variances / (alpha**2 * variances + sigma**2)
            return mean + (gain * ((x_t - alpha * mean) @ axes)) @ axes.T

        return predict

    def pull(self, t: int) -> np.ndarray:
        """(alpha^2 C + sigma^2)^-1 at level t, times what all gradients of weight sigma^2 have in common: [d, d]."""
        alpha, sigma = (float(rate[t]) for rate in (SCHEDULE.signal_rate, SCHEDULE.noise_rate))
        noisy = alpha**2 * self.covariance + sigma**2 * np.eye(len(self.mean))
        return sigma**3 * alpha * np.linalg.inv(noisy)

    def samples(self, count: int, seed: int = 0) -> np.ndarray:
        """With exactly these moments."""
        normal = np.random.default_rng(seed).normal(size=(count, len(self.mean)))
        normal -= normal.mean(0)
        normal = normal @ np.linalg.inv(np.linalg.cholesky(np.cov(normal.T, bias=True))).T
        return self.mean + normal @ np.linalg.cholesky(self.covariance).T


def linear_gaussians() -> tuple[Gaussian, Gaussian]:
    """Of the linear model's target: behind a context, and without one. Their variances are unequal."""
    model = LinearModel(1000)
    example = model.generate(0, np.arange(1))
    example = example.replace(context=np.full((1, 1), CONTEXT_VALUE, np.float32))
    found = []
    for dropped in (False, True):
        mean, covariance = model.posterior(example.replace(has_context=np.array([not dropped])))
        found.append(Gaussian(TARGET @ mean[0], TARGET @ covariance[0] @ TARGET.T))
    return tuple(found)


def equal_gaussians() -> tuple[Gaussian, Gaussian]:
    """Two means, and one covariance."""
    covariance = np.array([[0.2, 0.05], [0.05, 0.1]])
    return Gaussian(np.array([0.4, -0.3]), covariance), Gaussian(np.array([0.1, 0.2]), covariance)


def prior_of(conditional: Gaussian, unconditional: Gaussian, **settings: object) -> Prior:
    return Prior(SCHEDULE, conditional.denoiser(), unconditional.denoiser(), **settings)
