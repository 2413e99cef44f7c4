"""What models of scenes have in common: signals are radiance fields, and observing is volume rendering."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Bool, Float, Int, Key, Shaped

from dfm_jax.config import Config, LossConfig, ModelConfig, SampleConfig
from dfm_jax.config.marching import MarchingLevel
from dfm_jax.forward_models.precision import with_products
from dfm_jax.forward_models.protocol import Params, Prediction
from dfm_jax.forward_models.radiance_field.losses import rendering_terms
from dfm_jax.forward_models.radiance_field.networks import Savings, SceneNetworks
from dfm_jax.forward_models.radiance_field.rendering import image_rays, render
from dfm_jax.forward_models.radiance_field.supervision import Supervision, sample_pixels
from dfm_jax.forward_models.terms import Terms, mean_squared_error
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.models.feature_lookup import lookup_features
from dfm_jax.structs import Camera, Example, RayCache, Rays, RenderedViews, Rendering, Scene

MID_GREY = 0.5


@dataclasses.dataclass(frozen=True)
class RenderedScenes:
    """Base of the models of scenes, which infer them from views in different ways."""

    networks: SceneNetworks
    trained_on: Supervision

    @classmethod
    def of(cls, model: ModelConfig, image_size: int, loss: LossConfig) -> "RenderedScenes":
        """With these settings."""
        return cls(SceneNetworks(model, image_size), Supervision.of(loss))

    @classmethod
    def from_config(cls, config: Config) -> "RenderedScenes":
        return cls.of(config.model, config.image_size, config.loss)

    @property
    def config(self) -> ModelConfig:
        return self.networks.config

    @property
    def image_size(self) -> int:
        """Side of the images that diffusion runs on, pixels."""
        return self.networks.image_size

    @property
    def target_size(self) -> int:
        """Side of the image that target view 0 is rendered at, pixels."""
        return self.image_size // self.networks.savings.stride

    def saving(self, sample: SampleConfig) -> "RenderedScenes":
        """The same, rendering without the work that sampling leaves out at all noise levels."""
        return self._saving(Savings(sample.coarse_pass, sample.kept_samples))

    def at_level(self, level: MarchingLevel) -> "RenderedScenes":
        """The same, rendering as denoising steps of a level of the marching schedule do. Target view 0 is observed by
        one ray in each square of `stride` pixels; `to_x0` makes the whole image of these."""
        return self._saving(dataclasses.replace(self.networks.savings, level=level))

    def _saving(self, savings: Savings) -> "RenderedScenes":
        return dataclasses.replace(self, networks=dataclasses.replace(self.networks, savings=savings))

    @with_products
    def observe(
        self, params: Params, signal: Scene, query: Rays | tuple[Rays, RayCache], keys: Key[Array, "b"] | None = None
    ) -> Rendering:
        """Colour (and depth) along rays."""
        rays, cache = query if isinstance(query, tuple) else (query, None)
        return self.recorded(render(params, self.networks, signal, rays, keys, cache), signal)

    def recorded(self, rendering: Rendering, scene: Scene) -> Rendering:
        """A rendering whose colour is what the target views' cameras record: colour."""
        del scene
        return rendering

    @property
    def background(self) -> float | Float[Array, "3"]:
        """What they record where nothing stops a ray, in [0, 1]."""
        return self.config.background

    def truth(self, example: Example) -> Float[Array, "b t h w 3"]:
        """What they recorded, in [-1, 1]."""
        return 2 * example.target.images - 1

    def target(self, example: Example) -> tuple[Float[Array, "b h w 3"], Rays]:
        """Target view 0 in [-1, 1], and the rays of its pixels."""
        camera = jax.tree.map(lambda x: x[:, 0], example.target.camera)
        size = self.target_size
        return self.truth(example)[:, 0], image_rays(camera, size, size, self.config.pixel_grid)

    def to_x0(self, observation: Rendering) -> Float[Array, "b r 3"]:
        x0 = 2 * observation.rgb - 1
        return x0 if self.target_size == self.image_size else self._upsample(x0)

    def _upsample(self, x0: Float[Array, "b r 3"]) -> Float[Array, "b p 3"]:
        """All pixels of the target, between those that were rendered."""
        grid, size = self.config.pixel_grid, self.target_size
        uv = rearrange(pixel_grid(self.image_size, self.image_size, grid), "h w xy -> 1 1 (h w) xy")
        uv = jnp.broadcast_to(uv, (x0.shape[0], *uv.shape[1:]))
        return lookup_features(rearrange(x0, "b (h w) c -> b 1 h w c", h=size), uv, grid)[:, 0]

    def supervision(self, example: Example, keys: Key[Array, "b"]) -> tuple[Any, Float[Array, "b r 3"]]:
        """Rays through some pixels of all target views, `r = t * patch_size^2`, and their colours in [-1, 1]."""
        num_views, size = example.target.images.shape[1], self.image_size
        draw = partial(sample_pixels, num_views=num_views, image_size=size, supervision=self.trained_on)
        return self.supervision_at(example, jax.vmap(draw)(keys))

    def supervision_at(self, example: Example, pixels: Int[Array, "b t p"]) -> tuple[Rays, Float[Array, "b r 3"]]:
        """The same of given pixels, row-major indices."""
        size = self.image_size
        xy = rearrange(pixel_grid(size, size, self.config.pixel_grid), "h w xy -> (h w) xy")[pixels]
        rays = cast_rays(example.target.camera, xy)
        rays = jax.tree.map(lambda x: rearrange(x, "b t r c -> b (t r) c"), rays)
        return rays, self._at_pixels(self.truth(example), pixels)

    def _at_pixels(self, images: Shaped[Array, "b t h w c"], pixels: Int[Array, "b t p"]) -> Shaped[Array, "b r c"]:
        rows = rearrange(images, "b t h w c -> b t (h w) c")
        return rearrange(jnp.take_along_axis(rows, pixels[..., None], axis=2), "b t p c -> b (t p) c")

    def drop_context(self, example: Example, dropped: Bool[Array, "b"]) -> Example:
        """Context views are mid-grey where they are dropped."""
        images = jnp.where(dropped[:, None, None, None, None], MID_GREY, example.context.images)
        return example.replace(context=example.context.replace(images=images))

    @with_products
    def render(self, params: Params, signal: Scene, camera: Camera, height: int, width: int) -> RenderedViews:
        """What cameras [b, k] see of scenes [b]: views [b, k, h, w]. Rendering is deterministic here."""
        num_cameras = camera.intrinsics.shape[1]
        rays = image_rays(camera, height, width, self.config.pixel_grid)  # [b, k, r]
        rays = jax.tree.map(lambda x: rearrange(x, "b k r xyz -> b (k r) xyz"), rays)
        rendering = render(params, self.networks, signal, rays)
        return _to_views(rendering, num_cameras, height, width)

    def estimated_view(self, estimate: Rendering) -> RenderedViews:
        """The deterministic estimate as views [b, h, w] of the model's image size, resized if it was rendered
        smaller."""
        rendered, size = self.config.estimate_size, self.image_size
        views = jax.tree.map(lambda x: x[:, 0], _to_views(estimate, 1, rendered, rendered))

        def resize(x: Array) -> Array:
            return jax.image.resize(x, (x.shape[0], size, size, *x.shape[3:]), "bilinear")

        return jax.tree.map(resize, views)

    def loss_terms(
        self,
        example: Example,
        prediction: Prediction,
        weights: LossConfig,
        perceptual: Callable[[Array, Array], Array] | None = None,
    ) -> Terms:
        """`target`; `estimate` of models that make one; and what only renderings have, see `rendering_terms`."""
        terms = {"target": mean_squared_error(self.to_x0(prediction.observation), prediction.truth)}
        if prediction.estimate is not None:
            terms["estimate"] = self.estimate_error(example, prediction.estimate)
        rendering, truth = prediction.observation, prediction.truth
        return terms | rendering_terms(rendering, truth, example.near, example.far, weights, perceptual)

    def estimate_error(self, example: Example, estimate: Rendering) -> Float[Array, "b"]:
        return mean_squared_error(self.to_x0(estimate), self.estimate_truth(example))

    def estimate_truth(self, example: Example) -> Float[Array, "b r 3"]:
        """The target view in [-1, 1], at the size of the deterministic estimate."""
        size = self.config.estimate_size
        image = self.truth(example)[:, 0]
        if size != self.image_size:
            image = jax.image.resize(image, (image.shape[0], size, size, 3), "bilinear")
        return rearrange(image, "b h w c -> b (h w) c")


def _to_views(rendering: Rendering, num_images: int, height: int, width: int) -> RenderedViews:
    """Images [b, k, h, w] from the rays of whole images, [b, k * h * w]."""
    opacity = jnp.sum(rendering.weights, axis=-1)
    split = partial(rearrange, pattern="b (k h w) ... -> b k h w ...", k=num_images, h=height, w=width)
    return RenderedViews(rgb=split(rendering.rgb), depth=split(rendering.depth), opacity=split(opacity))
