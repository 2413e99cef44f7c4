"""pixelNeRF (Yu et al. 2021): the deterministic model that the paper's starts from, and its baseline.

It is the same forward model with the diffusion left out: the scene is inferred from the context views alone, so that
it is the average of all scenes that they could show. Training, sampling and evaluation treat it like any other model;
one denoising step is enough, since the noisy image is never looked at.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Key, Num

from dfm_jax.forward_models.protocol import Params
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.structs import Example, Rays, Scene


class PixelNeRF(RadianceFieldModel):
    """A scene from clean views only. Parameters: `encoder`, without the stem for noisy views, and `scene_field`."""

    def init(self, key: Key[Array, ""]) -> Params:
        keys = jax.random.split(key)
        return {"encoder": self._init_encoder(keys[0]), "scene_field": self._init_scene_field(keys[1])}

    def _init_encoder(self, key: Key[Array, ""]) -> Params:
        image = jnp.zeros((1, self.image_size, self.image_size, 3))
        variables = self.encoder.init(key, image, jnp.zeros((1,)), jnp.eye(4)[None, :3], method="encode_clean")
        return variables["params"]

    def encode_context(self, params: Params, example: Example) -> Example:
        """The context itself: it is encoded with the noise level."""
        return example

    def prepare_query(self, params: Params, context: Example, query: Rays, memory: int) -> Rays:
        return self.share(query)  # there is one denoising step

    def infer(self, params: Params, context: Example, x_t: Array, timestep: Num[Array, "b"]) -> tuple[Scene, Any]:
        """The scene seen in the context views; no estimate.

        The views are clean, but the networks are told the noise level of `x_t`: they learn to ignore it. A diffusion
        model that starts from them then finds every noise level known, where a network that has seen level 0 only
        would answer the others at random.
        """
        del x_t
        levels = jnp.broadcast_to(timestep[:, None], context.context.valid.shape)
        views = self.encode_views(self.bind_encoder(params), context.context, levels)
        return Scene(views, context.near, context.far), None

    def infer_from(self, params: Params, example: Example, x_t: Array, timestep: Num[Array, "b"]) -> tuple[Scene, Any]:
        return self.infer(params, example, x_t, timestep)
