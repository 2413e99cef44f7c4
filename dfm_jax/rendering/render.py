"""Ray marching through any radiance field.

A field is a function of points `[b, r, s, 3]` that returns densities `[b, r, s]` (>= 0) and radiance
`[b, r, s, 3 + c]`: colour in [0, 1], then `c` features. Nothing here knows what the field is made of.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jaxtyping import Float

from dfm_jax.rendering.compositing import add_background, composite, volume_weights
from dfm_jax.rendering.ray_sampling import coarse_distances, deterministic_uniforms, importance_distances
from dfm_jax.structs import Rays, Rendering

Field = Callable[[Float[Array, "b r s 3"]], tuple[Float[Array, "b r s"], Float[Array, "b r s c"]]]


def _points(rays: Rays, distances: Float[Array, "b r s"]) -> Float[Array, "b r s 3"]:
    return rays.origins[:, :, None] + distances[..., None] * rays.directions[:, :, None]


def _integrate(density: Array, radiance: Array, distances: Array, background: float) -> Rendering:
    weights = volume_weights(density, distances)
    values = composite(weights, radiance)
    rgb = add_background(values[..., :3], weights, background)
    depth = jnp.sum(weights * distances, axis=-1)
    return Rendering(
        rgb=rgb, depth=depth, features=values[..., 3:], weights=weights, distances=distances, coarse_rgb=rgb
    )


def render_single_pass(
    field: Field, rays: Rays, near: Float[Array, "b"], far: Float[Array, "b"], *, num_samples: int, background: float
) -> Rendering:
    """Renders at `num_samples` even distances."""
    b, r, _ = rays.origins.shape
    distances = jnp.broadcast_to(coarse_distances(near, far, num_samples)[:, None], (b, r, num_samples))
    density, radiance = field(_points(rays, distances))
    return _integrate(density, radiance, distances, background)


def render_hierarchical(
    coarse_field: Field,
    fine_field: Field,
    rays: Rays,
    near: Float[Array, "b"],
    far: Float[Array, "b"],
    uniforms: Float[Array, "b r m"] | None,
    *,
    num_coarse: int,
    num_fine: int,
    background: float,
) -> Rendering:
    """Renders with importance sampling (NeRF, section 5.2).

    The coarse field's weights say where the fine samples go; the fine field is evaluated at coarse and fine distances
    together and integrated once. No gradient flows through the choice of the distances.

    Args:
      uniforms: numbers in [0, 1] that choose the fine distances, `m = num_fine`; None spaces them evenly, so that the
        same scene and camera always give the same image.
    """
    coarse = render_single_pass(coarse_field, rays, near, far, num_samples=num_coarse, background=background)
    if uniforms is None:
        uniforms = deterministic_uniforms(num_fine)[None, None]
    fine = importance_distances(coarse.distances, coarse.weights, uniforms)
    distances = lax.stop_gradient(jnp.sort(jnp.concatenate([coarse.distances, fine], axis=-1), axis=-1))
    density, radiance = fine_field(_points(rays, distances))
    return _integrate(density, radiance, distances, background).replace(coarse_rgb=coarse.coarse_rgb)


def in_chunks(render: Callable[..., Any], chunk_size: int, *inputs: Any) -> Any:
    """Runs `render` on `chunk_size` rays after another and joins what it returns; the result does not change.

    Args:
      render: from arrays `[b, r, ...]` (any number, any tree) to a tree of arrays `[b, r, ...]`.
      chunk_size: rays held in memory at once, per scene. A call of more rays is scanned, and each chunk is computed
        again in the backward pass instead of being kept; a call of no more than that runs as it is.
      *inputs: trees of arrays `[b, r, ...]`.
    """
    num_rays = jax.tree.leaves(inputs)[0].shape[1]
    if num_rays <= chunk_size:
        return render(*inputs)
    num_chunks = -(-num_rays // chunk_size)
    missing = num_chunks * chunk_size - num_rays

    def split(x: Array) -> Array:
        # The last chunk is filled up with copies of the last ray: those are ordinary rays, with finite gradients.
        padded = jnp.pad(x, [(0, 0), (0, missing)] + [(0, 0)] * (x.ndim - 2), mode="edge")
        return rearrange(padded, "b (n r) ... -> n b r ...", n=num_chunks)

    def join(x: Array) -> Array:
        return rearrange(x, "n b r ... -> b (n r) ...")[:, :num_rays]

    body = jax.checkpoint(partial(_apply, render))
    return jax.tree.map(join, lax.map(body, jax.tree.map(split, inputs)))


def _apply(render: Callable[..., Any], inputs: tuple) -> Any:
    return render(*inputs)
