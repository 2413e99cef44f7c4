"""The smallest forward model: a Gaussian signal that is seen through linear operators, whose posterior is known.

The signal `s` is a Gaussian vector in R^3. One number of it is the context, two others are the target that diffusion
noises, and one along a direction of its own for every example is supervised as well. Training sees these projections
only, never a signal; context and target together determine it. So sampled signals must follow p(s | context), which has
a closed form, in every projection, also in those that training never sees. It shows that the method is right, and how
little a forward model needs.

Letters: `b` the batch, `q` projections asked for.
"""

import dataclasses
from typing import Annotated

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from dfm_jax.config import Config, LossConfig
from dfm_jax.config.limits import Range
from dfm_jax.config.model import ForwardModelConfig, settings_of
from dfm_jax.forward_models.protocol import Inference, Params, Prediction
from dfm_jax.forward_models.terms import Terms, mean_squared_error

MEAN = np.array([0.2, -0.1, 0.3])
COVARIANCE = np.array([[0.30, 0.12, -0.06], [0.12, 0.25, 0.08], [-0.06, 0.08, 0.20]])
CONTEXT = np.array([[0.8, 0.0, 0.6]])  # operators, one row a number observed
TARGET = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, -0.8]])
TRAINING, HELD_OUT = 0, 1  # examples of the two do not repeat each other
BLOCK = 1024  # examples whose random numbers are drawn at once


@settings_of("linear")
class LinearConfig(ForwardModelConfig):
    num_knots: Annotated[int, Range(2, 1000)]  # noise levels at which the coefficients are learnt


@struct.dataclass
class Projections:
    """What is observed of some signals."""

    context: Float[Array, "b 1"]
    has_context: Bool[Array, " b"]
    target: Float[Array, "b 2"]
    extra_query: Float[Array, "b 1 3"]  # a direction of unit length
    extra: Float[Array, "b 1"]
    index: Int[Array, " b"]


@dataclasses.dataclass(frozen=True)
class LinearModel:
    """`infer` is affine in the context and the noisy target, with coefficients that depend on the timestep: linear
    interpolation in a table. For Gaussian signals the best denoiser has this form."""

    num_timesteps: int
    num_knots: int = 33

    @classmethod
    def from_config(cls, config: Config) -> "LinearModel":
        return cls(config.diffusion.num_timesteps, config.model.num_knots)

    def init(self, key: Key[Array, ""]) -> Params:
        """All zero: the problem is convex."""
        del key
        # [without or with context, knot, coefficient of (1, context, x_t), signal]
        return {"signal": jnp.zeros((2, self.num_knots, 4, 3)), "estimate": jnp.zeros((2, 2, 3))}

    def encode_context(self, params: Params, example: Projections) -> Projections:
        """The example itself: there is nothing to compute beforehand."""
        return example

    def infer(
        self, params: Params, context: Projections, x_t: Float[Array, "b 2"], timestep: Int[Array, " b"]
    ) -> Inference:
        """The signal [b, 3], and an estimate of the target [b, 2] from the context alone."""
        known = jnp.concatenate([jnp.ones_like(context.context), context.context], axis=1)
        knots = jnp.linspace(0, self.num_timesteps - 1, self.num_knots)
        nearness = jnp.maximum(0, 1 - jnp.abs(timestep[:, None] - knots[None]) / (knots[1] - knots[0]))
        of_case = lambda either: jnp.where(context.has_context[:, None, None], either[:, 1], either[:, 0])
        coefficients = of_case(jnp.einsum("bk,ckis->bcis", nearness, params["signal"]))
        signal = jnp.sum(jnp.concatenate([known, x_t], axis=1)[..., None] * coefficients, axis=1)
        estimate = jnp.sum(known[..., None] * of_case(params["estimate"][None]), axis=1)
        return Inference(signal, self.observe(params, estimate, self._target_query(context)))

    def observe(
        self, params: Params, signal: Float[Array, "b 3"], query: Float[Array, "b q 3"], keys: Array | None = None
    ) -> Float[Array, "b q"]:
        """Projections of the signal on the rows of `query`."""
        return jnp.sum(query * signal[:, None], axis=-1)

    def target(self, example: Projections) -> tuple[Float[Array, "b 2"], Float[Array, "b 2 3"]]:
        return example.target, self._target_query(example)

    def to_x0(self, observation: Float[Array, "b q"]) -> Float[Array, "b q"]:
        return observation

    def supervision(
        self, example: Projections, keys: Key[Array, " b"]
    ) -> tuple[Float[Array, "b 3 3"], Float[Array, "b 3"]]:
        """The target, and one more projection."""
        query = jnp.concatenate([self._target_query(example), example.extra_query], axis=1)
        return query, jnp.concatenate([example.target, example.extra], axis=1)

    def drop_context(self, example: Projections, dropped: Bool[Array, " b"]) -> Projections:
        context = jnp.where(dropped[:, None], 0.0, example.context)
        return example.replace(context=context, has_context=example.has_context & ~dropped)

    def loss_terms(
        self, example: Projections, prediction: Prediction, weights: LossConfig, perceptual: None = None
    ) -> Terms:
        target = mean_squared_error(prediction.observation, prediction.truth)
        return {"target": target, "estimate": mean_squared_error(prediction.estimate, example.target)}

    def cache(self, params: Params, context: Projections, query: Array, cache_bytes: int) -> Array:
        return query

    def _target_query(self, example: Projections) -> Float[Array, "b 2 3"]:
        return jnp.broadcast_to(jnp.asarray(TARGET, jnp.float32), (example.index.shape[0], 2, 3))

    # --- its own examples, and the truth about them -----------------------------------------------------------------

    def generate(self, seed: int, index: Int[np.ndarray, " b"], *, held_out: bool = False) -> Projections:
        """Projections of new signals, which do not leave this function: numpy arrays, functions of the seed and of
        each example's number alone."""
        normal = _normals((seed, HELD_OUT if held_out else TRAINING), index)
        signal = MEAN + normal[:, 0] @ np.linalg.cholesky(COVARIANCE).T
        direction = normal[:, 1:] / np.linalg.norm(normal[:, 1:], axis=-1, keepdims=True)
        single = lambda x: x.astype(np.float32)
        return Projections(
            context=single(signal @ CONTEXT.T),
            has_context=np.ones(len(index), bool),
            target=single(signal @ TARGET.T),
            extra_query=single(direction),
            extra=single(np.einsum("bqs,bs->bq", direction, signal)),
            index=np.asarray(index, np.int32),
        )

    def posterior(self, example: Projections) -> tuple[Float[np.ndarray, "b 3"], Float[np.ndarray, "b 3 3"]]:
        """Mean and covariance of the signals behind contexts: those of p(s | context), or p(s) where there is none."""
        gain = COVARIANCE @ CONTEXT.T @ np.linalg.inv(CONTEXT @ COVARIANCE @ CONTEXT.T)  # [3, 1]
        seen = np.asarray(example.has_context, np.float64)[:, None]
        mean = MEAN + seen * ((np.asarray(example.context, np.float64) - MEAN @ CONTEXT.T) @ gain.T)
        return mean, COVARIANCE - seen[..., None] * (gain @ CONTEXT @ COVARIANCE)


def _normals(seed: tuple[int, ...], index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b 2 3"]:
    """Standard normal numbers of examples; they are drawn in blocks, so that not every example needs a generator."""
    blocks, inverse = np.unique(index // BLOCK, return_inverse=True)
    drawn = [np.random.default_rng((*seed, int(block))).standard_normal((BLOCK, 2, 3)) for block in blocks]
    return np.stack(drawn)[inverse, index % BLOCK]
