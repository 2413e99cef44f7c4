"""Rendering of inferred scenes: fields bound to a scene's feature maps, and the ray marcher run on them."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float, Key, Num

from dfm_jax.forward_models.radiance_field.networks import Params, SceneNetworks
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.models.radiance_field import RadianceField
from dfm_jax.rendering.ray_marching import (
    Field,
    even_distances,
    in_chunks,
    points_along,
    render_hierarchical,
    render_single_pass,
)
from dfm_jax.structs import Camera, EncodedViews, Rays, Rendering, Scene


def add_view(
    views: EncodedViews, features: Float[Array, "b h w c"], camera: Camera, timestep: Num[Array, "b"]
) -> EncodedViews:
    """The views and one more (last), which is valid."""
    last = EncodedViews(features, camera, timestep.astype(views.timestep.dtype), jnp.ones(timestep.shape, bool))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, None]], axis=1), views, last)


def bind_field(params: Params, net: RadianceField, scene: Scene, outputs: str = "all") -> Callable[[str | None], Field]:
    """The field as a plain function of rays and distances, bound before anything transforms it.

    Args:
      outputs: 'density', 'colour' or 'all', see `RadianceField.query`.
    Returns:
      a function that makes the field: of None; or of the name of what `rays.context` knows at the distances that it
      will be asked about.
    """
    variables = {"params": params}
    prepared = net.apply(variables, scene.views, method="prepare")

    def make(known: str | None = None) -> Field:
        def field(rays: Rays, distances: Float[Array, "b r s"]) -> tuple[Array, Array]:
            context = rays.context[known] if known and rays.context else None
            points = points_along(rays, distances)
            return net.apply(variables, prepared, points, rays.pixel, context, outputs, method="query")

        return field

    return make


def gather_context(
    params: Params, nets: SceneNetworks, clean: Scene, camera: Camera, rays: Rays, part: str
) -> Float[Array, "b r s d"]:
    """What the context views say at the coarse distances of target rays, to the MLP `part` of the scene field.

    Args:
      clean: the scene of the context views alone.
      camera: `[b]` of the target.
    """
    net, variables = nets.part(part), {"params": params["scene_field"][part]}
    # The noisy view is not known yet, but it has a weight in the average.
    blank = jnp.zeros_like(clean.views.features[:, 0])
    all_views = add_view(clean.views, blank, camera, jnp.zeros(clean.near.shape))
    views = net.apply(variables, all_views, method="prepare").views(slice(-1))

    def gather(rays: Rays) -> Array:
        distances = even_distances(rays, clean.near, clean.far, nets.config.ray_marching.num_coarse)
        return net.apply(variables, views, points_along(rays, distances), method="gather_some")

    return in_chunks(gather, nets.config.ray_marching.chunk_size, rays)


def image_rays(camera: Camera, height: int, width: int, grid: str) -> Rays:
    """Rays through all pixels of an image, row-major: `r = height * width`."""
    xy = rearrange(pixel_grid(height, width, grid), "h w xy -> 1 (h w) xy")
    return cast_rays(camera, xy)


def estimate_image(params: Params, nets: SceneNetworks, context: Scene, camera: Camera) -> Rendering:
    """The deterministic estimate: the context alone, through the conditioning field, in a single pass."""
    marching = nets.config.ray_marching
    field = bind_field(params["conditioning_field"], nets.field("conditioning_field"), context)()
    settings = {"num_samples": marching.num_conditioning, "background": marching.background}
    size = nets.config.estimate_size
    rays = image_rays(camera, size, size, nets.config.pixel_grid)
    once = lambda rays: render_single_pass(field, rays, context.near, context.far, **settings)
    return in_chunks(once, marching.chunk_size, rays)


def render(
    params: Params,
    nets: SceneNetworks,
    scene: Scene,
    rays: Rays | tuple[Rays, ...],
    keys: Key[Array, "b"] | None = None,
    *,
    outputs: str = "all",
    coarse_colour: bool = True,
) -> Rendering:
    """What the scene looks like along `rays [b, r]`, or along several sets of them, joined.

    Args:
      keys: one per scene, for the importance samples; None places them deterministically.
      outputs: 'all', or 'colour' for a rendering without features.
      coarse_colour: whether to render what the coarse field alone sees, where there is a fine pass.
    """
    sets = rays if isinstance(rays, tuple) else (rays,)
    ends = np.cumsum([rays.origins.shape[1] for rays in sets])
    num_fine = nets.config.ray_marching.num_fine
    uniforms = [None] * len(sets)
    if keys is not None and num_fine:
        drawn = jax.vmap(lambda key: jax.random.uniform(key, (ends[-1], num_fine)))(keys)
        if nets.config.proposal is not None:  # few samples must not leave gaps: one in each of as many equal parts
            drawn = (jnp.arange(num_fine).reshape(1, 1, -1) + drawn) / num_fine
        uniforms = jnp.split(drawn, ends[:-1], axis=1)
    run = partial(render_with_uniforms, params, nets, scene, outputs=outputs, coarse_colour=coarse_colour)
    rendered = [run(rays, u) for rays, u in zip(sets, uniforms, strict=True)]
    return rendered[0] if len(sets) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *rendered)


def render_with_uniforms(
    params: Params,
    nets: SceneNetworks,
    scene: Scene,
    rays: Rays,
    uniforms: Float[Array, "b r m"] | None,
    *,
    outputs: str = "all",
    coarse_colour: bool = True,
) -> Rendering:
    """`render` along one set of rays, with the importance samples' uniform numbers given (None: deterministic)."""
    marching = nets.config.ray_marching
    bind = lambda part, outputs: bind_field(params["scene_field"][part], nets.part(part), scene, outputs)
    first, with_proposal = nets.scene_parts[0], nets.config.proposal is not None
    if not marching.num_fine:
        single = partial(render_single_pass, num_samples=marching.num_coarse, background=marching.background)
        field = bind("coarse", outputs)("coarse")
        return in_chunks(lambda r: single(field, r, scene.near, scene.far), marching.chunk_size, rays)
    coarse_outputs = "colour" if coarse_colour and not with_proposal else "density"
    coarse, fine = bind(first, coarse_outputs), bind("fine", outputs)
    double = partial(
        render_hierarchical,
        coarse(first),
        fine(None),
        near=scene.near,
        far=scene.far,
        num_coarse=marching.num_coarse,
        num_fine=marching.num_fine,
        background=marching.background,
        fine_field_at_coarse=fine("fine") if rays.context and not with_proposal else None,
        fine_only=with_proposal,
    )
    return in_chunks(lambda r, u: double(r, uniforms=u), marching.chunk_size, rays, uniforms)


def render_image(
    params: Params,
    nets: SceneNetworks,
    scene: Scene,
    camera: Camera,
    keys: Key[Array, "b"] | None = None,
    size: int | None = None,
) -> Rendering:
    """The whole square image of `camera [b]`, row-major, `r = size * size` (default: the model's image size)."""
    size = size or nets.image_size
    rays = image_rays(camera, size, size, nets.config.pixel_grid)
    return render(params, nets, scene, rays, keys)
