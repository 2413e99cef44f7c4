"""What the image encoders share: the code of a view's noise level (and, if asked for, of its absolute pose) that
modulates them, and the methods that they are called by.

Letters: `n` views, `h w` pixels, `k` input channels, `c` feature channels, `e` channels of the code.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Num

from dfm_jax.config import EncoderConfig
from dfm_jax.models.embeddings import encoder_time_code, pose_code

small = nn.initializers.normal(0.02)

# Collection of variables, mutable in a bound encoder: parameters that its next encoding takes instead of its own
# (the same numbers), so that their gradients are added up in place, see `stack.run_stack`.
THREADED_PARAMS = "threaded_params"


class Encoder(nn.Module):
    """Feature map of one view at one noise level, as large as its image.

    An encoder sets up `clean_stem` and `noisy_stem`, its first layers for the two kinds of input, and defines
    `_encode(stem, inputs, timestep, pose)`, which is all the rest.
    """

    config: EncoderConfig
    dtype: Any

    def encode_clean(
        self, images: Float[Array, "n h w 3"], timestep: Num[Array, "n"], pose: Float[Array, "n 3 4"]
    ) -> Float[Array, "n h w c"]:
        """Encodes images in [-1, 1]."""
        return self._encode(self.clean_stem, images, timestep, pose)

    def encode_noisy(
        self, inputs: Float[Array, "n h w k"], timestep: Num[Array, "n"], pose: Float[Array, "n 3 4"]
    ) -> Float[Array, "n h w c"]:
        """Encodes `[noisy image 3 | estimate's colour 3 | its distance 1 | its features]`, colours in [-1, 1]."""
        return self._encode(self.noisy_stem, inputs, timestep, pose)

    def __call__(self, clean: Array, noisy: Array, timestep: Array, pose: Array) -> tuple[Array, Array]:
        """Runs both stems; only there so that `init` makes all parameters."""
        return self.encode_clean(clean, timestep, pose), self.encode_noisy(noisy, timestep, pose)

    def _setup_conditioning(self, width: int) -> None:
        """The layers of `_conditioning`, for `setup`."""
        dense = lambda features, **kw: nn.Dense(features, dtype=self.dtype, **kw)
        self.time_in = dense(width, kernel_init=small)
        self.time_out = dense(width, kernel_init=small)
        if self.config.absolute_pose:
            self.pose_in, self.pose_out = dense(width), dense(width)
            self.fuse_in, self.fuse_out = dense(2 * width), dense(width)

    def _conditioning(self, timestep: Array, pose: Array) -> Float[Array, "n e"]:
        c = self.time_out(nn.silu(self.time_in(encoder_time_code(timestep))))
        if self.config.absolute_pose:
            p = self.pose_out(nn.relu(self.pose_in(pose_code(pose))))
            c = self.fuse_out(nn.relu(self.fuse_in(jnp.concatenate([c, p], axis=-1))))
        return c
