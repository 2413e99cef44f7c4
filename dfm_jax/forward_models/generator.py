"""Inversion of a generator: signals are latents of a frozen generator of pictures, seen in parts only.

Nobody ever sees a latent, nor a picture as a whole and in full: an example is a part of a picture in colour (the
context), all of the same picture in grey at half the resolution (the target that diffusion noises), and another part in
colour, which is supervised as well. What part that is, the example says. The sampled latents' pictures must agree with
the context, and show each digit that it could be as often as `glyphs.odds` say, though the generator (`glyph_decoder`)
knows strokes, and not which of them are digits.

Letters: `b` the batch, `z` numbers of a latent, `h w` pixels of a picture, `s n` examples and samples of each.
"""

import dataclasses
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, Key

from dfm_jax.config import Config, LossConfig
from dfm_jax.config.limits import Channels, Path, Range
from dfm_jax.config.model import ForwardModelConfig, settings_of
from dfm_jax.forward_models import glyph_decoder, glyphs
from dfm_jax.forward_models.protocol import Inference, Params, Prediction
from dfm_jax.forward_models.terms import Terms, mean_squared_error
from dfm_jax.models.embeddings import encoder_time_code
from dfm_jax.models.residual_mlp import ResidualMLP

TRAINING, HELD_OUT = 0, 1  # examples of the two do not repeat each other
BLOCK = 256  # examples whose random numbers are drawn at once
REDUCED = 2  # pixels a side that become one of the target
# Grey values of the target, that diffusion has in [-1, 1]: from the darkest background to ink.
GREY = (0.06, 0.63)
TIME_CODE = 64  # numbers


@settings_of("generator")
class GeneratorConfig(ForwardModelConfig):
    width: Channels  # of the networks that infer latents
    depth: Annotated[int, Range(1, 100)]  # residual blocks of each
    decoder_file: Path = ""  # the generator's weights; '': those that come with the package

    def rules_with(self, config: Any) -> list[tuple[bool, str]]:
        twice = bool(config.init_from and self.decoder_file)
        own = "init_from brings a generator of its own: leave model.decoder_file empty"
        return [*super().rules_with(config), (not twice, own)]


@struct.dataclass
class PartialPictures:
    """What is seen of some pictures, in [-1, 1]; what a view does not show is 0."""

    context: Float[Array, "b h w 3"]
    context_view: Int[Array, " b"]  # of `glyphs.VIEWS`
    has_context: Bool[Array, " b"]
    target: Float[Array, "b h/2 w/2 1"]
    part: Float[Array, "b h w 3"]
    part_view: Int[Array, " b"]
    # Where the picture is from, which is drawn again where samples are judged: seed, and TRAINING or HELD_OUT.
    origin: Int[Array, "b 2"]
    index: Int[Array, " b"]


@struct.dataclass
class Observation:
    """The target, and a part."""

    target: Float[Array, "b h/2 w/2 1"]
    part: Float[Array, "b h w 3"] | None


@struct.dataclass
class Estimate:
    """The target of the latent that the context alone tells, and the context again."""

    target: Float[Array, "b h/2 w/2 1"]
    context: Float[Array, "b h w 3"]


@dataclasses.dataclass(frozen=True)
class GeneratorModel:
    """A query is the number of a view [b], or None: the target alone."""

    width: int
    depth: int
    decoder_file: str = ""

    frozen: ClassVar[tuple[str, ...]] = ("generator",)
    attribute: ClassVar[str] = "digit"
    values: ClassVar[tuple[str, ...]] = glyphs.NAMES

    @classmethod
    def from_config(cls, config: Config) -> "GeneratorModel":
        return cls(config.model.width, config.model.depth, config.model.decoder_file)

    @property
    def _networks(self) -> dict[str, ResidualMLP]:
        return {
            "context_encoder": ResidualMLP(self.width, self.depth, self.width),
            "estimate": ResidualMLP(self.width, 1, glyph_decoder.LATENT),
            "denoiser": ResidualMLP(self.width, self.depth, glyph_decoder.LATENT),
        }

    def init(self, key: Key[Array, ""]) -> Params:
        """Raises UserError if the generator's weights cannot be read."""
        pixels = glyphs.SIDE**2
        code = self.width + 1
        sizes = (3 * pixels + len(glyphs.VIEWS) + 1, code, code + pixels // REDUCED**2 + TIME_CODE)
        keys = jax.random.split(key, len(sizes))
        new = {
            name: network.init(key, jnp.zeros((1, size)))["params"]
            for (name, network), key, size in zip(self._networks.items(), keys, sizes, strict=True)
        }
        return new | {"generator": jax.tree.map(jnp.asarray, glyph_decoder.load(self.decoder_file))}

    def encode_context(self, params: Params, example: PartialPictures) -> dict[str, Array]:
        """A code [b, c], and the latent [b, z] that the context alone tells."""
        seen = example.has_context[:, None]
        view = jax.nn.one_hot(example.context_view, len(glyphs.VIEWS)) * seen
        pixels = rearrange(example.context, "b h w c -> b (h w c)")
        code = self._apply(params, "context_encoder", jnp.concatenate([pixels, view, seen], axis=1))
        code = jnp.concatenate([code, seen], axis=1)
        return {"code": code, "latent": self._apply(params, "estimate", code), "view": example.context_view}

    def infer(
        self,
        params: Params,
        context: dict[str, Array],
        x_t: Float[Array, "b h/2 w/2 1"],
        timestep: Int[Array, " b"],
    ) -> Inference:
        """A latent [b, z]."""
        pixels = x_t.reshape(len(x_t), -1)
        seen = jnp.concatenate([context["code"], pixels, encoder_time_code(timestep, TIME_CODE)], axis=1)
        of_context = self.observe(params, context["latent"], context["view"])
        return Inference(self._apply(params, "denoiser", seen), Estimate(of_context.target, of_context.part))

    def observe(
        self, params: Params, signal: Float[Array, "b z"], query: Int[Array, " b"] | None, keys: Array | None = None
    ) -> Observation:
        return observe_pictures(glyph_decoder.decode(params["generator"], signal), query)

    def target(self, example: PartialPictures) -> tuple[Float[Array, "b h/2 w/2 1"], None]:
        return example.target, None

    def to_x0(self, observation: Observation | Estimate) -> Array:
        """The target [b, h/2, w/2, 1]; with a part, the numbers of both [b, d]."""
        if isinstance(observation, Estimate) or observation.part is None:
            return observation.target
        flat = lambda x: x.reshape(len(x), -1)
        return jnp.concatenate([flat(observation.target), flat(observation.part)], axis=1)

    def supervision(self, example: PartialPictures, keys: Key[Array, " b"]) -> tuple[Int[Array, " b"], Array]:
        """The target, and a part."""
        return example.part_view, self.to_x0(Observation(example.target, example.part))

    def drop_context(self, example: PartialPictures, dropped: Bool[Array, " b"]) -> PartialPictures:
        context = jnp.where(dropped[:, None, None, None], 0.0, example.context)
        return example.replace(context=context, has_context=example.has_context & ~dropped)

    def loss_terms(
        self, example: PartialPictures, prediction: Prediction, weights: LossConfig, perceptual: None = None
    ) -> Terms:
        """Squared errors, averaged over the target and over what a view shows."""
        of_part = lambda made, truth, view: _mean_seen((made - truth) ** 2, view)
        made, estimate = prediction.observation, prediction.estimate
        target = mean_squared_error(made.target, example.target)
        estimated = mean_squared_error(estimate.target, example.target)
        return {
            "target": target + of_part(made.part, example.part, example.part_view),
            "estimate": estimated + of_part(estimate.context, example.context, example.context_view),
        }

    def cache(self, params: Params, context: Any, query: None, cache_bytes: int) -> None:
        return query

    def _apply(self, params: Params, name: str, x: Array) -> Array:
        return self._networks[name].apply({"params": params[name]}, x)

    # --- its own examples, and the truth about them -----------------------------------------------------------------

    def generate(self, seed: int, index: Int[np.ndarray, " b"], *, held_out: bool = False) -> PartialPictures:
        """Parts of pictures, which do not leave this function as a whole: numpy arrays, functions of the seed and of
        each example's number alone."""
        index = np.asarray(index, np.int32)
        origin = np.tile(np.array([seed, HELD_OUT if held_out else TRAINING], np.int32), (len(index), 1))
        uniform = _uniform(origin, index)
        pictures = glyphs.render(glyphs.digits(uniform[:, :6])[0])
        views = (len(glyphs.VIEWS) * uniform[:, 6:]).astype(np.int32)
        context, part = (observe_pictures(pictures, view, np) for view in views.T)
        return PartialPictures(
            context=context.part,
            context_view=views[:, 0],
            has_context=np.ones(len(index), bool),
            target=part.target,
            part=part.part,
            part_view=views[:, 1],
            origin=origin,
            index=index,
        )

    def value_odds(self, example: PartialPictures) -> Float[np.ndarray, "s k"]:
        """Of the digits, given what the contexts show; without a context, of all."""
        digit = _truth(example)[1]
        given = glyphs.odds(digit, np.asarray(example.context_view))
        return np.where(np.asarray(example.has_context)[:, None], given, glyphs.PROBABILITIES)

    def read_values(self, params: Params, example: Any, signal: Float[Any, "s n z"]) -> Int[np.ndarray, "s n"]:
        return glyphs.read(self._decoded(params, signal)).reshape(signal.shape[:2])

    def signal_errors(
        self, params: Params, example: PartialPictures, signal: Float[Any, "s n z"]
    ) -> dict[str, Float[np.ndarray, "s n"]]:
        """Root mean square errors of the pictures, in [0, 1]: to the true ones, and to what the context shows."""
        made = self._decoded(params, signal).reshape(*signal.shape[:2], glyphs.SIDE, glyphs.SIDE, 3)
        error = (made - _truth(example)[0][:, None]) ** 2
        seen = glyphs.masks()[np.asarray(example.context_view)][:, None]
        of_context = (error.mean(-1) * seen).sum((2, 3)) / seen.sum((2, 3))
        return {"picture_error": np.sqrt(error.mean((2, 3, 4))), "context_error": np.sqrt(of_context)}

    def estimated_signal(self, params: Params, example: PartialPictures) -> Float[Array, "s z"]:
        return self.encode_context(params, example)["latent"]

    def pictures(self, params: Params, example: PartialPictures, signal: Any) -> dict[str, np.ndarray]:
        made = self._decoded(params, signal).reshape(*signal.shape[:2], glyphs.SIDE, glyphs.SIDE, 3)
        context = 0.5 * np.asarray(example.context) + 0.5
        return {"context": context[:, None], "truth": _truth(example)[0][:, None], "sample": made}

    def _decoded(self, params: Params, signal: Float[Any, "s n z"]) -> Float[np.ndarray, "m h w 3"]:
        return np.asarray(glyph_decoder.decode(params["generator"], rearrange(jnp.asarray(signal), "s n z -> (s n) z")))


def observe_pictures(pictures: Any, view: Any | None, xp: Any = jnp) -> Observation:
    """The target of pictures [b, h, w, 3] in [0, 1], and what they show in a view [b]; numpy or jax arrays."""
    grey = reduce(pictures, "b (h i) (w j) c -> b h w 1", "mean", i=REDUCED, j=REDUCED)
    target = (2 * grey - sum(GREY)) / (GREY[1] - GREY[0])
    if view is None:
        return Observation(target, None)
    shown = xp.asarray(glyphs.masks())[view][..., None]
    return Observation(target.astype(np.float32), xp.where(shown, 2 * pictures - 1, 0.0).astype(np.float32))


def _mean_seen(error: Float[Array, "b h w 3"], view: Int[Array, " b"]) -> Float[Array, " b"]:
    shown = jnp.asarray(glyphs.masks(), jnp.float32)
    return error.sum((1, 2, 3)) / (3 * shown.sum((1, 2)))[view]  # both are 0 where nothing is shown


def _truth(example: PartialPictures) -> tuple[Float[np.ndarray, "s h w 3"], Int[np.ndarray, " s"]]:
    """The whole pictures, and the digits that they show, drawn again."""
    drawn, digit = glyphs.digits(_uniform(np.asarray(example.origin), np.asarray(example.index))[:, :6])
    return glyphs.render(drawn), digit


def _uniform(origin: Int[np.ndarray, "b 2"], index: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b 8"]:
    """Numbers of examples, uniform in [0, 1); drawn in blocks, so that not every example needs a generator."""
    keys = np.concatenate([origin, index[:, None] // BLOCK], axis=1)
    blocks, inverse = np.unique(keys, axis=0, return_inverse=True)
    drawn = [np.random.default_rng(tuple(map(int, block))).uniform(size=(BLOCK, 8)) for block in blocks]
    return np.stack(drawn)[inverse.ravel(), index % BLOCK]
