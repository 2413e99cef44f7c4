"""Scenes of which the target views are no whole pictures: cameras there record depth, silhouettes or grey, or only a
part of a picture.

It is the paper's model with another camera at the end: what diffusion noises, what training compares and what denoising
steps predict is what that camera records of the inferred scene. The context stays pictures (of views with masks, what
they let see). Of what no camera records nothing is learnt: a model of depth maps has no colours.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Num

from dfm_jax.config import ModelConfig
from dfm_jax.config.model import settings_of
from dfm_jax.forward_models.protocol import Inference, Params
from dfm_jax.forward_models.radiance_field.model import EncodedContext, RadianceFieldModel
from dfm_jax.forward_models.radiance_field.observations import RECORDS, Seen, record
from dfm_jax.forward_models.terms import mean_squared_error
from dfm_jax.structs import Camera, Example, Rays, RenderedViews, Rendering, Scene, Views

MASKED = "masked"
MASKS = ("masks", "random_masks")  # of `config.data.measured`
NEEDED = {"depth": "depth", "silhouette": "opacity"}  # what is recorded, and what data must know for it
HIDDEN = 0.0  # in diffusion's range, of what is not observed
WHOLLY = 1 - 1e-3  # share of a larger pixel that is observed, but for rounding


@settings_of("partial_views")
class PartialViewsConfig(ModelConfig):
    takes_measurements = True

    name: Literal["partial_views"]
    # What the cameras of target views record: 'grey', 'depth' or 'silhouette', or several of these at once, joined by
    # '+'; with 'masked' no more of it than masks let see ('masked' alone: of colours).
    observation: str

    @property
    def recorded(self) -> tuple[str, ...]:
        """Names of RECORDS; none: colours."""
        return tuple(name for name in self.observation.split("+") if name != MASKED)

    @property
    def masked(self) -> bool:
        return MASKED in self.observation.split("+")

    def rules(self) -> list[tuple[bool, str]]:
        names, known = self.observation.split("+"), (*RECORDS, MASKED)
        return [
            *super().rules(),
            (
                set(names) <= set(known) and len(set(names)) == len(names),
                f"observation must be some of {', '.join(known)}, joined by '+', not {self.observation!r}",
            ),
        ]

    def rules_with(self, config: Any) -> list[tuple[bool, str]]:
        told, chosen = config.data.measurements if config.data else (), f"model.observation={self.observation!r}"
        rules = [
            (measured in told, f"{chosen} needs data.measured={measured!r}")
            for name, measured in NEEDED.items()
            if name in self.recorded
        ]
        masks = [name for name in MASKS if name in told]
        return [
            *super().rules_with(config),
            *rules,
            (bool(masks) >= self.masked, f"{chosen} needs data.measured='masks' or 'random_masks'"),
            (bool(masks) <= self.masked, f"data.measured={'+'.join(told)!r} needs model.observation='masked'"),
            (config.loss.coarse == 0, "loss.coarse must be 0 with model.name='partial_views': it compares colours"),
            (
                config.sample.autoregressive_step == 0 or not self.recorded,
                f"sample.autoregressive_step must be 0 with {chosen}, which is no picture that could be context",
            ),
        ]


@struct.dataclass
class PartlySeen:
    """Rays, and which of them are observed."""

    rays: Rays
    observed: Bool[Array, "b r"]


@dataclasses.dataclass(frozen=True)
class PartialViews(RadianceFieldModel):
    """Observations, `x0` among them, are laid out as pictures (`observations.py`), grey where nothing is observed. With
    masks the encoder is told which pixels of the noisy view are; where an example says nothing, as those to sample
    from, all are."""

    @property
    def further_channels(self) -> int:
        return int(self.config.masked)

    @property
    def in_colour(self) -> bool:
        return not self.config.recorded

    @property
    def background(self) -> Float[Array, "3"]:
        nothing, all_of_it = jnp.zeros(()), jnp.ones(())
        behind = jnp.full(3, self.config.background)
        return record(self.config.recorded, Seen(behind, all_of_it, opacity=nothing, near=nothing, far=all_of_it))

    def recorded_truth(self, views: Views, near: Array, far: Array) -> Float[Array, "*batch 3"]:
        """What the target views' cameras record of true views, in [0, 1]; nothing is masked. NaN where it is not
        known."""
        return record(self.config.recorded, Seen.of_truth(views, near, far))

    def recorded(self, rendering: Rendering, scene: Scene) -> Rendering:
        views = RenderedViews(rendering.rgb, rendering.depth, jnp.sum(rendering.weights, axis=-1))
        return rendering.replace(rgb=self._record(views, scene.near[:, None], scene.far[:, None]))

    def truth(self, example: Example) -> Float[Array, "b t h w 3"]:
        near, far = (x[:, None, None, None] for x in (example.near, example.far))
        recorded = 2 * self.recorded_truth(example.target, near, far) - 1
        return jnp.where(self._observed(example)[..., None], recorded, HIDDEN) if self.config.masked else recorded

    def encode_context(self, params: Params, example: Example) -> EncodedContext:
        context = super().encode_context(params, example)
        if not self.config.masked:
            return context
        observed = self._observed(example)[:, 0, ..., None].astype(context.estimate_channels.dtype)
        channels = jnp.concatenate([context.estimate_channels, observed], axis=-1)
        return context.replace(estimate_channels=channels)

    def infer(
        self, params: Params, context: EncodedContext, x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> Inference:
        if self.config.masked:
            x_t = jnp.where(context.estimate_channels[..., -1:] > 0, x_t, HIDDEN)
        return super().infer(params, context, x_t, timestep)

    def supervision_at(
        self, example: Example, pixels: Int[Array, "b t p"]
    ) -> tuple[Rays | PartlySeen, Float[Array, "b r 3"]]:
        rays, truth = super().supervision_at(example, pixels)
        if not self.config.masked:
            return rays, truth
        observed = self._at_pixels(self._observed(example)[..., None], pixels)
        return PartlySeen(rays, observed[..., 0]), truth

    def observe(self, params: Params, signal: Scene, query: Any, keys: Key[Array, "b"] | None = None) -> Rendering:
        if not isinstance(query, PartlySeen):
            return super().observe(params, signal, query, keys)
        rendering = super().observe(params, signal, query.rays, keys)
        return rendering.replace(rgb=jnp.where(query.observed[..., None], rendering.rgb, (HIDDEN + 1) / 2))

    def render(self, params: Params, signal: Scene, camera: Camera, height: int, width: int) -> RenderedViews:
        """What cameras like those of the target views, but without masks, record of scenes."""
        views = super().render(params, signal, camera, height, width)
        near, far = (x[:, None, None, None] for x in (signal.near, signal.far))
        return views.replace(rgb=self._record(views, near, far))

    def estimate_error(self, example: Example, estimate: Rendering) -> Float[Array, "b"]:
        if not self.config.masked:
            return super().estimate_error(example, estimate)
        shown = self._estimate_observed(example)[..., None]
        seen, truth = self.to_x0(estimate), self.estimate_truth(example)
        return mean_squared_error(jnp.where(shown, seen, 0), jnp.where(shown, truth, 0))

    def _record(self, views: RenderedViews, near: Array, far: Array) -> Float[Array, "*batch 3"]:
        return record(self.config.recorded, Seen.of_views(views, near, far))

    def _observed(self, example: Example) -> Bool[Array, "b t h w"]:
        known = example.target.measured
        if known is None or known.observed is None:
            return jnp.ones(example.target.images.shape[:-1], bool)
        return known.observed

    def _estimate_observed(self, example: Example) -> Bool[Array, "b r"]:
        """Of the pixels of the deterministic estimate those that are observed as a whole."""
        size, observed = self.config.estimate_size, self._observed(example)[:, 0].astype(jnp.float32)
        share = jax.image.resize(observed, (observed.shape[0], size, size), "bilinear")
        return rearrange(share > WHOLLY, "b h w -> b (h w)")
