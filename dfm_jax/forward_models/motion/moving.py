"""Procedural frames of things that move: a disc on a textured ground, whose direction and speed a frame does not tell.

The direction is one of three, with odds that are known; the speed is uniform in a range. Nothing in a frame depends on
them. Pure numpy. Letters: `b` examples, `h w` pixels, `g` points of a lattice; velocities are `(x, y)`, in pixels per
unit of time, to the right and down; colours are in [-1, 1].
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

DIRECTIONS = ("up", "down left", "down right")
ODDS = (0.5, 0.3, 0.2)
ANGLES = np.deg2rad([90.0, 210.0, 330.0])  # against the x axis, counterclockwise as one looks at the picture
HEADINGS = np.stack([np.cos(ANGLES), -np.sin(ANGLES)], axis=-1)  # [3, 2]
SPEEDS = (3.0, 5.0)
RADIUS = 3.5
GROUND, DISC = 5, 3  # points along a side of the lattices of their textures
TRAINING, HELD_OUT = 0, 1  # examples of the two do not repeat each other


@dataclasses.dataclass(frozen=True)
class Things:
    """One disc each, and the ground."""

    ground: Float[np.ndarray, "b h w 3"]
    texture: Float[np.ndarray, "b g g 3"]  # of the disc
    centre: Float[np.ndarray, "b 2"]  # at time 0
    direction: Int[np.ndarray, "b"]
    velocity: Float[np.ndarray, "b 2"]

    def frame(self, time: float) -> Float[np.ndarray, "b h w 3"]:
        """The picture at a time."""
        offset = self._offset(time)
        cover = np.clip(RADIUS + 0.5 - np.linalg.norm(offset, axis=-1), 0, 1)[..., None]
        colour = _on_lattice(self.texture, offset / (2 * RADIUS + 2) + 0.5)
        return (cover * colour + (1 - cover) * self.ground).astype(np.float32)

    @property
    def thing(self) -> Float[np.ndarray, "b h w"]:
        """Where the disc is at time 0."""
        return (np.linalg.norm(self._offset(0.0), axis=-1) <= RADIUS).astype(np.float32)

    @property
    def flow(self) -> Float[np.ndarray, "b h w 2"]:
        return self.thing[..., None] * self.velocity[:, None, None].astype(np.float32)

    def _offset(self, time: float) -> Float[np.ndarray, "b h w 2"]:
        places = np.stack(np.meshgrid(*[np.arange(self.ground.shape[1], dtype=np.float64)] * 2), axis=-1)
        return places - (self.centre + time * self.velocity)[:, None, None]


def make_things(seed: int, index: Int[np.ndarray, "b"], size: int, *, held_out: bool = False) -> Things:
    """Those of the examples of these numbers, each a function of the seed and of its own number alone."""
    part, numbers = HELD_OUT if held_out else TRAINING, 4 + 3
    drawn = [np.random.default_rng((seed, part, int(i))) for i in index]
    uniform = np.stack([rng.random(numbers) for rng in drawn])
    coarse = np.stack([rng.normal(0, 0.25, (GROUND, GROUND, 3)) for rng in drawn])
    fine = np.stack([rng.normal(0, 0.15, (2 * GROUND, 2 * GROUND, 3)) for rng in drawn])
    texture = np.stack([rng.normal(0, 0.25, (DISC, DISC, 3)) for rng in drawn])
    rows = lambda lattice: _nearness(np.arange(size) / (size - 1), lattice.shape[1])  # [h, g], and columns alike
    ground = -0.4 + sum(np.einsum("hj,bjic,wi->bhwc", rows(x), x, rows(x), optimize=True) for x in (coarse, fine))
    margin = RADIUS + SPEEDS[1] + 0.5  # of the disc, which is still whole at time 1
    direction = np.searchsorted(np.cumsum(ODDS)[:-1], uniform[:, 2], side="right")
    speed = SPEEDS[0] + (SPEEDS[1] - SPEEDS[0]) * uniform[:, 3:4]
    return Things(
        ground=np.clip(ground, -1, 1),
        texture=np.clip(0.1 + 0.9 * uniform[:, None, None, 4:] + texture, -1, 1),
        centre=margin + (size - 1 - 2 * margin) * uniform[:, :2],
        direction=direction,
        velocity=speed * HEADINGS[direction],
    )


def _on_lattice(
    values: Float[np.ndarray, "b g g 3"], places: Float[np.ndarray, "b h w 2"]
) -> Float[np.ndarray, "b h w 3"]:
    """Bilinear interpolation between points of a lattice over the unit square, at `(x, y)`; beyond it is what lies at
    its border."""
    b, h, w, _ = places.shape
    x, y = (_nearness(places[..., axis], values.shape[1]) for axis in (0, 1))
    weights = (y[..., :, None] * x[..., None, :]).reshape(b, h * w, -1)
    return (weights @ values.reshape(b, -1, 3)).reshape(b, h, w, 3)


def _nearness(places: Float[np.ndarray, "*batch"], count: int) -> Float[np.ndarray, "*batch {count}"]:
    """Weights of points that part the interval from 0 to 1, in linear interpolation between them."""
    return np.maximum(0, 1 - np.abs((count - 1) * np.clip(places, 0, 1)[..., None] - np.arange(count)))
