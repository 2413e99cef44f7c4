"""The image encoder: a diffusion transformer (DiT, Peebles and Xie 2023) with a convolutional stem and a
high-resolution path, from one (clean or noisy) view to a feature map of the same size.

Letters: `n` views, `h w` pixels, `k` tokens (one for 4 x 4 pixels), `d` transformer width, `c` feature channels.
"""

from typing import Any

import jax.numpy as jnp
from einops import rearrange
from flax import linen as nn
from jax import Array, lax
from jaxtyping import Float

from dfm_jax.models.attention import attend
from dfm_jax.models.embeddings import token_position_code
from dfm_jax.models.encoder import THREADED_PARAMS, Encoder
from dfm_jax.models.patch_convolution import PatchConv
from dfm_jax.models.stack import run_stack

STEM_CHANNELS = 64
MLP_RATIO = 4
TOKEN_SIDE = 4  # pixels
xavier = nn.initializers.xavier_uniform()
zeros = nn.initializers.zeros_init()


def _modulate(x: Array, shift: Array, scale: Array) -> Array:
    return x * (1 + scale[:, None]) + shift[:, None]


def upsample(x: Array, axis: int) -> Array:
    """Twice as many samples along an axis, by linear interpolation between their centres; beyond the border is what
    lies at it.

    `jax.image.resize` gives the same by matrix products of full precision, which are many on a TPU.
    """
    first, last = lax.slice_in_dim(x, 0, 1, axis=axis), lax.slice_in_dim(x, x.shape[axis] - 1, None, axis=axis)
    before = jnp.concatenate([first, lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)], axis)
    after = jnp.concatenate([lax.slice_in_dim(x, 1, None, axis=axis), last], axis)
    twice = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    return twice.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


class TransformerBlock(nn.Module):
    """Self-attention and MLP, each behind an adaptive LayerNorm whose gate starts closed (adaLN-zero)."""

    num_heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Float[Array, "n k d"], c: Float[Array, "n d"]) -> tuple[Float[Array, "n k d"], None]:
        d = x.shape[-1]
        norm = lambda y: nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=self.dtype)(y)
        modulation = nn.Dense(6 * d, kernel_init=zeros, dtype=self.dtype, name="modulation")(nn.silu(c))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)

        h = nn.Dense(3 * d, kernel_init=xavier, dtype=self.dtype, name="qkv")(_modulate(norm(x), shift_a, scale_a))
        q, k, v = rearrange(h, "n k (three heads e) -> three n k heads e", three=3, heads=self.num_heads)
        # Parameters are asked for before processes have joined, when nothing may look at devices; attention has none.
        h = v if self.is_initializing() else attend(q, k, v)
        h = rearrange(h, "n k heads e -> n k (heads e)")
        x = x + gate_a[:, None] * nn.Dense(d, kernel_init=xavier, dtype=self.dtype, name="attention_out")(h)

        h = nn.Dense(MLP_RATIO * d, kernel_init=xavier, dtype=self.dtype, name="mlp_in")(
            _modulate(norm(x), shift_m, scale_m)
        )
        h = nn.Dense(d, kernel_init=xavier, dtype=self.dtype, name="mlp_out")(nn.gelu(h, approximate=True))
        return x + gate_m[:, None] * h, None


class DiTEncoder(Encoder):
    """The encoder of the paper; its config is a `DiTConfig`."""

    def setup(self) -> None:
        config, dtype = self.config, self.dtype
        dense = lambda features, **kw: nn.Dense(features, dtype=dtype, **kw)
        # A view that is clean brings 3 channels; a noisy target also brings what the estimate rendered for it.
        self.clean_stem = PatchConv(STEM_CHANNELS, 7, stride=2, use_bias=False, dtype=dtype)
        self.noisy_stem = PatchConv(STEM_CHANNELS, 7, stride=2, use_bias=False, dtype=dtype)
        self.patch_embedding = nn.Conv(config.width, (2, 2), strides=2, padding="VALID", dtype=dtype)
        self._setup_conditioning(config.width)
        self.blocks = nn.scan(
            TransformerBlock,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.depth,
        )(num_heads=config.num_heads, dtype=dtype)
        self.final_modulation = dense(2 * config.width, kernel_init=zeros)
        self.final_norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, dtype=dtype)
        self.final = dense(4 * config.features)
        self.skip = PatchConv(STEM_CHANNELS, 7, dtype=dtype)
        self.refine = nn.Conv(config.features, (3, 3), padding=1, dtype=dtype)

    def _encode(self, stem: nn.Module, inputs: Array, timestep: Array, pose: Array) -> Float[Array, "n h w c"]:
        tokens = self.patch_embedding(nn.relu(stem(inputs)))
        rows, columns = tokens.shape[1:3]
        position_code = token_position_code(rows, columns, self.config.width, self.config.position_grid)
        x = rearrange(tokens, "n i j d -> n (i j) d") + position_code[None]
        c = self._conditioning(timestep, pose)
        x = self._run_blocks(x.astype(self.dtype), c)
        shift, scale = jnp.split(self.final_modulation(nn.silu(c)), 2, axis=-1)
        x = self.final(_modulate(self.final_norm(x), shift, scale))
        half = rearrange(x, "n (i j) (p q c) -> n (i p) (j q) c", i=rows, j=columns, p=2, q=2)
        full = upsample(upsample(half, axis=1), axis=2)
        return self.refine(jnp.concatenate([full, self.skip(inputs[..., :3])], axis=-1))

    def _run_blocks(self, x: Float[Array, "n k d"], c: Float[Array, "n d"]) -> Float[Array, "n k d"]:
        if not self.config.remat or self.is_initializing():
            return self.blocks(x, c)[0]
        block = TransformerBlock(self.config.num_heads, self.dtype, parent=None)
        run = lambda params, x, c: block.apply({"params": params}, x, c)[0]
        params = self.get_variable(THREADED_PARAMS, "stack", self.variables["params"]["blocks"])
        x, params = run_stack(run, params, x, c)
        if self.is_mutable_collection(THREADED_PARAMS):
            self.put_variable(THREADED_PARAMS, "stack", params)
        return x
