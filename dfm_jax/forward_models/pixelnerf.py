"""pixelNeRF (Yu et al. 2021): the deterministic model that the paper's starts from, and its baseline.

It is the same forward model with the diffusion left out: the scene is inferred from the context views alone, so that
it is the average of all scenes that they could show. Training, sampling and evaluation treat it like any other model;
one denoising step is enough, since the noisy image is never looked at.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Key, Num

from dfm_jax.forward_models.precision import with_products
from dfm_jax.forward_models.protocol import Inference, Params
from dfm_jax.forward_models.radiance_field.rendered_scenes import RenderedScenes
from dfm_jax.structs import Example, Rays, Scene


@dataclasses.dataclass(frozen=True)
class PixelNeRF(RenderedScenes):
    """A scene from clean views only. Parameters: `encoder`, without the stem for noisy views, and `scene_field`."""

    def init(self, key: Key[Array, ""]) -> Params:
        nets, keys = self.networks, jax.random.split(key)
        return {"encoder": nets.init_encoder(keys[0], noisy=False), "scene_field": nets.init_scene_field(keys[1])}

    def encode_context(self, params: Params, example: Example) -> Example:
        """The example itself: its context is encoded with the noise level."""
        return example

    @with_products
    def infer(self, params: Params, context: Example, x_t: Array, timestep: Num[Array, "b"]) -> Inference:
        """The scene seen in the context views; no estimate.

        The views are clean, but the networks are told the noise level of `x_t`: they learn to ignore it. A diffusion
        model that starts from them then finds every noise level known, where a network that has seen level 0 only
        would answer the others at random.
        """
        del x_t
        levels = jnp.broadcast_to(timestep[:, None], context.context.valid.shape)
        encoder = self.networks.bind_encoder(params)
        views = self.networks.encode_views(encoder, context.context, levels)
        return Inference(Scene(views, context.near, context.far), None)

    def cache(self, params: Params, context: Example, query: Rays, cache_bytes: int) -> Rays:
        return query  # there is one denoising step
