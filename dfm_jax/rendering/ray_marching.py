"""Ray marching through any radiance field, in one pass or in the two layouts that say where to look: coarse to fine, as
in NeRF (Mildenhall et al. 2020), or by a proposal, as in mip-NeRF 360 (Barron et al. 2022).

A field is a function of rays and distances along them `[b, r, s]` that returns densities `[b, r, s]` (>= 0) and
radiance `[b, r, s, 3 + c]`: colour in [0, 1], then `c` features. A proposal returns densities alone. Nothing here knows
what they are made of.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Float

from dfm_jax.rendering.compaction import Compaction, expected_weights
from dfm_jax.rendering.compositing import add_background, composite, volume_weights
from dfm_jax.rendering.ray_sampling import coarse_distances, deterministic_uniforms, importance_distances
from dfm_jax.structs import Rays, Rendering

Field = Callable[[Rays, Float[Array, "b r s"]], tuple[Float[Array, "b r s"], Float[Array, "b r s k"]]]
Proposal = Callable[[Rays, Float[Array, "b r s"]], Float[Array, "b r s"]]

# What a chunk always keeps for its backward pass: where it looked. So the coarse pass is not repeated to find out.
KEPT = "fine_distances"
# Rays that are rendered at once where that is left to the program, over all scenes: what was fastest (docs/gpu.md,
# docs/performance.md; of TPUs nothing is known). Each scene gets at least the last number.
RAYS_AT_ONCE = {"cpu": 64, "gpu": 4096}
RAYS_AT_ONCE_ELSEWHERE = 1024
FEWEST_RAYS = 64


def points_along(rays: Rays, distances: Float[Array, "b r s"]) -> Float[Array, "b r s 3"]:
    return rays.origins[:, :, None] + distances[..., None] * rays.directions[:, :, None]


@jax.named_scope("compositing")
def _integrate(density: Array, radiance: Array, distances: Array, background: float) -> Rendering:
    weights = volume_weights(density, distances)
    values = composite(weights, radiance)
    rgb = add_background(values[..., :3], weights, background)
    depth = jnp.sum(weights * distances, axis=-1)
    return Rendering(rgb=rgb, depth=depth, features=values[..., 3:], weights=weights, distances=distances)


def even_distances(rays: Rays, near: Float[Array, "b"], far: Float[Array, "b"], count: int) -> Float[Array, "b r s"]:
    b, r, _ = rays.origins.shape
    return jnp.broadcast_to(coarse_distances(near, far, count)[:, None], (b, r, count))


def render_single_pass(
    field: Field, rays: Rays, near: Float[Array, "b"], far: Float[Array, "b"], *, num_samples: int, background: float
) -> Rendering:
    """Renders at `num_samples` even distances."""
    distances = even_distances(rays, near, far, num_samples)
    density, radiance = field(rays, distances)
    rendering = _integrate(density, radiance, distances, background)
    return rendering.replace(coarse_rgb=rendering.rgb)


def render_coarse_to_fine(
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
    compaction: Compaction | None = None,
) -> Rendering:
    """Renders with importance sampling (NeRF, section 5.2).

    The coarse field's weights say where the fine samples go; the fine field is evaluated at the coarse and the fine
    distances together, in this order, and integrated once. No gradient flows through the choice of the distances.

    Args:
      uniforms: numbers in [0, 1] that choose the fine distances, `m = num_fine`; None spaces them evenly, so that the
        same scene and camera always give the same image.
      compaction: with the fine field in it, which is then evaluated at a share of the distances.
    """
    distances = even_distances(rays, near, far, num_coarse)
    density, radiance = coarse_field(rays, distances)
    weights = volume_weights(density, distances)
    coarse_rgb = add_background(composite(weights, radiance[..., :3]), weights, background)
    everywhere = jnp.concatenate([distances, _fine_distances(distances, weights, uniforms, num_fine)], axis=-1)
    expected = lambda: expected_weights(distances, density, everywhere)
    fine = _evaluate(fine_field, compaction, rays, everywhere, expected)
    return _integrate_unsorted(*fine, everywhere, background).replace(coarse_rgb=coarse_rgb)


def render_by_itself(
    field_at_even: Field,
    field: Field,
    rays: Rays,
    near: Float[Array, "b"],
    far: Float[Array, "b"],
    uniforms: Float[Array, "b r m"] | None,
    *,
    num_coarse: int,
    num_fine: int,
    background: float,
    compaction: Compaction | None = None,
) -> Rendering:
    """Renders a field whose own weights at `num_coarse` even distances say where its `num_fine` other samples go. All
    are integrated once: what a coarse field would cost is saved.

    Args:
      field_at_even: the field, which may have something cached at the even distances.
      uniforms: see `render_coarse_to_fine`.
      compaction: with the field in it, which is then evaluated at a share of the fine distances.
    """
    distances = even_distances(rays, near, far, num_coarse)
    density, radiance = field_at_even(rays, distances)
    fine = _fine_distances(distances, volume_weights(density, distances), uniforms, num_fine)
    everywhere = jnp.concatenate([distances, fine], axis=-1)
    expected = lambda: expected_weights(distances, density, everywhere)[..., num_coarse:]
    found = _evaluate(field, compaction, rays, fine, expected)
    joined = (jnp.concatenate(parts, axis=2) for parts in zip((density, radiance), found, strict=True))
    return _integrate_unsorted(*joined, everywhere, background)


def render_by_proposal(
    proposal: Proposal,
    field: Field,
    rays: Rays,
    near: Float[Array, "b"],
    far: Float[Array, "b"],
    uniforms: Float[Array, "b r m"] | None,
    *,
    num_coarse: int,
    num_fine: int,
    background: float,
    compaction: Compaction | None = None,
) -> Rendering:
    """Renders with a proposal (mip-NeRF 360, section 3): its weights at `num_coarse` even distances say where the field
    is evaluated, and they are returned with the rendering. No gradient flows through the choice of the distances.

    Args:
      uniforms, compaction: see `render_coarse_to_fine`.
    """
    distances = even_distances(rays, near, far, num_coarse)
    density = proposal(rays, distances)
    weights = volume_weights(density, distances)
    fine = jnp.sort(_fine_distances(distances, weights, uniforms, num_fine), axis=-1)
    found = _evaluate(field, compaction, rays, fine, lambda: expected_weights(distances, density, fine))
    return _integrate(*found, fine, background).replace(proposal=(weights, distances))


def _evaluate(
    field: Field,
    compaction: Compaction | None,
    rays: Rays,
    distances: Float[Array, "b r s"],
    expected: Callable[[], Float[Array, "b r s"]],
) -> tuple[Float[Array, "b r s"], Float[Array, "b r s k"]]:
    """A field at all distances; or, with a compaction, where most weight is expected."""
    return field(rays, distances) if compaction is None else compaction(rays, distances, expected())


@jax.named_scope("importance_sampling")
def _fine_distances(
    distances: Float[Array, "b r s"], weights: Float[Array, "b r s"], uniforms: Array | None, num_fine: int
) -> Float[Array, "b r m"]:
    if uniforms is None:
        uniforms = deterministic_uniforms(num_fine)[None, None]
    return checkpoint_name(lax.stop_gradient(importance_distances(distances, weights, uniforms)), KEPT)


@jax.named_scope("compositing")
def _integrate_unsorted(density: Array, radiance: Array, distances: Array, background: float) -> Rendering:
    """As `_integrate`, for distances in any order: the weights are sorted back, and not the wide radiance."""
    order = jnp.argsort(distances, axis=-1)
    ascending = jnp.take_along_axis(distances, order, axis=-1)
    weights = volume_weights(jnp.take_along_axis(density, order, axis=-1), ascending)
    values = composite(jnp.take_along_axis(weights, jnp.argsort(order, axis=-1), axis=-1), radiance)
    rgb = add_background(values[..., :3], weights, background)
    depth = jnp.sum(weights * ascending, axis=-1)
    return Rendering(rgb=rgb, depth=depth, features=values[..., 3:], weights=weights, distances=ascending)


def rays_per_chunk(chunk_size: int, num_scenes: int, platform: str = "") -> int:
    """Rays of each scene that are rendered at once: `chunk_size`; where that is 0, as suits the platform (by default
    the one jax runs on)."""
    if chunk_size:
        return chunk_size
    at_once = RAYS_AT_ONCE.get(platform or jax.default_backend(), RAYS_AT_ONCE_ELSEWHERE)
    return max(FEWEST_RAYS, at_once // num_scenes)


def in_chunks(render: Callable[..., Any], chunk_size: int, *inputs: Any, kept: Sequence[str] = ()) -> Any:
    """Runs `render` on `chunk_size` rays after another and joins what it returns; the result does not change.

    Args:
      render: from arrays `[b, r, ...]` (any number, any tree) to a tree of arrays `[b, r, ...]`.
      chunk_size: rays held in memory at once, per scene; 0: as suits the platform. A call of more rays is scanned, and
        each chunk is computed again in the backward pass instead of being kept (but for its distances); a call of no
        more than that runs as it is.
      *inputs: trees of arrays `[b, r, ...]`.
      kept: names (`jax.ad_checkpoint.checkpoint_name`) of what the backward pass need not compute again either.
    """
    num_scenes, num_rays = jax.tree.leaves(inputs)[0].shape[:2]
    chunk_size = rays_per_chunk(chunk_size, num_scenes)
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

    keep = jax.checkpoint_policies.save_only_these_names(KEPT, *kept)
    # Inside a loop nothing can be merged with what the backward pass computes again: no barrier is needed.
    body = jax.checkpoint(partial(_apply, render), policy=keep, prevent_cse=False)
    return jax.tree.map(join, lax.map(body, jax.tree.map(split, inputs)))


def _apply(render: Callable[..., Any], inputs: tuple) -> Any:
    return render(*inputs)
