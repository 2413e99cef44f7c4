"""Motion of procedural frames (`moving.py`), whose true flow is known: to judge by, and to nothing else.

Letters: `b` the batch, `h w` pixels; `s` examples, `n` sampled signals of each, `k` directions.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int

from dfm_jax.config import Config
from dfm_jax.forward_models.motion import flow_colours, moving
from dfm_jax.forward_models.motion.model import Motion, MotionModel
from dfm_jax.forward_models.protocol import Params

# A signal has a direction if so many of the thing's pixels move by at least half of the slowest speed, and nearer than
# so to it (the cosine of 30 degrees).
SHARE_OF_PIXELS, NEAREST = 0.75, 0.866


@struct.dataclass
class Truth:
    """What lies behind a pair of frames; all 0 where training would see it."""

    flow: Float[Array, "b h w 2"]
    thing: Float[Array, "b h w"]  # 1 where it is in the earlier frame
    afterwards: Float[Array, "b h w 3"]  # the frame at time 2


@struct.dataclass
class Pair:
    """Two frames, one unit of time apart."""

    frame: Float[Array, "b h w 3"]
    later: Float[Array, "b h w 3"]
    truth: Truth
    index: Int[Array, "b"]


@dataclasses.dataclass(frozen=True)
class MovingModel(MotionModel):
    """The same model of motion, with examples of its own making."""

    attribute: ClassVar[str] = "direction"
    values: ClassVar[tuple[str, ...]] = moving.DIRECTIONS

    @classmethod
    def from_config(cls, config: Config) -> "MovingModel":
        return cls(config.model, config.model.moving.size)

    def frames(self, example: Pair) -> tuple[Float[Array, "b h w 3"], Float[Array, "b h w 3"]]:
        return example.frame, example.later

    def drop_context(self, example: Pair, dropped: Bool[Array, "b"]) -> Pair:
        return example.replace(frame=jnp.where(dropped[:, None, None, None], 0.0, example.frame))

    def generate(self, seed: int, index: Int[np.ndarray, "b"], *, held_out: bool = False) -> Pair:
        """Pairs of frames, and the truth about those that are held out."""
        things = moving.make_things(seed, index, self.size, held_out=held_out)
        frame, later = things.frame(0.0), things.frame(1.0)
        unknown = Truth(np.zeros_like(frame[..., :2]), np.zeros_like(frame[..., 0]), np.zeros_like(frame))
        truth = Truth(things.flow, things.thing, things.frame(2.0)) if held_out else unknown
        return Pair(frame, later, truth, np.asarray(index, np.int32))

    # --- what is known ----------------------------------------------------------------------------------------------

    def value_odds(self, example: Pair) -> Float[np.ndarray, "s k"]:
        return np.tile(moving.ODDS, (len(example.index), 1))

    def read_values(self, params: Params, example: Pair, signal: Motion) -> Int[np.ndarray, "s n"]:
        """The direction that the thing's pixels move in, if they move, and together; -1 otherwise."""
        flow, thing = np.asarray(signal.flow), np.asarray(example.truth.thing)[:, None, ..., None]
        speed = np.linalg.norm(flow, axis=-1, keepdims=True)
        along = flow @ moving.HEADINGS.T.astype(np.float32)  # [s, n, h, w, k]
        agrees = (along > NEAREST * speed) & (speed > 0.5 * moving.SPEEDS[0])
        share = np.sum(thing * agrees, axis=(2, 3)) / np.sum(thing, axis=(2, 3))
        return np.where(share.max(-1) >= SHARE_OF_PIXELS, share.argmax(-1), -1)

    def signal_errors(self, params: Params, example: Pair, signal: Motion) -> dict[str, Float[np.ndarray, "s n"]]:
        """Distances to the true flow, in pixels per unit of time, over the picture (`endpoint_error`) and over the
        thing; and root mean square errors, in [0, 1], of the frames at times 1 and 2."""
        distance = np.linalg.norm(np.asarray(signal.flow) - np.asarray(example.truth.flow)[:, None], axis=-1)
        thing = np.asarray(example.truth.thing)[:, None]
        found = {
            "endpoint_error": distance.mean((2, 3)),
            "endpoint_error_of_thing": np.sum(thing * distance, axis=(2, 3)) / np.sum(thing, axis=(2, 3)),
        }
        frames = np.stack([example.later, example.truth.afterwards], axis=1)[:, None]
        error = 0.5 * (self.observe_samples(params, signal, (1.0, 2.0)) - frames)
        of_times = np.sqrt(np.mean(np.square(error), axis=(3, 4, 5)))
        found |= {"warped_error_at_1": of_times[..., 0], "warped_error_at_2": of_times[..., 1]}
        return found

    def pictures(self, params: Params, example: Pair, signal: Motion) -> dict[str, np.ndarray]:
        truth = flow_colours.colours(np.asarray(example.truth.flow), moving.SPEEDS[1])[:, None]
        sampled = flow_colours.colours(np.asarray(signal.flow), moving.SPEEDS[1])
        return super().pictures(params, example, signal) | {"true flow": truth, "flow": sampled}
