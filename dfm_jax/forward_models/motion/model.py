"""Motion: what could happen after one frame (Tewari et al. 2023, motion from a single image).

The signal is a dense motion field, which nobody observes. The forward model warps the frame along it to a later time.
What arrives at one place is averaged by importance, and what nothing arrives at is filled with an appearance that the
signal has, too. Diffusion runs on the later frame; training sees pairs of frames and nothing else.

The unit of time is what lies between the two frames of a pair. A query is a time, so that one signal gives a video of
any length. Frames are in [-1, 1]. Letters: `b` the batch, `h w` pixels; of sampled signals `s` examples, `n` samples.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Key, Num

from dfm_jax.config import Config, DiTConfig, LossConfig, ResNet34Config
from dfm_jax.forward_models.motion import flow_colours, splatting
from dfm_jax.forward_models.motion.settings import MotionConfig
from dfm_jax.forward_models.protocol import Inference, Params, Prediction
from dfm_jax.forward_models.terms import Terms, mean_squared_error
from dfm_jax.models.dit import DiTEncoder
from dfm_jax.models.encoder import Encoder
from dfm_jax.models.motion import MotionHead
from dfm_jax.models.resnet import ResNet34Encoder
from dfm_jax.structs import Example

ENCODERS = {DiTConfig: DiTEncoder, ResNet34Config: ResNet34Encoder}
MID_GREY = 0.5
# Of the term `prior`: what is seen of the warp from afar, and from near; what is seen at time 0; the squared share of
# the picture that nothing covers; and steps of the flow where the frame has none.
FROM_AFAR, FROM_NEAR, AT_START, UNCOVERED, ROUGH = 1.0, 0.1, 0.1, 0.1, 0.03
REACHES = (3, 8)  # pixels, from how far away
VIDEO_TIMES = (0.0,) * 6 + tuple(np.linspace(0, 2, 25).tolist()) + (2.0,) * 6  # of videos on pages, which loop


@struct.dataclass
class Motion:
    """A frame, and how it goes on."""

    frame: Float[Array, "b h w 3"]
    flow: Float[Array, "b h w 2"]  # pixels per unit of time, to the right and down
    importance: Float[Array, "b h w"]  # the logarithm of a pixel's weight; nearer things have more
    opacity: Float[Array, "b h w"]  # of pixels, in [0, 1]; what may go several ways is transparent on each
    appearance: Float[Array, "b h w 3"]  # of what lies behind everything that covers it


@struct.dataclass
class Warped:
    """What a motion shows at some time."""

    rgb: Float[Array, "b h w 3"]
    coverage: Float[Array, "b h w"]  # share of what arrived; the rest is appearance
    warped: Float[Array, "b h w 3"]  # what arrived, as if it were opaque
    arrived: Float[Array, "b h w"]  # how much of a pixel did
    moved: Float[Array, "b h w 2"]  # by how much each pixel of the frame
    motion: Motion


@dataclasses.dataclass(frozen=True)
class MotionModel:
    """Of pairs of frames from a data set: the context view, and target view 0. Cameras are not looked at."""

    config: MotionConfig
    size: int  # side of frames, pixels

    @classmethod
    def from_config(cls, config: Config) -> "MotionModel":
        return cls(config.model, config.image_size)

    # --- examples ---------------------------------------------------------------------------------------------------

    def frames(self, example: Any) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 3"]]:
        """The earlier and the later frame."""
        return 2 * example.context.images[:, 0] - 1, 2 * example.target.images[:, 0] - 1

    def target(self, example: Any) -> tuple[Float[Array, "b h w 3"], Float[Array, "b"]]:
        """The later frame, and its time."""
        later = self.frames(example)[1]
        return later, jnp.ones(later.shape[0])

    def supervision(self, example: Any, keys: Key[Array, "b"]) -> tuple[Float[Array, "b"], Float[Array, "b h w 3"]]:
        later, time = self.target(example)
        return time, later

    def drop_context(self, example: Example, dropped: Bool[Array, "b"]) -> Example:
        """The frame is mid-grey where it is dropped."""
        images = jnp.where(dropped[:, None, None, None, None], MID_GREY, example.context.images)
        return example.replace(context=example.context.replace(images=images))

    # --- the signal -------------------------------------------------------------------------------------------------

    @property
    def encoder(self) -> Encoder:
        return ENCODERS[type(self.config.encoder)](self.config.encoder, jnp.float32)

    @property
    def head(self) -> MotionHead:
        return MotionHead(self.config.width, jnp.float32)

    def init(self, key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key)
        images = jnp.zeros((1, self.size, self.size, 6))
        features = jnp.zeros((1, self.size, self.size, self.config.encoder.features + 6))
        pose = jnp.zeros((1, 3, 4))
        return {
            "encoder": self.encoder.init(keys[0], images, jnp.zeros((1,)), pose, method="encode_noisy")["params"],
            "head": self.head.init(keys[1], features)["params"],
        }

    def encode_context(self, params: Params, example: Any) -> Float[Array, "b h w 3"]:
        """The frame: it is encoded together with the noisy one, to be compared with it."""
        return self.frames(example)[0]

    def infer(
        self, params: Params, context: Float[Array, "b h w 3"], x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> Inference:
        """The motion that leads from a frame to a noisy later one; no estimate."""
        if self.config.deterministic:
            x_t, timestep = jnp.zeros_like(x_t), jnp.zeros_like(timestep)
        images = jnp.concatenate([x_t, context], axis=-1)
        pose = jnp.zeros((images.shape[0], 3, 4))
        variables = {"params": params["encoder"]}
        features = self.encoder.apply(variables, images, timestep, pose, method="encode_noisy")
        seen = jnp.concatenate([features, images], axis=-1)
        return Inference(Motion(context, *self.head.apply({"params": params["head"]}, seen)), None)

    def observe(self, params: Params, signal: Motion, query: Float[Array, "b"], keys: Array | None = None) -> Warped:
        """The frame at later times. Appearance shows where less than a whole, opaque pixel arrives."""
        moved = splatting.displacement(signal.flow, query, self.config.integration_steps)
        opacity = signal.opacity[..., None]
        layers = jnp.concatenate([signal.frame, opacity * signal.frame, opacity], axis=-1)
        mean, arrived = splatting.warp(layers, moved, signal.importance)
        coverage = arrived * mean[..., 6]
        rgb = arrived[..., None] * mean[..., 3:6] + (1 - coverage)[..., None] * signal.appearance
        return Warped(rgb, coverage, mean[..., :3], arrived, moved, signal)

    def to_x0(self, observation: Warped) -> Float[Array, "b h w 3"]:
        return observation.rgb

    def cache(self, params: Params, context: Array, query: Array, cache_bytes: int) -> Array:
        return query  # there is nothing that steps have in common

    def loss_terms(self, example: Any, prediction: Prediction, weights: LossConfig, perceptual: None = None) -> Terms:
        """`target`; and `prior`: that what happens is, if it can be, that something moves, and not that it appears."""
        seen, truth = prediction.observation, prediction.truth
        target = mean_squared_error(seen.rgb, truth)
        if not weights.prior:
            return {"target": target}
        over_pixels = lambda x: jnp.mean(x, axis=(1, 2))
        uncovered = over_pixels(jnp.square(1 - seen.coverage))
        warped = over_pixels(seen.arrived * jnp.mean(jnp.square(seen.warped - truth), axis=-1))
        prior = FROM_AFAR * self._error_from_afar(seen, truth) + FROM_NEAR * warped + UNCOVERED * uncovered
        prior += AT_START * _error_at_start(seen.motion) + ROUGH * _roughness(seen.motion)
        return {"target": target, "prior": prior}

    def _error_from_afar(self, seen: Warped, truth: Float[Array, "b h w 3"]) -> Float[Array, "b"]:
        """Squared error of all that was carried and is not hidden, splatted with wide kernels: what misses its place is
        drawn to it from as far as a kernel reaches."""
        seen_of = jax.lax.stop_gradient(splatting.visibility(seen.moved, seen.motion.importance))[..., None]
        carried = splatting.splat(jnp.concatenate([seen_of * seen.motion.frame, seen_of], axis=-1), seen.moved)
        errors = []
        for reach in REACHES:
            wide, wide_truth = (
                _widen(x, reach) for x in (carried, jnp.concatenate([truth, jnp.ones_like(truth[..., :1])], axis=-1))
            )
            mean = lambda x: x[..., :3] / (x[..., 3:] + 1e-3)
            errors.append(mean_squared_error(mean(wide), mean(wide_truth)))
        return sum(errors)

    # --- looking at signals -----------------------------------------------------------------------------------------

    def pictures(self, params: Params, example: Any, signal: Motion) -> dict[str, np.ndarray]:
        """The frame and the later one; of each signal its flow as colour, its coverage at time 1, and a video."""
        earlier, later = (_to_images(frame)[:, None] for frame in self.frames(example))
        return {
            "frame": earlier,
            "later frame": later,
            "video": _to_images(self.observe_samples(params, signal, VIDEO_TIMES)),
            "flow": flow_colours.colours(np.asarray(signal.flow)),
        }

    def observe_samples(
        self, params: Params, signal: Motion, times: Sequence[float]
    ) -> Float[np.ndarray, "s n t h w 3"]:
        """Frames of signals [s, n] at some times."""

        def at_times(motions: Motion) -> Float[Array, "t n h w 3"]:
            everywhere = lambda time: jnp.full(motions.flow.shape[:1], time)
            return jax.lax.map(lambda time: self.observe(params, motions, everywhere(time)).rgb, jnp.asarray(times))

        return np.asarray(jax.lax.map(at_times, jax.tree.map(jnp.asarray, signal))).swapaxes(1, 2)


def _widen(image: Float[Array, "b h w c"], reach: int) -> Float[Array, "b h w c"]:
    """The sum over pixels nearby, weighted by a tent."""
    tent = lambda n: np.maximum(0, 1 - np.abs(np.arange(n)[:, None] - np.arange(n)) / reach).astype(np.float32)
    return jnp.einsum("yi,bijc,xj->byxc", tent(image.shape[1]), image, tent(image.shape[2]))


def _error_at_start(motion: Motion) -> Float[Array, "b"]:
    """Squared error of the observation at time 0, which is known to be the frame: what is transparent there must not
    show another appearance."""
    return mean_squared_error((1 - motion.opacity)[..., None] * (motion.appearance - motion.frame), 0 * motion.frame)


def _roughness(motion: Motion) -> Float[Array, "b"]:
    """Steps of the flow between neighbours, which count less where the frame has an edge."""

    def along(axis: int) -> Array:
        step = jnp.sum(jnp.sqrt(jnp.square(jnp.diff(motion.flow, axis=axis)) + 1e-4), axis=-1)
        edge = jnp.mean(jnp.abs(jnp.diff(motion.frame, axis=axis)), axis=-1)
        return jnp.mean(step * jnp.exp(-5 * edge), axis=(1, 2))

    return along(1) + along(2)


def _to_images(frames: Any) -> np.ndarray:
    return np.clip(0.5 * np.asarray(frames) + 0.5, 0, 1)
