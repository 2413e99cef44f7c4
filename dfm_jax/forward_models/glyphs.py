"""Glyphs of seven strokes, as procedural pictures: digits with known odds, and anything else that strokes can make.

      a        A digit has some of the strokes, whole ones; its other numbers (`Glyphs`) do not depend on which it is.
    f   b      So what is seen of it in one of `VIEWS` leaves open which digit it is just as far as several have the
      g        same strokes there: given such a view, the odds are those of all digits, restricted to these (`odds`).
    e   c      That is exact. What a view shows depends on the strokes in it and on the other numbers alone: strokes
      d        out of view leave no mark within, and those in view always do.

Letters: `b` glyphs, `s` strokes, `h w` pixels of `SIDE`, `k` the ten digits, `v` views.
"""

import functools
from types import ModuleType
from typing import Any

import numpy as np
from flax import struct
from jaxtyping import Bool, Float, Int

SIDE = 16  # pixels of a picture
STROKES = "abcdefg"
LEFT, RIGHT, TOP, MIDDLE, BOTTOM = 4.0, 11.0, 2.0, 7.5, 13.0  # pixel centres are whole numbers
ENDS = np.array(
    [
        [[LEFT, TOP], [RIGHT, TOP]],
        [[RIGHT, TOP], [RIGHT, MIDDLE]],
        [[RIGHT, MIDDLE], [RIGHT, BOTTOM]],
        [[LEFT, BOTTOM], [RIGHT, BOTTOM]],
        [[LEFT, MIDDLE], [LEFT, BOTTOM]],
        [[LEFT, TOP], [LEFT, MIDDLE]],
        [[LEFT, MIDDLE], [RIGHT, MIDDLE]],
    ]
)  # [s, 2, xy]
DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")
NAMES = tuple("0123456789")
PROBABILITIES = np.array([0.16, 0.05, 0.12, 0.08, 0.06, 0.14, 0.07, 0.06, 0.16, 0.10])
IS_STROKE = np.array([[stroke in digit for stroke in STROKES] for digit in DIGITS])  # [k, s]

# Views of a part: rows and columns that are seen, and the strokes that are, in whole or in part, wherever a glyph lies.
VIEWS = ("upper", "lower", "left", "right")
_ROWS_COLUMNS = ((slice(0, 5), slice(None)), (slice(11, None), slice(None)), (slice(None), slice(0, 7)))
_SEEN = ("abf", "cde", "adefg", "abcdg")

SHIFT = 0.75  # pixels at most that a glyph lies off its place, along each axis
HALF_WIDTH = (0.7, 1.1)  # of a stroke, pixels
SHADE = (0.1, 0.35)  # of the background, as a share of the ink
LUMINANCE, SATURATION = 0.625, 0.375  # of ink: the mean of its colours, and how far each is from that at most


@struct.dataclass
class Glyphs:
    """What pictures of glyphs are made of, numpy or jax arrays."""

    strength: Float[Any, "b s"]  # of the strokes, in [0, 1]; digits have 0 and 1 only
    hue: Float[Any, " b"]  # of the ink, in [0, 1]
    saturation: Float[Any, " b"]  # of the ink, in [0, 1]; digits have 1
    shade: Float[Any, " b"]
    shift: Float[Any, "b 2"]
    half_width: Float[Any, " b"]


def masks() -> Bool[np.ndarray, "v h w"]:
    """The pixels that each of `VIEWS` shows."""
    shown = np.zeros((len(VIEWS), SIDE, SIDE), bool)
    for mask, place in zip(shown, (*_ROWS_COLUMNS, (slice(None), slice(9, None))), strict=True):
        mask[place] = True
    return shown


def odds(digit: Int[np.ndarray, " b"], view: Int[np.ndarray, " b"]) -> Float[np.ndarray, "b k"]:
    """Of all digits, given the views of these: the brute force is over ten."""
    seen = np.array([[stroke in strokes for stroke in STROKES] for strokes in _SEEN])  # [v, s]
    visible = IS_STROKE[None] & seen[:, None]  # [v, k, s]
    alike = (visible[:, :, None] == visible[:, None]).all(-1)  # [v, k, k]
    weights = PROBABILITIES * alike[view, digit]
    return weights / weights.sum(-1, keepdims=True)


def digits(uniform: Float[np.ndarray, "b 6"]) -> tuple[Glyphs, Int[np.ndarray, " b"]]:
    """Glyphs of digits, and which digits they are, of numbers that are uniform in [0, 1)."""
    uniform = uniform.astype(np.float32)
    digit = np.searchsorted(np.cumsum(PROBABILITIES), uniform[:, 0], side="right").clip(0, len(DIGITS) - 1)
    between = lambda ends, u: ends[0] + (ends[1] - ends[0]) * u
    glyphs = Glyphs(
        strength=IS_STROKE[digit].astype(np.float32),
        hue=uniform[:, 1],
        saturation=np.ones_like(uniform[:, 1]),
        shade=between(SHADE, uniform[:, 2]),
        shift=SHIFT * (2 * uniform[:, 3:5] - 1),
        half_width=between(HALF_WIDTH, uniform[:, 5]),
    )
    return glyphs, digit


def coverage(
    strength: Float[Any, "b s"], shift: Float[Any, "b 2"], half_width: Float[Any, " b"], xp: ModuleType = np
) -> Float[Any, "b h w"]:
    """How much ink each pixel has, in [0, 1]: strokes have round ends and edges that are one pixel soft; where they
    overlap the stronger one counts.

    Args:
      xp: numpy or jax.numpy.
    """
    pixel = np.arange(SIDE, dtype=np.float32)[None, None]
    lines = ENDS.astype(np.float32)  # along an axis each: a pixel's distance is that along x and that along y
    off = [
        xp.maximum(
            0, xp.maximum(lines[None, ..., i].min(2)[..., None] - at, at - lines[None, ..., i].max(2)[..., None])
        )
        for i, at in ((i, pixel - shift[:, None, i, None]) for i in range(2))
    ]  # [b, s, w] and [b, s, h]
    distance = xp.sqrt(off[0][:, :, None] ** 2 + off[1][..., None] ** 2 + 1e-12)
    ink = xp.clip(half_width[:, None, None, None] + 0.5 - distance, 0, 1) * strength[..., None, None]
    return ink.max(1)


def render(glyphs: Glyphs, xp: ModuleType = np) -> Float[Any, "b h w 3"]:
    """Pictures in [0, 1]. All inks are equally bright, and the background is a shade of them."""
    phase = 2 * np.pi * (glyphs.hue[:, None] + np.array([[0, 1 / 3, 2 / 3]], np.float32))
    ink = LUMINANCE + SATURATION * glyphs.saturation[:, None] * xp.cos(phase)  # [b, 3]
    amount = coverage(glyphs.strength, glyphs.shift, glyphs.half_width, xp)[..., None]
    shade = glyphs.shade[:, None, None, None]
    return ink[:, None, None] * (shade + (1 - shade) * amount)


# --- reading them off pictures --------------------------------------------------------------------------------------

LEAST_EXPLAINED = 0.9  # share of a picture's variance that is of the glyph
MOST_BESIDES = 0.5  # of the variance left, against what the next digit leaves: no stroke is half there


def read(pictures: Float[np.ndarray, "b h w 3"]) -> Int[np.ndarray, " b"]:
    """Which digit each picture shows, -1 where none is recognised: the one of all, in all places and widths on a grid,
    that explains most of the picture as two colours, ink and background."""
    forms, found = _forms(), np.empty(len(pictures), np.int64)
    for start in range(0, len(pictures), 1024):
        pixels = np.asarray(pictures[start : start + 1024], np.float32).reshape(-1, SIDE * SIDE, 3)
        pixels = pixels - pixels.mean(1, keepdims=True)
        explained = sum((pixels[..., i] @ forms.T) ** 2 for i in range(3))  # [b, digits by places]
        explained = explained.reshape(len(pixels), len(DIGITS), -1).max(-1)
        left = 1 - explained / np.maximum((pixels**2).sum((1, 2)), 1e-9)[:, None]  # [b, k]
        best, second = np.sort(left, axis=1)[:, :2].T
        clear = (best <= 1 - LEAST_EXPLAINED) & (best <= MOST_BESIDES * second)
        found[start : start + 1024] = np.where(clear, left.argmin(1), -1)
    return found


@functools.cache
def _forms() -> Float[np.ndarray, "f p"]:
    """The ink of all digits in all places and widths, digit by digit, without its mean and of unit length."""
    shifts, widths = np.linspace(-SHIFT, SHIFT, 5), np.linspace(*HALF_WIDTH, 3)
    places = np.stack(np.meshgrid(shifts, shifts, widths, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    strength = np.repeat(IS_STROKE.astype(np.float32), len(places), axis=0)
    geometry = np.tile(places, (len(DIGITS), 1))
    forms = coverage(strength, geometry[:, :2], geometry[:, 2]).reshape(len(strength), -1)
    forms -= forms.mean(1, keepdims=True)
    return forms / np.linalg.norm(forms, axis=1, keepdims=True)
