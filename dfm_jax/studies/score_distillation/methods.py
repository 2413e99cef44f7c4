"""The methods that are compared, with the settings of their papers, as gradients on whatever is rendered.

Letters: `b` results that are optimised at once, in groups of `PARTICLES` that share an example.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Key

from dfm_jax.diffusion import distillation
from dfm_jax.diffusion.distillation import Denoiser, Prior
from dfm_jax.diffusion.guidance import Guidance
from dfm_jax.diffusion.inversion import inverted
from dfm_jax.diffusion.optimisation import Estimate, draw_levels, draw_noise
from dfm_jax.diffusion.particles import ParticleScore
from dfm_jax.errors import UserError

PARTICLES = 16  # that variational score distillation moves together
SCORE_STEPS = 5  # of learning their score, for each step that they move
INVERSION_STEPS = 10  # SDI's
INVERSION_NOISE = 0.3  # share of noise that is drawn, in what SDI inverts to
INTERVAL = 0.05  # ISM's, as a share of all levels
INTERVAL_STEPS = 3  # of inversion to its lower end
ENTROPY = 0.5  # ESD's
REUSES = 4  # draws for each rendering, CARV's
LARGEST_RATE = 0.3
TRAVEL = 10.0  # sum of Adam's rates, but for their decay: what a number may move is half of it

Family = Literal[
    "ddim", "dpm-solver++", "cfg++", "sds", "sjc", "csd", "nfsd", "dds", "vsd", "esd", "sdi", "ism", "carv"
]
SAMPLED = ("ddim", "dpm-solver++", "cfg++")  # from noise: nothing is optimised
Number = float | Float[Array, ""]
UNSCALED = ("csd",)
USUAL_SCALES = {"cfg++": 0.6, "nfsd": 7.5}  # where it is not 1


@dataclasses.dataclass(frozen=True)
class Method:
    """Numbers of it may be traced (`kind`, `numbers`): those with other numbers are the same program."""

    family: Family
    scale: Number = 1.0  # of guidance; CFG++'s share of the condition, NFSD's nominal scale
    guided: bool = False  # whether there is guidance to scale
    parallel: float = 1.0  # share of guidance along the prediction that is kept
    levels: tuple[Number, Number] = (0.02, 0.98)  # shares of all noise levels between which they are drawn
    last_levels: tuple[Number, Number] | None = None  # that these move to, evenly; None: they stay
    rate: Number = 1.0  # Adam's at first, as a multiple of `usual_rate`
    plain: bool = False  # follows the gradient x - D itself, in steps of length 1
    bounded: bool = True  # colours come out of a sigmoid

    @property
    def guidance(self) -> Guidance:
        return Guidance(self.scale, parallel=self.parallel) if self.guided else distillation.UNGUIDED

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser that a step takes for each result."""
        guided = 1 + self.guided
        return {
            "cfg++": 2,
            "csd": 2,
            "nfsd": 3,
            "dds": 1 + guided,
            "sdi": (INVERSION_STEPS + 1) * guided,
            "ism": INTERVAL_STEPS + 1 + guided,
            "carv": REUSES * guided,
        }.get(self.family, guided)

    @property
    def kind(self) -> "Method":
        """What a program is compiled for."""
        return dataclasses.replace(self, scale=0.0, levels=(0.0, 0.0), last_levels=None, rate=0.0)

    @property
    def numbers(self) -> dict[str, Any]:
        """What makes this method of its kind."""
        last = self.last_levels or self.levels
        return {"scale": self.scale, "levels": self.levels, "last_levels": last, "rate": self.rate}

    def with_numbers(self, numbers: dict[str, Any]) -> "Method":
        return dataclasses.replace(self, **numbers)


def usual_rate(num_steps: Array) -> Array:
    """Adam's at first, before it falls to 0 along a cosine: in few steps it has to be larger."""
    return jnp.minimum(LARGEST_RATE, TRAVEL / num_steps)


OWN = {
    "vsd": {"last_levels": (0.02, 0.5)},
    "esd": {"last_levels": (0.02, 0.5)},
    "sdi": {"levels": (0.98, 0.98), "last_levels": (0.25, 0.25), "plain": True, "bounded": False},
}


def method_of(name: str) -> Method:
    """'sds-7.5' is SDS with guidance of scale 7.5; without a number the scale is 1, or that of `USUAL_SCALES`.

    Raises:
      UserError: there is no such method.
    """
    family, number = name, ""
    if name not in get_args(Family):
        family, _, number = name.rpartition("-")
    if family not in get_args(Family) or (name != family and (not number or family in UNSCALED)):
        raise UserError(
            f"--methods: there is no method {name!r}: {', '.join(get_args(Family))}, all but {', '.join(UNSCALED)} "
            "also with a scale of guidance, as in sds-7.5"
        )
    try:
        scale = float(number) if number else USUAL_SCALES.get(family, 1.0)
    except ValueError as error:
        raise UserError(f"--methods: {number!r} in {name!r} is no scale of guidance") from error
    guided = scale != 1 and family not in USUAL_SCALES
    return Method(family, scale, guided, **OWN.get(family, {}))


def estimate_of(
    method: Method,
    prior_at: Callable[[Any], Prior],
    negative_at: Callable[[Any], Denoiser | None],
    source: Any = None,
) -> Estimate:
    """The method's gradients on renderings [b, ...].

    Args:
      prior_at: the prior, from what is known of a rendering.
      negative_at: for NFSD, the denoiser of what is not wanted, if there is one, from the same.
      source: for DDS, the renderings that everything starts from, which the denoiser without condition describes.
    """

    def estimate(x: Array, known: Any, done: Array, keys: Array, carry: Any) -> tuple[Array, Any]:
        prior = prior_at(known)
        if method.plain:
            prior = dataclasses.replace(prior, weight=distillation.of_prediction)
        if method.family == "carv":
            return _reused(method, prior, x, done, keys), carry
        level_keys, noise_keys, score_keys = jnp.moveaxis(jax.vmap(partial(jax.random.split, num=3))(keys), 1, 0)
        t, noise = _levels(method, prior, done, level_keys), draw_noise(noise_keys, x)
        if method.family in ("vsd", "esd"):
            return _of_particles(method, prior, x, t, noise, score_keys, carry)
        negative = negative_at(known) if method.family == "nfsd" else None
        return _gradient(method, prior, x, t, noise, negative, source), carry

    return estimate


def first_carry(method: Method, key: Key[Array, ""], x: Float[Array, "b ..."]) -> Any:
    """What the first step's estimate is given: the scores of the groups of particles, where they are learnt."""
    if method.family not in ("vsd", "esd"):
        return None
    keys = jax.random.split(key, len(x) // PARTICLES)
    return jax.vmap(lambda key: ParticleScore.new(key, x[0].size))(keys)


def _levels(method: Method, prior: Prior, done: Array, keys: Array) -> Array:
    first, last = jnp.array(method.levels), jnp.array(method.last_levels)
    lowest, highest = first + done * (last - first)
    return draw_levels(keys, lowest, highest, prior.schedule.num_timesteps)


def _gradient(
    method: Method, prior: Prior, x: Array, t: Array, noise: Array, negative: Denoiser | None, source: Any
) -> Array:
    guidance = method.guidance
    match method.family:
        case "sds":
            return distillation.sds(prior, x, t, noise, guidance)
        case "sjc":
            return distillation.sjc(prior, x, t, noise, guidance)
        case "csd":
            return distillation.csd(prior, x, t, noise)
        case "nfsd":
            return distillation.nfsd(prior, x, t, noise, method.scale, negative)
        case "dds":
            return distillation.dds(prior, x, t, noise, source, prior.unconditional, guidance)
        case "sdi":
            return _via_inversion(method, prior, x, t, noise)
        case "ism":
            return _over_an_interval(method, prior, x, t)


def _via_inversion(method: Method, prior: Prior, x: Array, t: Array, drawn: Array) -> Array:
    """Guided, it inverts with the negative scale, as its code does."""
    backwards = dataclasses.replace(method.guidance, scale=-method.scale) if method.guided else method.guidance
    x_t, _ = inverted(lambda x_t, t: prior.predict(x_t, t, backwards), prior.schedule, x, t, INVERSION_STEPS)
    found = prior.noise_of(x_t, t, x)
    noise = (1 - INVERSION_NOISE**2) ** 0.5 * found + INVERSION_NOISE * drawn
    return distillation.sds(prior, x, t, noise, method.guidance)


def _over_an_interval(method: Method, prior: Prior, x: Array, t: Array) -> Array:
    interval = round(INTERVAL * prior.schedule.num_timesteps)
    s = jnp.maximum(t - interval, 1)
    x_s, _ = inverted(prior.unconditional, prior.schedule, x, s, INTERVAL_STEPS)
    e_s = prior.noise_of(x_s, s, prior.unconditional(x_s, s))
    return distillation.ism(prior, x_s, s, e_s, s + interval, method.guidance)


def _reused(method: Method, prior: Prior, x: Array, done: Array, keys: Array) -> Array:
    """The mean of SDS over draws whose levels come from as many equal parts of the range."""
    first, last = jnp.array(method.levels), jnp.array(method.last_levels)
    lowest, highest = first + done * (last - first)
    edges = jnp.linspace(lowest, highest, REUSES + 1)
    each = jax.vmap(partial(jax.random.split, num=2 * REUSES))(keys)
    t = [draw_levels(each[:, i], edges[i], edges[i + 1], prior.schedule.num_timesteps) for i in range(REUSES)]
    noise = [draw_noise(each[:, REUSES + i], x) for i in range(REUSES)]
    gradient = partial(distillation.sds, prior, guidance=method.guidance)
    return distillation.reused(gradient, x, jnp.stack(t), jnp.stack(noise))


def _of_particles(
    method: Method, prior: Prior, x: Array, t: Array, noise: Array, keys: Array, score: ParticleScore
) -> tuple[Array, ParticleScore]:
    """The gradient with the scores of the groups as they are, and what these learn of where the particles are."""
    groups = partial(rearrange, pattern="(g n) ... -> g n (...)", n=PARTICLES)
    particles, schedule = groups(x), prior.schedule
    learn = jax.vmap(lambda score, x, key: score.learned(schedule, x, key, SCORE_STEPS))
    score = learn(score, particles, keys[::PARTICLES])

    def denoiser(x_t: Array, t: Array) -> Array:
        of_group = jax.vmap(lambda score, x, x_t, t: score.predict(schedule, x, x_t, t))
        x0 = of_group(score, particles, groups(x_t), rearrange(t, "(g n) -> g n", n=PARTICLES))
        return x0.reshape(x_t.shape)

    gradient = distillation.vsd if method.family == "vsd" else partial(distillation.esd, entropy=ENTROPY)
    return gradient(prior, x, t, noise, denoiser, method.guidance), score
