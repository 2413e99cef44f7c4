"""A residual network of vectors."""

import flax.linen as nn
from jax import Array
from jaxtyping import Float


class ResidualMLP(nn.Module):
    """Blocks of two layers behind a normalisation each, as in a transformer without attention. The normalisations have
    no parameters: a layer follows each."""

    width: int
    depth: int
    out: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b out"]:
        normalise = nn.LayerNorm(use_scale=False, use_bias=False)
        x = nn.Dense(self.width, name="in")(x)
        for i in range(self.depth):
            hidden = nn.Dense(self.width, name=f"hidden_{i}")(normalise(x))
            x = x + nn.Dense(self.width, name=f"out_{i}")(nn.silu(hidden))
        return nn.Dense(self.out, name="out")(nn.silu(normalise(x)))
