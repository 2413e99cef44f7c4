"""Trains the generator of glyphs, and writes its weights to a file; about a minute on two CPU cores.

    python -m dfm_jax.forward_models.train_glyph_decoder --out=decoder.npz

It is the decoder of a variational autoencoder (Kingma and Welling 2014) of glyphs whose strokes are there, missing, or
anything between: it knows strokes, and not which of them are digits. The last line is one JSON object: `error`, root
mean square of decoded pictures of held-out digits, and `read`, the share of these that are the same digit still.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dfm_jax.errors import Parser, UserError
from dfm_jax.forward_models import glyph_decoder as decoder
from dfm_jax.forward_models import glyphs
from dfm_jax.forward_models.glyphs import Glyphs

BATCH, BATCHES_AT_ONCE = 256, 100
ENCODER = (glyphs.SIDE**2 * 3, 256, 160, 2 * decoder.LATENT)
PRIOR = 2e-4  # weight of the divergence from a standard normal, against a picture's squared error a number
LEARNING_RATE = 2e-3


def draw(key: Array) -> Glyphs:
    """BATCH of all glyphs that the generator is to know: each stroke is there, is not, or is there in part; so is
    colour."""
    keys = jax.random.split(key, 8)
    uniform = lambda i, low, high, *shape: jax.random.uniform(keys[i], (BATCH, *shape), minval=low, maxval=high)
    partly = uniform(0, 0, 1, len(glyphs.STROKES))
    whole = jnp.round(partly)
    in_part = uniform(1, 0, 1, 1) < 0.5
    return Glyphs(
        strength=jnp.where(in_part, partly, whole),
        hue=uniform(2, 0, 1),
        saturation=jnp.where(uniform(3, 0, 1) < 0.7, 1.0, uniform(7, 0, 1)),
        shade=uniform(4, *glyphs.SHADE),
        shift=uniform(5, -glyphs.SHIFT, glyphs.SHIFT, 2),
        half_width=uniform(6, *glyphs.HALF_WIDTH),
    )


def encode(layers: decoder.Layers, pictures: Array) -> tuple[Array, Array]:
    """Mean and logarithm of the variance [b, z] of the latents of pictures."""
    return jnp.split(decoder.through(layers, 2 * pictures.reshape(len(pictures), -1) - 1), 2, axis=-1)


def loss(params: dict, key: Array) -> Array:
    glyph_key, noise_key = jax.random.split(key)
    pictures = glyphs.render(draw(glyph_key), jnp)
    mean, variance = encode(params["encoder"], pictures)
    latent = mean + jnp.exp(0.5 * variance) * jax.random.normal(noise_key, mean.shape)
    error = jnp.mean((decoder.decode(params["decoder"], latent) - pictures) ** 2)
    divergence = 0.5 * (mean**2 + jnp.exp(variance) - variance - 1).sum(-1).mean()
    return error + PRIOR * divergence / decoder.LATENT


def train(num_steps: int, seed: int = 0) -> dict:
    """Layers of the encoder and of the decoder."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {"encoder": decoder.init(keys[0], ENCODER), "decoder": decoder.init(keys[1], decoder.WIDTHS)}
    tx = optax.adam(optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, num_steps // 20 + 1, num_steps))

    def step(carry: tuple, key: Array) -> tuple:
        params, state = carry
        value, gradients = jax.value_and_grad(loss)(params, key)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    steps = jax.jit(lambda carry, keys: jax.lax.scan(step, carry, keys))
    carry = params, tx.init(params)
    for number, several in enumerate(jax.random.split(keys[2], (num_steps // BATCHES_AT_ONCE, BATCHES_AT_ONCE))):
        carry, values = steps(carry, several)
        if number % 10 == 9:
            told = f"step {(number + 1) * BATCHES_AT_ONCE}/{num_steps}: loss {float(values.mean()):.5f}"
            print(told, file=sys.stderr, flush=True)
    return jax.device_get(carry[0])


def quality(params: dict, count: int = 2000) -> dict[str, float]:
    """What became of digits."""
    truth, digit = glyphs.digits(np.random.default_rng(1).uniform(size=(count, 6)))
    pictures = glyphs.render(truth)
    decoded = np.asarray(decoder.decode(params["decoder"], encode(params["encoder"], jnp.asarray(pictures))[0]))
    error = float(np.sqrt(np.mean((decoded - pictures) ** 2)))
    return {"error": error, "read": float(np.mean(glyphs.read(decoded) == digit))}


def main(argv: list[str] | None = None) -> int:
    try:
        print(json.dumps(_make(sys.argv[1:] if argv is None else argv)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _make(argv: list[str]) -> dict[str, Any]:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the file, .npz")
    parser.add_argument("--steps", type=int, default=6000, help=f"in multiples of {BATCHES_AT_ONCE}")
    arguments = parser.parse_args(argv)
    if arguments.steps < BATCHES_AT_ONCE:
        raise UserError(f"--steps={arguments.steps} must be at least {BATCHES_AT_ONCE}")
    try:
        with arguments.out.open("ab"):
            pass
        params = train(arguments.steps)
        decoder.save(arguments.out, params["decoder"])
    except OSError as error:
        raise UserError(f"{arguments.out} cannot be written ({error}): name a file on a disk that may be") from error
    return {"file": str(arguments.out), "bytes": arguments.out.stat().st_size} | quality(params)


if __name__ == "__main__":
    sys.exit(main())
