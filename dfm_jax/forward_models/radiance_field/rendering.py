"""Rendering of inferred scenes: fields bound to a scene's feature maps, and the ray marcher run on them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array
from jaxtyping import Float, Int, Key, Num

from dfm_jax.forward_models.radiance_field.networks import Params, SceneNetworks
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.models.activations import JOINT, OF_VIEWS
from dfm_jax.models.radiance_field import ProjectedFeatures, RadianceField
from dfm_jax.rendering.compaction import Compaction
from dfm_jax.rendering.ray_marching import (
    even_distances,
    in_chunks,
    points_along,
    render_by_itself,
    render_by_proposal,
    render_coarse_to_fine,
    render_single_pass,
)
from dfm_jax.structs import Camera, EncodedViews, RayCache, Rays, Rendering, Scene

# Names of activations that chunks keep for the backward pass: those of the estimate, and those of the scene.
KEPT: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "distances": ((), ()),
    "estimate": ((OF_VIEWS, JOINT), ()),
    "joint": ((OF_VIEWS, JOINT), (JOINT,)),
    "all": ((OF_VIEWS, JOINT), (OF_VIEWS, JOINT)),
}


def add_view(
    views: EncodedViews, features: Float[Array, "b h w c"], camera: Camera, timestep: Num[Array, "b"]
) -> EncodedViews:
    """The views and one more (last), which is valid."""
    last = EncodedViews(features, camera, timestep.astype(views.timestep.dtype), jnp.ones(timestep.shape, bool))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b[:, None]], axis=1), views, last)


@dataclasses.dataclass(frozen=True)
class BoundField:
    """One MLP of a field, bound to a scene: functions of rays and distances, as ray marching asks for them."""

    net: RadianceField
    params: Params
    features: ProjectedFeatures
    pixel: Float[Array, "b r 2"] | None = None  # of the rays that it will be asked about, see `RayCache`
    cached: Float[Array, "b r n d"] | None = None  # activations at the first `n` of the distances

    @classmethod
    def of(cls, params: Params, net: RadianceField, views: EncodedViews) -> "BoundField":
        """To be called before anything transforms what will ask it: feature maps are projected here."""
        return cls(net, params, net.apply({"params": params}, views, method="project_features"))

    def along(self, cache: RayCache | None, cached_part: str) -> "BoundField":
        """The field for the rays of a cache, in which its activations have the name `cached_part`."""
        if cache is None:
            return self
        return dataclasses.replace(self, pixel=cache.pixel, cached=cache.activations.get(cached_part))

    def without_cache(self) -> "BoundField":
        """Of activations, for other distances than theirs."""
        return dataclasses.replace(self, cached=None)

    def density(self, rays: Rays, distances: Float[Array, "b r s"]) -> Float[Array, "b r s"]:
        return self._ask("density", rays, distances)

    def colour(self, rays: Rays, distances: Float[Array, "b r s"]) -> tuple[Array, Array]:
        """Density and colour."""
        return self._ask("colour", rays, distances)

    def radiance(self, rays: Rays, distances: Float[Array, "b r s"]) -> tuple[Array, Array]:
        """Density and `[colour | rendered features]`."""
        return self._ask("radiance", rays, distances)

    def colour_of_samples(
        self, rays: Rays, distances: Float[Array, "b r s"], index: Int[Array, "b n"]
    ) -> tuple[Float[Array, "b n"], Float[Array, "b n 3"]]:
        """Density and colour of some samples alone, which are numbered as in `[r, s]`; without what is cached."""
        ray = index // distances.shape[2]
        of_samples = partial(jax.tree.map, jax.vmap(lambda x, i: x[i]))
        along = lambda tree: of_samples(tree, jax.tree.map(lambda _: ray, tree))
        alone = dataclasses.replace(self.without_cache(), pixel=along(self.pixel))
        flat = rearrange(distances, "b r s -> b (r s)")
        density, colour = alone.colour(along(rays), jnp.take_along_axis(flat, index, axis=1)[..., None])
        return density[..., 0], colour[..., 0, :]

    def _ask(self, method: str, rays: Rays, distances: Float[Array, "b r s"]) -> Any:
        def ask(distances: Array, context: Array | None) -> Any:
            points = points_along(rays, distances)
            return self.net.apply({"params": self.params}, self.features, points, self.pixel, context, method=method)

        num_cached = 0 if self.cached is None else self.cached.shape[2]
        if num_cached in (0, distances.shape[2]):
            return ask(distances, self.cached)
        parts = ask(distances[..., :num_cached], self.cached), ask(distances[..., num_cached:], None)
        return jax.tree.map(lambda *x: jnp.concatenate(x, axis=2), *parts)


def cache_context_activations(
    params: Params, nets: SceneNetworks, context: Scene, camera: Camera, rays: Rays, part: str
) -> Float[Array, "b r s d"]:
    """What the context views contribute to the MLP `part` of the scene field at the coarse distances of target rays.

    Args:
      context: the scene of the context views alone.
      camera: `[b]` of the target.
    """
    net, variables = nets.part(part), {"params": params["scene_field"][part]}
    # The noisy view is not known yet, but it has a weight in the average.
    blank = jnp.zeros_like(context.views.features[:, 0])
    all_views = add_view(context.views, blank, camera, jnp.zeros(context.near.shape))
    features = net.apply(variables, all_views, method="project_features").some_views(slice(-1))

    def aggregate(rays: Rays) -> Array:
        distances = even_distances(rays, context.near, context.far, nets.ray_marching.num_coarse)
        return net.apply(variables, features, points_along(rays, distances), method="aggregate_context_views")

    return in_chunks(aggregate, nets.ray_marching.chunk_size, rays)


def image_rays(camera: Camera, height: int, width: int, grid: str) -> Rays:
    """Rays through all pixels of an image, row-major: `r = height * width`."""
    xy = rearrange(pixel_grid(height, width, grid), "h w xy -> 1 (h w) xy")
    return cast_rays(camera, xy)


def estimate_image(params: Params, nets: SceneNetworks, context: Scene, camera: Camera) -> Rendering:
    """The deterministic estimate: the context alone, through the conditioning field, in a single pass."""
    marching = nets.ray_marching
    field = BoundField.of(params["conditioning_field"], nets.field("conditioning_field"), context.views).radiance
    settings = {"num_samples": marching.num_conditioning, "background": marching.background}
    size = nets.config.estimate_size
    rays = image_rays(camera, size, size, nets.config.pixel_grid)
    once = lambda rays: render_single_pass(field, rays, context.near, context.far, **settings)
    return in_chunks(once, marching.chunk_size, rays, kept=KEPT[marching.keep][0])


def render(
    params: Params,
    nets: SceneNetworks,
    scene: Scene,
    rays: Rays,
    keys: Key[Array, "b"] | None = None,
    cache: RayCache | None = None,
) -> Rendering:
    """Colour and depth of the scene along `rays [b, r]`.

    Args:
      keys: one per scene, for the importance samples; None places them deterministically.
      cache: of these rays.
    """
    num_rays, num_fine = rays.origins.shape[1], nets.ray_marching.num_fine
    uniforms = None
    if keys is not None and num_fine:
        uniforms = jax.vmap(lambda key: jax.random.uniform(key, (num_rays, num_fine)))(keys)
        if nets.config.proposal is not None:  # few samples must not leave gaps: one in each of as many equal parts
            uniforms = (jnp.arange(num_fine).reshape(1, 1, -1) + uniforms) / num_fine
    return render_with_uniforms(params, nets, scene, rays, uniforms, cache)


def render_with_uniforms(
    params: Params,
    nets: SceneNetworks,
    scene: Scene,
    rays: Rays,
    uniforms: Float[Array, "b r m"] | None,
    cache: RayCache | None = None,
) -> Rendering:
    """`render`, with the importance samples' uniform numbers given (None: deterministic)."""
    march = _ray_marcher(params, nets, scene)
    marching = nets.ray_marching
    run = lambda *inputs: in_chunks(march, marching.chunk_size, *inputs, kept=KEPT[marching.keep][1])
    cached = cache.activations.values() if cache else ()
    num_cached = next((x.shape[1] for x in cached), 0)
    if num_cached in (0, rays.origins.shape[1]):
        return run(rays, uniforms, cache)
    # Activations were kept of the first rays alone.
    of_rays = (rays, uniforms, cache.replace(activations={}))
    first, rest = (jax.tree.map(lambda x, s=s: x[:, s], of_rays) for s in (slice(num_cached), slice(num_cached, None)))
    renderings = run(*first[:2], first[2].replace(activations=cache.activations)), run(*rest)
    return jax.tree.map(lambda *x: jnp.concatenate(x, axis=1), *renderings)


def _ray_marcher(
    params: Params, nets: SceneNetworks, scene: Scene
) -> Callable[[Rays, Array | None, RayCache | None], Rendering]:
    """What renders the scene along rays `[b, r]`, by uniform numbers `[b, r, m]` and with a cache: in the layout that
    the networks were made for."""
    marching, savings = nets.ray_marching, nets.savings
    parts = {
        part: BoundField.of(params["scene_field"][part], nets.part(part), scene.views) for part in nets.marched_parts
    }
    settings = {"near": scene.near, "far": scene.far, "background": marching.background}
    fine_settings = settings | {"num_coarse": marching.num_coarse, "num_fine": marching.num_fine}

    def march(rays: Rays, uniforms: Array | None, cache: RayCache | None) -> Rendering:
        fields = {part: field.along(cache, part) for part, field in parts.items()}
        first, fine = (fields[nets.marched_parts[i]] for i in (0, -1))
        if not marching.num_fine:
            return render_single_pass(first.colour, rays, num_samples=marching.num_coarse, **settings)
        how = fine_settings | {"uniforms": uniforms}
        if savings.kept_samples < 1:
            how["compaction"] = Compaction(savings.kept_samples, fine.colour_of_samples)
        if "proposal" in fields:
            return render_by_proposal(first.density, fine.colour, rays, **how)
        if len(fields) == 1:
            return render_by_itself(first.colour, fine.without_cache().colour, rays, **how)
        return render_coarse_to_fine(first.colour, fine.colour, rays, **how)

    return march
