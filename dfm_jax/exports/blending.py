"""Gaussians of an image's tiles, blended front to back, with the gradient written out.

Walking through the gaussians, one number a pixel is kept. Automatic differentiation would keep several of each gaussian
at each pixel, which takes ten times as long on a CPU as walking a second time does.

Letters: `t` tiles, `k` gaussians of a tile, `p` pixels of a tile, `c` channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

# What a gaussian adds to a pixel is neglected below the first and cut to the second (values of Kerbl et al.).
LEAST_ALPHA, MOST_ALPHA = 1 / 255, 0.99


class Layers(NamedTuple):
    """Ellipses over each tile, the nearest first: each is `opacity * exp(-q / 2)`."""

    xy: Array  # [k, t, 2] pixels
    conics: Array  # [k, t, 3] of q = a x^2 + 2 b x y + c y^2
    opacities: Array  # [k, t, 1]; 0 where there is none
    values: Array  # [k, t, c]


@jax.custom_vjp
def blend(layers: Layers, pixels: Float[Array, "t p 2"]) -> Float[Array, "t c p"]:
    """`sum_k value_k alpha_k prod_{j<k} (1 - alpha_j)` at each pixel."""

    def behind(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        passed, blended = carry
        layer = _layer(layers, k)
        alpha = _ellipse(layer, pixels).alpha
        return passed * (1 - alpha), blended + (passed * alpha)[:, None] * layer.values[..., None]

    tiles, pixels_each, _ = pixels.shape
    nothing = jnp.zeros((tiles, layers.values.shape[-1], pixels_each))
    return lax.fori_loop(0, _depth(layers), behind, (jnp.ones((tiles, pixels_each)), nothing))[1]


def _depth(layers: Layers) -> Array:
    """How many layers the tile with the most of them has: those behind are empty in all."""
    taken = jnp.any(layers.opacities > 0, axis=(1, 2))
    return jnp.max(jnp.where(taken, jnp.arange(1, len(taken) + 1), 0))


def _layer(layers: Layers, k: Array) -> Layers:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, k, keepdims=False), layers)


class _Ellipse(NamedTuple):
    """One layer at all pixels [t, p]."""

    x: Array
    y: Array
    falloff: Array  # exp(-q / 2)
    alpha: Array
    free: Array  # bool: alpha is neither neglected nor cut


def _ellipse(layer: Layers, pixels: Float[Array, "t p 2"]) -> _Ellipse:
    x, y = (pixels[..., i] - layer.xy[:, i, None] for i in range(2))
    a, b, c = (layer.conics[:, i, None] for i in range(3))
    falloff = jnp.exp(-0.5 * (a * x * x + 2 * b * x * y + c * y * y))
    raw = layer.opacities * falloff
    alpha = jnp.where(raw < LEAST_ALPHA, 0.0, jnp.minimum(raw, MOST_ALPHA))
    return _Ellipse(x, y, falloff, alpha, (raw >= LEAST_ALPHA) & (raw < MOST_ALPHA))


def _blend_forward(layers: Layers, pixels: Float[Array, "t p 2"]) -> tuple[Array, tuple[Layers, Array, Array]]:
    blended = blend(layers, pixels)
    return blended, (layers, pixels, blended)


def _blend_backward(kept: tuple[Layers, Array, Array], cotangent: Float[Array, "t c p"]) -> tuple[Layers, None]:
    """With `s_k = value_k . cotangent`, `T_k = prod_{j<k} (1 - alpha_j)` and `w_k = alpha_k T_k`, the derivative by
    alpha_k is `T_k s_k - sum_{j>k} w_j s_j / (1 - alpha_k)`. What lies behind is everything less what lies before."""
    layers, pixels, blended = kept
    everything = jnp.sum(cotangent * blended, axis=1)

    def behind(k: Array, carry: tuple[Array, Array, Layers]) -> tuple[Array, Array, Layers]:
        passed, before, gradients = carry
        layer = _layer(layers, k)
        it = _ellipse(layer, pixels)
        weight = passed * it.alpha
        shown = jnp.sum(layer.values[..., None] * cotangent, axis=1)
        before += weight * shown
        by_alpha = passed * shown - (everything - before) / (1 - it.alpha)
        by_alpha, by_values = jnp.where(it.free, by_alpha, 0.0), jnp.sum(weight[:, None] * cotangent, axis=-1)
        gradient = _of_layer(layer, it, by_alpha, by_values)
        put = lambda x, row: lax.dynamic_update_index_in_dim(x, row, k, 0)
        return passed * (1 - it.alpha), before, jax.tree.map(put, gradients, gradient)

    start = (jnp.ones(pixels.shape[:2]), jnp.zeros(pixels.shape[:2]), jax.tree.map(jnp.zeros_like, layers))
    return lax.fori_loop(0, _depth(layers), behind, start)[2], None


def _of_layer(layer: Layers, it: _Ellipse, by_alpha: Float[Array, "t p"], by_values: Float[Array, "t c"]) -> Layers:
    """The derivatives by what one layer is made of."""
    by_q = -0.5 * it.alpha * by_alpha
    forms = (it.x, it.y, it.x * it.x, it.x * it.y, it.y * it.y)
    x, y, xx, xy, yy = (jnp.sum(by_q * form, axis=-1) for form in forms)
    a, b, c = (layer.conics[:, i] for i in range(3))
    return Layers(
        xy=-2 * jnp.stack([a * x + b * y, b * x + c * y], axis=-1),
        conics=jnp.stack([xx, 2 * xy, yy], axis=-1),
        opacities=jnp.sum(by_alpha * it.falloff, axis=-1, keepdims=True),
        values=by_values,
    )


blend.defvjp(_blend_forward, _blend_backward)
