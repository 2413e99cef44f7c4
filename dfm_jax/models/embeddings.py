"""Fixed codes of time, position and pose, with the constants of the published model.

Notation: `t` timestep; `omega`, `f` angular frequencies.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Num

MAX_PERIOD = 10000.0


def encoder_time_code(t: Num[Array, "*batch"], size: int = 256) -> Float[Array, "*batch size"]:
    """The transformer's timestep code `[cos | sin]`, `omega_i = 10000^(-i / (size / 2))` (DiT)."""
    half = size // 2
    omega = np.exp(-np.log(MAX_PERIOD) * np.arange(half) / half).astype(np.float32)
    phase = jnp.multiply.outer(t.astype(jnp.float32), omega)
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)


def field_time_code(t: Num[Array, "*batch"], size: int) -> Float[Array, "*batch size"]:
    """The radiance field's timestep code `[sin | cos]`, `omega_i = 10000^(-i / (size / 2 - 1))`."""
    half = size // 2
    omega = np.exp(-np.log(MAX_PERIOD) * np.arange(half) / (half - 1)).astype(np.float32)
    phase = jnp.multiply.outer(t.astype(jnp.float32), omega)
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)


def token_position_code(rows: int, columns: int, size: int, grid: int = 0) -> Float[np.ndarray, "tokens size"]:
    """Fixed 2-D sine-cosine code of a token grid, row-major: half of the channels from x, half from y.

    Args:
      grid: tokens a side that codes count. With another number of tokens, places of the image keep their codes, and
        places between them get codes between. 0: the numbers of tokens themselves.
    """

    def code(position: np.ndarray) -> np.ndarray:
        omega = MAX_PERIOD ** (-np.arange(size // 4) / (size // 4))
        phase = position.reshape(-1, 1) * omega
        return np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)

    def places(count: int) -> np.ndarray:
        return (np.arange(count) + 0.5) * ((grid or count) / count) - 0.5

    x, y = np.meshgrid(places(columns), places(rows), indexing="xy")
    return np.concatenate([code(x), code(y)], axis=-1).astype(np.float32)


def point_code(points: Float[Array, "*batch 3"], octaves: int = 6, base: float = 1.5) -> Float[Array, "*batch c"]:
    """`[p | sin(f_0 p) | cos(f_0 p) | sin(f_1 p) | ...]` with `f_k = base 2^k`; c = 3 + 6 octaves.

    Each octave follows from the one below by the double-angle formulas: sines and cosines of all of them would be a
    tenth of a training step's time. The error grows twofold an octave, as the rounding error of `f_k p` does.
    """
    sine, cosine = jnp.sin(base * points), jnp.cos(base * points)
    code = [points]
    for _ in range(octaves):
        code += [sine, cosine]
        sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
    return jnp.concatenate(code, axis=-1)


def pose_code(pose: Float[Array, "*batch 3 4"], octaves: int = 6) -> Float[Array, "*batch c"]:
    """`[sin(2^k x_j), j-major | cos(...) | x]` of the twelve numbers of a pose; c = 12 (2 octaves + 1)."""
    x = pose.reshape(*pose.shape[:-2], 12)
    phase = jnp.multiply.outer(x, 2.0 ** np.arange(octaves, dtype=np.float32)).reshape(*x.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(phase), jnp.cos(phase), x], axis=-1)
