"""Gaussians fitted to renderings of a scene (Kerbl et al. 2023, section 5) by Adam, on one device.

Letters: `n` gaussians, `k` cameras, `h w` pixels.
"""

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from dfm_jax.exports.gaussians import Gaussians
from dfm_jax.exports.initial_gaussians import initial_gaussians, pixel_width
from dfm_jax.exports.rasterizer import Splats, most_per_tile, rasterize
from dfm_jax.exports.renderings import SceneViews
from dfm_jax.exports.splat_parameters import Parameters, from_gaussians, to_gaussians, to_splats
from dfm_jax.structs import Camera, RenderedViews
from dfm_jax.viewpoints import cameras_around

# Adam's learning rates at the start, which fall as a cosine to this share; that of the means is in widths of a pixel.
RATES = Parameters(means=0.3, sizes=0.15, quaternions=0.05, opacities=0.15, colours=0.04)
LAST = 0.02
ADAM = optax.scale_by_adam(b2=0.99, eps=1e-12)
VIEWS_A_STEP = 2
NUM_CAMERAS, NUM_JUDGED = 36, 7  # that gaussians are fitted to, and others that they are judged by
OPACITY_WEIGHT = 0.2  # of the opacity's error beside that of the colours
# Sizes of gaussians, in pixels at the surface: none is too thin for the pictures that it is fitted to, nor so large
# that other programs choke on it.
SMALLEST, LARGEST = 0.5, 12.0
FAINT = 0.02  # gaussians that end with less opacity are left out
# By default: gaussians a pixel of a rendering, and at most (a file of less than 2 MB).
A_PIXEL, MOST, NUM_STEPS = 0.7, 25_000, 250
# Room for gaussians of one tile: for this share more than there are at first, in multiples.
ROOM, MULTIPLE = 1.3, 128
ROUNDED = 1024  # of which numbers of gaussians are multiples, where these are looked at

Progress = Callable[[int, int], None]  # called with the number of steps that are done, and that of all


@dataclasses.dataclass(frozen=True)
class _Shapes:
    """What the compiled programs are made for."""

    height: int
    width: int
    per_tile: int


def fit_to(
    views: SceneViews,
    num_gaussians: int | None = None,
    num_steps: int = NUM_STEPS,
    progress: Progress | None = None,
) -> Gaussians:
    """Gaussians that look like the views of a scene, in its coordinates.

    Args:
      num_gaussians: at most; by default `A_PIXEL` for each pixel of a rendering, but no more than `MOST`.

    Raises:
      UserError: nothing of the scene is opaque.
    """
    most = num_gaussians or min(MOST, int(A_PIXEL * views.side**2))
    start, pixel = initial_gaussians(views, most), pixel_width(views)
    origin = views.cameras.camera_to_world[:, :3, 3].mean(0)
    start = dataclasses.replace(start, means=start.means - origin)
    bounds = (np.float32(SMALLEST * pixel), np.float32(LARGEST * pixel))
    params = from_gaussians(start, *bounds, most)
    data = _on_device((views.images, _relative_to(origin, views.cameras)))
    near = views.scene.bounds[0]
    shapes = _Shapes(views.side, views.side, _room(to_splats(params, *bounds), data[1], views.side, views.side, near))
    optimized = (params, ADAM.init(params))
    at_first = RATES._replace(means=RATES.means * pixel)
    shares = np.asarray(optax.cosine_decay_schedule(1.0, num_steps, LAST)(np.arange(num_steps)))
    for i, chosen in enumerate(_batches(len(views.images.opacity), num_steps)):
        rates = jax.tree.map(lambda rate, i=i: np.float32(rate * shares[i]), at_first)
        optimized = _step(shapes, optimized, data, chosen, rates, bounds, (near, views.scene.background))
        if progress:
            jax.block_until_ready(optimized)
            progress(i + 1, num_steps)
    gaussians = to_gaussians(jax.device_get(optimized[0]), *bounds)
    gaussians = gaussians[gaussians.opacities >= FAINT]
    return dataclasses.replace(gaussians, means=gaussians.means + origin)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def _step(
    shapes: _Shapes,
    optimized: tuple[Parameters, Any],
    data: tuple[RenderedViews, Camera],
    chosen: Array,  # [v]
    rates: Parameters,
    bounds: tuple[Array, Array],
    depths: tuple[Array, Array],
) -> tuple[Parameters, Any]:
    """One step of Adam on some of the views."""
    params, state = optimized
    truth, cameras = jax.tree.map(lambda x: x[chosen], data)
    near, background = depths

    def loss(params: Parameters) -> Array:
        seen = rasterize(
            to_splats(params, *bounds), cameras, shapes.height, shapes.width,
            near=near, per_tile=shapes.per_tile, background=background,
        )  # fmt: skip
        errors = jnp.mean((seen.rgb - truth.rgb) ** 2), jnp.mean((seen.opacity - truth.opacity) ** 2)
        return errors[0] + OPACITY_WEIGHT * errors[1]

    updates, state = ADAM.update(jax.grad(loss)(params), state)
    return jax.tree.map(lambda x, rate, update: x - rate * update, params, rates, updates), state


def view(
    gaussians: Gaussians, cameras: Camera, height: int, width: int, near: float, background: float | np.ndarray
) -> RenderedViews:
    """What cameras [k] see of gaussians, [k, h, w] in numpy; pixels as in `geometry.pixel_grid` 'centres'."""
    origin = np.asarray(cameras.camera_to_world)[:, :3, 3].mean(0)
    parts = (gaussians.means - origin, gaussians.covariances(), gaussians.opacities, gaussians.colours)
    splats, cameras = _splats(*parts), _on_device(_relative_to(origin, cameras))
    shapes = _Shapes(height, width, _room(splats, cameras, height, width, near))
    seen = [
        jax.device_get(_view(shapes, splats, jax.tree.map(lambda x, i=i: x[i : i + 1], cameras), near, background))
        for i in range(len(cameras.intrinsics))
    ]
    return jax.tree.map(lambda *x: np.concatenate(x), *seen)


def psnr(gaussians: Gaussians, views: SceneViews) -> float:
    """Of gaussians against what the scene's own renderings show at cameras between those of `views`: the mean over the
    cameras, in dB."""
    scene = views.scene
    around = cameras_around(scene.context_camera, scene.target_camera, *scene.bounds, 2 + NUM_JUDGED)
    cameras = Camera(around.camera_to_world[2:], views.pixels @ around.intrinsics[2:])
    truth = views.render(cameras).rgb
    seen = view(gaussians, cameras, views.side, views.side, scene.bounds[0], scene.background)
    errors = np.mean((seen.rgb - truth) ** 2, axis=(1, 2, 3))
    return float(np.mean(-10 * np.log10(errors.clip(1e-10))))


@partial(jax.jit, static_argnums=0)
def _view(shapes: _Shapes, splats: Splats, cameras: Camera, near: Array, background: Array) -> RenderedViews:
    return rasterize(
        splats, cameras, shapes.height, shapes.width, near=near, per_tile=shapes.per_tile, background=background
    )


def averages(gaussians: Gaussians, views: SceneViews, images: np.ndarray) -> np.ndarray:
    """Means [n, c] of what pixels [k, h, w, c] of the views show, for each gaussian by how much it adds to the pixels;
    0 where it is not seen."""
    origin = views.cameras.camera_to_world[:, :3, 3].mean(0)
    nothing = np.zeros((len(gaussians), images.shape[-1] + 1))
    parts = (gaussians.means - origin, gaussians.covariances(), gaussians.opacities, nothing)
    splats, cameras = _splats(*parts), _on_device(_relative_to(origin, views.cameras))
    near = views.scene.bounds[0]
    shapes = _Shapes(views.side, views.side, _room(splats, cameras, views.side, views.side, near))
    total = np.zeros((len(splats.means), nothing.shape[1]))
    for i, image in enumerate(images):
        camera = jax.tree.map(lambda x, i=i: x[i : i + 1], cameras)
        pixels = np.concatenate([image, np.ones_like(image[..., :1])], axis=-1, dtype=np.float32)
        total += jax.device_get(_added_up(shapes, splats, camera, near, pixels[None]))
    total = total[: len(gaussians)]
    return total[:, :-1] / total[:, -1:].clip(1e-6)


@partial(jax.jit, static_argnums=0)
def _added_up(shapes: _Shapes, splats: Splats, camera: Camera, near: Array, pixels: Array) -> Array:
    """What pixels [1, h, w, c] hold, added up for each gaussian by its weights in them: the derivative of the image by
    its colour, in which images are linear."""

    def image(colours: Array) -> Array:
        coloured = splats._replace(colours=colours)
        return rasterize(coloured, camera, shapes.height, shapes.width, near=near, per_tile=shapes.per_tile).rgb

    return jax.vjp(image, splats.colours)[1](pixels)[0]


_most = jax.jit(most_per_tile, static_argnums=(2, 3))


def _room(splats: Splats, cameras: Camera, height: int, width: int, near: float) -> int:
    """For the gaussians of one tile, at most as many as there are."""
    wanted = int(ROOM * int(_most(splats, cameras, height, width, near)))
    return min(len(splats.means), -(-max(wanted, 1) // MULTIPLE) * MULTIPLE)


def _splats(*parts: np.ndarray) -> Splats:
    """On the device, with others that are not seen: numbers of gaussians differ from scene to scene, and a program is
    compiled for each."""
    fill = lambda x: np.concatenate([x, np.zeros((-len(x) % ROUNDED, *x.shape[1:]))])
    return Splats(*_on_device(tuple(map(fill, parts))))


def _on_device(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def _relative_to(origin: np.ndarray, cameras: Camera) -> Camera:
    """Nearer to 0, where float32 is finer."""
    poses = np.array(cameras.camera_to_world, np.float64)
    poses[:, :3, 3] -= origin
    return Camera(poses, np.asarray(cameras.intrinsics, np.float64))


def _batches(num_views: int, num_steps: int) -> Iterator[np.ndarray]:
    """Numbers of views for each step, from one shuffled round of all of them after the other."""
    rng, left = np.random.default_rng(0), np.empty(0, np.int64)
    for _ in range(num_steps):
        if len(left) < VIEWS_A_STEP:
            left = np.concatenate([left, rng.permutation(num_views)])
        yield left[:VIEWS_A_STEP]
        left = left[VIEWS_A_STEP:]
