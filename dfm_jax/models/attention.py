"""Attention, by what computes it fastest where it runs."""

from functools import partial

import jax
from jax import Array, lax
from jaxtyping import Float

# cuDNN's is 1.6 to 3.3 times as fast as XLA's from so many tokens on, and slower with 256 (docs/gpu.md).
FEWEST_TOKENS = 1024
HALF = ("bfloat16", "float16")
WIDEST_HEAD = 128
OLDEST = (8, 0)  # compute capability
Tokens = Float[Array, "n k heads e"]


def attend(q: Tokens, k: Tokens, v: Tokens) -> Tokens:
    """Softmax attention of each of `n` sequences of `k` tokens.

    A program that is made on a GPU and exported for other platforms has XLA's attention there.
    """
    if not (suits_cudnn(q) and _has_cudnn()):
        return jax.nn.dot_product_attention(q, k, v)
    by = lambda name: partial(jax.nn.dot_product_attention, implementation=name)
    return lax.platform_dependent(q, k, v, cuda=by("cudnn"), default=by("xla"))


def suits_cudnn(q: Tokens) -> bool:
    """Whether cuDNN computes such attention, and faster."""
    _, tokens, _, width = q.shape
    return q.dtype.name in HALF and tokens >= FEWEST_TOKENS and width % 8 == 0 and width <= WIDEST_HEAD


def _has_cudnn() -> bool:
    """Whether jax runs on a GPU whose cuDNN has attention; elsewhere it cannot even be traced."""
    device = jax.local_devices()[0]
    if device.platform != "gpu" or "cuda" not in device.client.platform_version:
        return False
    return tuple(map(int, device.compute_capability.split("."))) >= OLDEST
