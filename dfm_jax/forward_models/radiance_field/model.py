"""The forward model of the paper: a scene inferred from context views and a noisy target view."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct
from jax import Array
from jaxtyping import Float, Key, Num

from dfm_jax.forward_models.precision import with_products
from dfm_jax.forward_models.protocol import Inference, Params
from dfm_jax.forward_models.radiance_field.networks import BoundEncoder
from dfm_jax.forward_models.radiance_field.rendered_scenes import RenderedScenes
from dfm_jax.forward_models.radiance_field.rendering import add_view, cache_context_activations, estimate_image
from dfm_jax.geometry import pixel_grid
from dfm_jax.rendering.ray_marching import rays_per_chunk
from dfm_jax.structs import Camera, Example, RayCache, Rays, Rendering, Scene


@struct.dataclass
class EncodedContext:
    """What the context views tell of a scene, and of the target view."""

    scene: Scene  # of the context views alone
    estimate: Rendering  # [b, s * s] the deterministic estimate of target view 0
    estimate_channels: Array  # [b, h, w, k] the same, as the encoder takes it
    camera: Camera  # [b] of target view 0
    absolute_pose: Array  # [b, 3, 4]
    encoder: BoundEncoder  # of the context views


@dataclasses.dataclass(frozen=True)
class RadianceFieldModel(RenderedScenes):
    """Scenes as radiance fields, observed by volume rendering (the model of the paper)."""

    @property
    def further_channels(self) -> int:
        """What the encoder is given of a noisy view beside the view and its estimate."""
        return 0

    def init(self, key: Key[Array, ""]) -> Params:
        nets, keys = self.networks, jax.random.split(key, 3)
        return {
            "encoder": nets.init_encoder(keys[0], noisy=True, further_channels=self.further_channels),
            "conditioning_field": nets.init_field("conditioning_field", keys[1]),
            "scene_field": nets.init_scene_field(keys[2]),
        }

    @with_products
    def encode_context(self, params: Params, example: Example) -> EncodedContext:
        nets, target = self.networks, jax.tree.map(lambda x: x[:, 0], example.target)
        encoder = nets.bind_encoder(params)
        views = nets.encode_views(encoder, example.context, jnp.zeros(example.context.valid.shape))
        scene = Scene(views, example.near, example.far)
        estimate = self.recorded(estimate_image(params, nets, scene, target.camera), scene)
        channels = self._estimate_channels(estimate)
        bound = BoundEncoder(encoder, params)
        return EncodedContext(scene, estimate, channels, target.camera, target.absolute_pose, bound)

    @with_products
    def infer(
        self, params: Params, context: EncodedContext, x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> Inference:
        """The scene seen in the context views and one noisy target image in [-1, 1]; and the deterministic estimate
        `[b, s * s]` of that image, `s = estimate_size`."""
        encoder = self.networks.bind_encoder(params, after=context.encoder)
        inputs = jnp.concatenate([x_t, context.estimate_channels], axis=-1)
        features = encoder.encode_noisy(inputs, timestep, context.absolute_pose).astype(self.networks.dtype)
        views = add_view(context.scene.views, features, context.camera, timestep)
        return Inference(context.scene.replace(views=views), context.estimate)

    def target(self, example: Example) -> tuple[Float[Array, "b h w 3"], tuple[Rays, RayCache]]:
        """Target view 0 in [-1, 1], and the rays of its pixels, which are those of the scene's last view."""
        x0, rays = super().target(example)
        size = self.target_size
        xy = rearrange(pixel_grid(size, size, self.config.pixel_grid), "h w xy -> (h w) xy")
        pixel = jnp.broadcast_to(xy, (rays.origins.shape[0], *xy.shape))
        return x0, (rays, RayCache(pixel, {}))

    @with_products
    def cache(
        self, params: Params, context: EncodedContext, query: tuple[Rays, RayCache], cache_bytes: int
    ) -> tuple[Rays, RayCache]:
        """The rays, of which as many as `cache_bytes` hold have what the context views contribute along them.

        Context views are clean and the coarse distances never move: the half of the coarse and the fine MLP that looks
        at each of these views, and its average, are the same in all denoising steps.
        """
        nets, marching = self.networks, self.networks.ray_marching
        parts = nets.parts_at_even_distances
        width = sum(nets.part(part).config.width for part in parts)
        bytes_per_ray = marching.num_coarse * width * nets.dtype.itemsize
        rays, cache = query
        num_rays = rays.origins.shape[1]
        fitting = min(num_rays, cache_bytes // bytes_per_ray)
        if fitting < num_rays:
            fitting -= fitting % rays_per_chunk(marching.chunk_size, rays.origins.shape[0])  # whole chunks
        if not fitting:
            return query
        first = jax.tree.map(lambda x: x[:, :fitting], rays)
        activate = partial(cache_context_activations, params, nets, context.scene, context.camera, first)
        return rays, cache.replace(activations={part: activate(part) for part in parts})

    def _estimate_channels(self, estimate: Rendering) -> Float[Array, "b h w k"]:
        """`[colour in [-1, 1] 3 | distance 1 | features]`, at the size of the image."""
        size = self.config.estimate_size
        values = jnp.concatenate([2 * estimate.rgb - 1, estimate.depth[..., None], estimate.features], axis=-1)
        image = rearrange(values, "b (h w) k -> b h w k", h=size)
        if size != self.image_size:
            shape = (image.shape[0], self.image_size, self.image_size, image.shape[-1])
            image = jax.image.resize(image, shape, "bilinear")
        return image
