"""The forward model for 3D scenes: signals are radiance fields, and observing is volume rendering."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import struct
from jax import Array
from jaxtyping import Bool, Float, Key, Num

from dfm_jax.config import LossConfig
from dfm_jax.forward_models.radiance_field.networks import Params, SceneNetworks
from dfm_jax.forward_models.radiance_field.rendering import add_view, estimate_image, gather_context, image_rays, render
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.models.encoder import Encoder
from dfm_jax.structs import Camera, Example, Rays, Rendering, Scene

MID_GREY = 0.5


@struct.dataclass
class EncodedContext:
    """What the context views tell of a scene, and of the target view."""

    scene: Scene  # of the context views alone
    estimate: Rendering  # [b, s * s] the deterministic estimate of target view 0
    estimate_channels: Array  # [b, h, w, k] the same, as the encoder takes it
    camera: Camera  # [b] of target view 0
    absolute_pose: Array  # [b, 3, 4]


@dataclasses.dataclass(frozen=True)
class RadianceFieldModel(SceneNetworks):
    """Scenes as radiance fields, observed by volume rendering (the model of the paper)."""

    loss: LossConfig

    def encode_context(self, params: Params, example: Example) -> EncodedContext:
        return self._encode_context(params, self.bind_encoder(params), example)

    def _encode_context(self, params: Params, encoder: Encoder, example: Example) -> EncodedContext:
        views = self.encode_views(encoder, example.context, jnp.zeros(example.context.valid.shape))
        scene = Scene(views, example.near, example.far)
        target = jax.tree.map(lambda x: x[:, 0], example.target)
        estimate = estimate_image(params, self, scene, target.camera)
        channels = self._estimate_channels(estimate)
        return EncodedContext(scene, estimate, channels, target.camera, target.absolute_pose)

    def infer(
        self, params: Params, context: EncodedContext, x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> tuple[Scene, Rendering]:
        """The scene seen in the context views and one noisy target image in [-1, 1]; and the deterministic estimate
        `[b, s * s]` of that image, `s = estimate_size`."""
        return self._infer(self.bind_encoder(params), context, x_t, timestep)

    def _infer(self, encoder: Encoder, context: EncodedContext, x_t: Array, timestep: Array) -> tuple[Scene, Rendering]:
        inputs = jnp.concatenate([x_t, context.estimate_channels], axis=-1)
        features = encoder.encode_noisy(inputs, timestep, context.absolute_pose).astype(self.dtype)
        views = add_view(context.scene.views, features, context.camera, timestep)
        return context.scene.replace(views=views), context.estimate

    def infer_from(
        self, params: Params, example: Example, x_t: Float[Array, "b h w 3"], timestep: Num[Array, "b"]
    ) -> tuple[Scene, Rendering]:
        encoder = self.bind_encoder(params)  # one for both: see there
        return self._infer(encoder, self._encode_context(params, encoder, example), x_t, timestep)

    def forward(
        self, params: Params, signal: Scene, query: Rays | tuple[Rays, ...], keys: Key[Array, "b"] | None = None
    ) -> Rendering:
        """Colour (and depth) along rays, or several sets of them joined."""
        return render(params, self, signal, query, keys, outputs="colour", coarse_colour=self.loss.coarse > 0)

    # --- what ties it to an example -----------------------------------------------------------------------------

    def target(self, example: Example) -> tuple[Float[Array, "b h w 3"], Rays]:
        camera = jax.tree.map(lambda x: x[:, 0], example.target.camera)
        size = self.image_size
        return 2 * example.target.images[:, 0] - 1, image_rays(camera, size, size, self.config.pixel_grid)

    def prepare_query(
        self, params: Params, context: EncodedContext, query: Rays, memory: int
    ) -> Rays | tuple[Rays, ...]:
        """Target rays with their pixels, and as many as `memory` holds with what the context views say along them.

        Context views are clean and the coarse distances never move: the half of the coarse and the fine MLP that looks
        at each of these views, and its average, are the same in all denoising steps.
        """
        xy = rearrange(pixel_grid(self.image_size, self.image_size, self.config.pixel_grid), "h w xy -> (h w) xy")
        query = self.share(query.replace(pixel=jnp.broadcast_to(xy, (query.origins.shape[0], *xy.shape))))
        marching = self.config.ray_marching
        # A scene field that is guided by a proposal is never evaluated at the coarse distances.
        parts = self.scene_parts if self.config.proposal is None else ("proposal",)
        width = sum(self.part(part).config.width for part in parts)
        bytes_per_ray = marching.num_coarse * width * self.dtype.itemsize
        num_rays = query.origins.shape[1]
        fitting = min(num_rays, memory // bytes_per_ray)
        if fitting < num_rays:
            fitting -= fitting % marching.chunk_size  # whole chunks
        first, rest = (jax.tree.map(lambda x, s=s: x[:, s], query) for s in (slice(fitting), slice(fitting, None)))
        if not fitting:
            return query
        known = first.replace(
            context={part: gather_context(params, self, context.scene, context.camera, first, part) for part in parts}
        )
        return known if fitting == num_rays else (known, rest)

    def share(self, query: Rays) -> Rays:
        """Those of the target's rays that this device renders: all, unless several do it together."""
        return query

    def supervision(self, example: Example, keys: Key[Array, "b"]) -> tuple[Rays, Float[Array, "b r 3"]]:
        """Rays through some pixels of all target views, `r = t * patch_size^2`, and their colours in [-1, 1]."""
        num_views, size = example.target.images.shape[1], self.image_size
        draw = partial(draw_pixels, num_views=num_views, image_size=size, loss=self.loss)
        pixels = jax.vmap(draw)(keys)
        rows = rearrange(example.target.images, "b t h w c -> b t (h w) c")
        truth = jnp.take_along_axis(rows, pixels[..., None], axis=2)
        xy = rearrange(pixel_grid(size, size, self.config.pixel_grid), "h w xy -> (h w) xy")[pixels]
        rays = cast_rays(example.target.camera, xy)
        flat = lambda x: rearrange(x, "b t r c -> b (t r) c")
        return jax.tree.map(flat, rays), 2 * flat(truth) - 1

    def estimate_target(self, example: Example) -> Float[Array, "b r 3"]:
        size = self.config.estimate_size
        image = 2 * example.target.images[:, 0] - 1
        if size != self.image_size:
            image = jax.image.resize(image, (image.shape[0], size, size, 3), "bilinear")
        return rearrange(image, "b h w c -> b (h w) c")

    def to_x0(self, observation: Rendering) -> Float[Array, "b r 3"]:
        return 2 * observation.rgb - 1

    def drop_context(self, example: Example, dropped: Bool[Array, "b"]) -> Example:
        images = jnp.where(dropped[:, None, None, None, None], MID_GREY, example.context.images)
        return example.replace(context=example.context.replace(images=images))

    # --- parts --------------------------------------------------------------------------------------------------

    def _estimate_channels(self, estimate: Rendering) -> Float[Array, "b h w k"]:
        """`[colour in [-1, 1] 3 | distance 1 | features]`, at the size of the image."""
        size = self.config.estimate_size
        values = jnp.concatenate([2 * estimate.rgb - 1, estimate.depth[..., None], estimate.features], axis=-1)
        image = rearrange(values, "b (h w) k -> b h w k", h=size)
        if size != self.image_size:
            shape = (image.shape[0], self.image_size, self.image_size, image.shape[-1])
            image = jax.image.resize(image, shape, "bilinear")
        return image


def draw_pixels(key: Key[Array, ""], *, num_views: int, image_size: int, loss: LossConfig) -> Num[Array, "t r"]:
    """Row-major indices of the pixels of each target view that a loss looks at: one patch, or independent pixels."""
    count = loss.patch_size**2
    if loss.pixels == "random":
        return jax.random.randint(key, (num_views, count), 0, image_size**2)
    corner = jax.random.randint(key, (num_views, 2), 0, image_size - loss.patch_size + 1)
    return patch_pixels(corner[:, 0], corner[:, 1], loss.patch_size, image_size)


def patch_pixels(top: Num[Array, "t"], left: Num[Array, "t"], size: int, image_size: int) -> Num[Array, "t r"]:
    """Row-major indices of square patches, `r = size * size`."""
    offset = jnp.arange(size)
    rows, columns = top[:, None, None] + offset[None, :, None], left[:, None, None] + offset[None, None]
    return rearrange(rows * image_size + columns, "t i j -> t (i j)")
