"""What cameras see of scenes.

Letters: `b` scenes, `k` cameras that look at one, `h w` pixels. Rendering is deterministic here (no keys).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array

from dfm_jax.forward_models.radiance_field.rendered_scenes import RenderedScenes
from dfm_jax.forward_models.radiance_field.rendering import image_rays, render
from dfm_jax.structs import Camera, RenderedViews, Rendering, Scene

Params = dict[str, Any]


def render_views(
    params: Params, scene: Scene, camera: Camera, *, model: RenderedScenes, height: int, width: int
) -> RenderedViews:
    """What cameras [b, k] see of scenes [b]: views [b, k, h, w]."""
    num_cameras = camera.intrinsics.shape[1]
    rays = image_rays(camera, height, width, model.config.pixel_grid)  # [b, k, r]
    rays = jax.tree.map(lambda x: rearrange(x, "b k r xyz -> b (k r) xyz"), rays)
    rendering = render(params, model.networks, scene, rays)
    return to_views(rendering, num_cameras, height, width)


def to_views(rendering: Rendering, num_images: int, height: int, width: int) -> RenderedViews:
    """Images [b, k, h, w] from the rays of whole images, [b, k * h * w]."""
    opacity = jnp.sum(rendering.weights, axis=-1)
    split = partial(rearrange, pattern="b (k h w) ... -> b k h w ...", k=num_images, h=height, w=width)
    return RenderedViews(rgb=split(rendering.rgb), depth=split(rendering.depth), opacity=split(opacity))


def estimated_view(estimate: Rendering, model: RenderedScenes) -> RenderedViews:
    """The deterministic estimate [b, s * s] as views [b, h, w] of the model's image size, resized if it was rendered
    smaller."""
    rendered, size = model.config.estimate_size, model.image_size
    views = jax.tree.map(lambda x: x[:, 0], to_views(estimate, 1, rendered, rendered))

    def resize(x: Array) -> Array:
        return jax.image.resize(x, (x.shape[0], size, size, *x.shape[3:]), "bilinear")

    return jax.tree.map(resize, views)
