"""Scenes as grids of density and colour, which are optimised: what score distillation makes 3D things of.

Letters: `b` scenes, `g` grid points a side, `r` ray, `s` sample along it, `h w` pixels. A scene lies in the coordinates
of its context camera, in a cube around the middle of its range.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Float, Key

from dfm_jax.forward_models.radiance_field.rendering import image_rays
from dfm_jax.rendering.ray_marching import points_along, render_single_pass
from dfm_jax.structs import Camera, Rays

Number = float | Float[Array, ""]
NOTHING = (-1e3, 0.0, 0.0, 0.0)  # density and colour outside, before their activations
START_NOISE = 0.1  # standard deviation of colours before their sigmoid


@dataclasses.dataclass(frozen=True)
class Voxels:
    """How grids `[b, g, g, g, 4]` are rendered; their last axis is density and colour, before their activations.

    Numbers of it may be traced: those with other `numbers` are the same program.
    """

    size: int = 24
    num_samples: int = 32  # along a ray
    background: Number = 0.0
    density_scale: Number = 10.0  # of the softplus, per unit of length
    density_bias: Number = -3.7  # before it: so a new grid is half transparent
    jitter: bool = False  # whether distances are drawn, one in each of as many equal parts of the range
    pixel_grid: str = "centres"

    @property
    def kind(self) -> "Voxels":
        """What a program is compiled for."""
        return dataclasses.replace(self, background=0.0, density_scale=0.0, density_bias=0.0)

    @property
    def numbers(self) -> dict[str, Number]:
        """What makes these of their kind."""
        return {name: getattr(self, name) for name in ("background", "density_scale", "density_bias")}

    def start(self, keys: Key[Array, " b"]) -> Float[Array, "b g g g 4"]:
        """Grey fog, with colours that differ a little."""
        shape = (self.size,) * 3
        colours = jax.vmap(lambda key: START_NOISE * jax.random.normal(key, (*shape, 3)))(keys)
        return jnp.concatenate([jnp.zeros((*colours.shape[:-1], 1)), colours], axis=-1)

    def render(
        self,
        grid: Float[Array, "b g g g 4"],
        camera: Camera,
        near: Float[Array, " b"],
        far: Float[Array, " b"],
        side: int,
        keys: Key[Array, " b"] | None = None,
    ) -> Float[Array, "b h w 3"]:
        """What a camera [b] sees of each, in [0, 1].

        Args:
          side: of the picture, pixels.
          keys: what distances are drawn with, if they are.
        """
        rays = image_rays(camera, side, side, self.pixel_grid)
        offset = jnp.zeros((grid.shape[0], rays.origins.shape[1], self.num_samples))
        if self.jitter and keys is not None:
            offset = jax.vmap(lambda key: jax.random.uniform(key, offset.shape[1:], minval=-0.5, maxval=0.5))(keys)
        step = (far - near) / (self.num_samples - 1)
        offset = offset * step[:, None, None]

        def field(rays: Rays, distances: Array) -> tuple[Array, Array]:
            values = self._look_up(grid, points_along(rays, distances + offset), near, far)
            density = self.density_scale * jax.nn.softplus(values[..., 0] + self.density_bias)
            return density, jax.nn.sigmoid(values[..., 1:])

        seen = render_single_pass(field, rays, near, far, num_samples=self.num_samples, background=0.0)
        rgb = seen.rgb + (1 - jnp.sum(seen.weights, axis=-1, keepdims=True)) * self.background
        return rgb.reshape(len(rgb), side, side, 3)

    def _look_up(self, grid: Array, points: Float[Array, "b r s 3"], near: Array, far: Array) -> Array:
        """Trilinear; outside of the cube there is nothing."""
        middle, half = 0.5 * (near + far), 0.5 * (far - near)
        centre = jnp.stack([jnp.zeros_like(middle), jnp.zeros_like(middle), middle], axis=-1)
        place = (points - centre[:, None, None]) / half[:, None, None, None]  # in [-1, 1]
        place = 0.5 * (place + 1) * (self.size - 1)
        of_channel = lambda values, outside, at: map_coordinates(values, list(at), 1, mode="constant", cval=outside)

        def of_scene(values: Array, at: Array) -> Array:
            channels = [of_channel(values[..., i], NOTHING[i], jnp.moveaxis(at, -1, 0)) for i in range(4)]
            return jnp.stack(channels, axis=-1)

        return jax.vmap(of_scene)(grid, place)
