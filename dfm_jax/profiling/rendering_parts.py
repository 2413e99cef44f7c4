"""Pieces of rendering, each on its own: what a denoising step would take if the rest cost nothing."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array

from dfm_jax.flops import count_flops
from dfm_jax.forward_models.radiance_field.rendering import image_rays
from dfm_jax.geometry import pixel_grid
from dfm_jax.models.feature_lookup import lookup_features
from dfm_jax.profiling.programs import Inference, Part
from dfm_jax.rendering.ray_marching import in_chunks, render_coarse_to_fine
from dfm_jax.structs import Example, Rays, Rendering, Scene

DISPARITY = 0.3  # image widths between the first and the last sample of a ray in another view


def rendering_of_one_pixel(made: Inference) -> Part:
    """Rendering of a scene whose feature maps have one pixel, which is at hand wherever one looks."""
    whole = made.parts["rendering"]

    def function(params: object, scene: Scene, cache: object) -> Rendering:
        views = scene.views.replace(features=scene.views.features[:, :, :1, :1])
        return whole.function(params, scene.replace(views=views), cache)

    return Part(function, whole.arguments)


def lookups(made: Inference) -> Part:
    """As many lookups in the context views as the fine samples of all rays ask for, along straight lines."""
    marching, size = made.config.model.ray_marching, made.config.image_size
    along = jnp.linspace(0.0, DISPARITY, max(1, marching.num_fine))[:, None] * jnp.array([[1.0, 0.2]])

    def function(scene: Scene, x_t: Array) -> Array:
        maps = scene.views.features[:, :-1]
        pixel = rearrange(pixel_grid(size, size, "centres"), "h w xy -> 1 (h w) xy")
        pixel = pixel + 1e-6 * x_t.reshape(1, -1, 3)[..., :2]

        def look(pixel: Array) -> Array:
            uv = pixel[:, :, None] + along[None, None]
            uv = jnp.broadcast_to(uv[:, None], (1, maps.shape[1], *uv.shape[1:]))
            found = lookup_features(maps, rearrange(uv, "b v r s xy -> b v (r s) xy"), made.config.model.pixel_grid)
            return rearrange(sum(found[:, i] for i in range(found.shape[1])), "b (r s) c -> b r s c", s=len(along))

        return in_chunks(look, marching.chunk_size, pixel)

    return Part(function, ("encoder", "x_t"))


def marching(made: Inference) -> Part:
    """All of a rendering but its field, which is a plain function of the distance here: points, importance sampling,
    sorting, integration."""
    settings, model = made.config.model.ray_marching, made.config.model

    def field(rays: Rays, distances: Array) -> tuple[Array, Array]:
        wave = jnp.sin(3 * distances + rays.origins[..., :1])
        return jnp.maximum(wave, 0), jnp.stack([wave, wave, wave], -1)

    def function(example: Example) -> Rendering:
        camera = jax.tree.map(lambda x: x[:, 0], example.target.camera)
        rays = image_rays(camera, made.config.image_size, made.config.image_size, model.pixel_grid)

        def once(rays: Rays) -> Rendering:
            return render_coarse_to_fine(
                field, field, rays, example.near, example.far, None, num_coarse=settings.num_coarse,
                num_fine=settings.num_fine, background=settings.background,
            )  # fmt: skip

        return in_chunks(once, settings.chunk_size, rays)

    return Part(function, ("example",))


def chained_products(made: Inference) -> Part:
    """Products as large as those of the field's layers, one after the other, as many as rendering has operations."""
    settings, width = made.config.model.ray_marching, made.config.model.scene_field.width
    whole = made.parts["rendering"]
    num_rays, samples = made.config.image_size**2, settings.num_coarse
    flops = count_flops(whole.function, *map(made.shapes, whole.arguments))
    layers = max(1, round(flops / (2 * num_rays * samples * width**2)))

    def function(x_t: Array) -> Array:
        # Of the input, so that the compiler cannot know them.
        numbers = jnp.arange(layers * width**2, dtype=jnp.float32) * (1 + x_t[0, 0, 0, 0])
        kernels = (jnp.sin(numbers).reshape(layers, width, width) * (2 / width) ** 0.5).astype(
            made.model.networks.dtype
        )

        def chain(pixels: Array) -> Array:
            rows = pixels[:, :, :1] * jnp.arange(1.0, samples + 1)[None, None]
            x = jnp.sin(rows.reshape(-1, 1) * jnp.arange(1.0, width + 1)[None]).astype(made.model.networks.dtype)
            for layer in range(layers):
                x = jax.nn.relu(x @ kernels[layer])
            return jnp.max(x.reshape(*pixels.shape[:2], samples * width), axis=-1, keepdims=True)

        return in_chunks(chain, settings.chunk_size, x_t.reshape(1, -1, 3))

    return Part(function, ("x_t",))
