"""Score distillation of scenes, as people do it: a grid is rendered at random cameras, where the trained denoiser
judges it, given the context; and at the context camera, where it is to look as the photograph does.

Letters: `s` example, `n` results behind each, `b` those that are computed at once, in groups that share their cameras.
"""

import dataclasses
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float

from dfm_jax import geometry
from dfm_jax.config import Config
from dfm_jax.diffusion.optimisation import optimised
from dfm_jax.errors import UserError
from dfm_jax.sampling.cameras import target_pose
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params, sample_keys
from dfm_jax.structs import Camera, Example
from dfm_jax.studies.score_distillation.methods import PARTICLES, Method, estimate_of, first_carry
from dfm_jax.studies.score_distillation.pictures import compiled, negative_of, optimiser_of, prior_of
from dfm_jax.studies.score_distillation.voxels import Voxels

AZIMUTHS = (-60.0, 60.0)  # degrees around the config's target camera: where the toy's training saw noisy views
POSES = 121  # that cameras are drawn among, at an even pace
CONTEXT_WEIGHT = 5.0  # of the difference to the photograph
GROUPS_AT_ONCE = {"cpu": 1}  # elsewhere, all


def require_cameras(config: Config, what: str) -> None:
    """Sees that scenes can be optimised, for `what` asks for it.

    Raises:
      UserError: the config does not know where cameras may be.
    """
    if config.sample.target_camera is None:
        raise UserError(
            f"{what} needs to know where cameras may be: set config.sample.target_camera, or leave {what} out"
        )


def voxels_of(config: Config) -> Voxels:
    """Before the background that the model's scenes have."""
    return Voxels(background=config.model.background, pixel_grid=config.model.pixel_grid)


def results(
    config: Config,
    params: Params,
    example: Example,
    num_results: int,
    method: Method,
    num_evaluations: int,
    voxels: Voxels,
) -> tuple[Float[np.ndarray, "s n views h w 3"], float]:
    """Renderings of the results in [0, 1], at all context and target views; and the seconds that all took, but for
    compiling.

    Args:
      num_results: n, a multiple of `PARTICLES`.
      num_evaluations: of the denoiser, for each result at most.
    """
    sampler = DiffusionSampler.from_config(config, params)
    num_scenes = len(example.near)
    groups = num_scenes * num_results // PARTICLES
    at_once = PARTICLES * min(groups, GROUPS_AT_ONCE.get(jax.default_backend(), groups))
    num_steps = max(1, num_evaluations // method.evaluations)
    start, turn = config.sample.target_camera, np.linspace(*AZIMUTHS, POSES)
    poses = np.stack([target_pose(dataclasses.replace(start, azimuth=start.azimuth + angle)) for angle in turn])
    shared, calls = (sampler, jax.device_put(example), jax.random.key(config.seed)), []
    for first in range(0, num_scenes * num_results, at_once):
        pairs = np.minimum(np.arange(first, first + at_once), num_scenes * num_results - 1)
        numbers = (pairs // num_results).astype(np.int32), (pairs % num_results).astype(np.int32)
        of_kinds = method.numbers, voxels.numbers, np.int32(num_steps)
        calls.append((*shared, *numbers, poses.astype(np.float32), *of_kinds))
    program = compiled(_results, calls[0], kind=method.kind, kind_of_voxels=voxels.kind)
    begin = time.perf_counter()
    found = np.concatenate([np.asarray(program(*call)) for call in calls])[: num_scenes * num_results]
    return rearrange(found, "(s n) ... -> s n ...", n=num_results), time.perf_counter() - begin


@partial(jax.jit, static_argnames=("kind", "kind_of_voxels"))
def _results(
    sampler: DiffusionSampler,
    example: Example,
    key: Array,
    scene_index: Array,
    sample_index: Array,
    poses: Array,
    numbers: dict[str, Any],
    numbers_of_voxels: dict[str, Any],
    num_steps: Array,
    *,
    kind: Method,
    kind_of_voxels: Voxels,
) -> Array:
    method, voxels = kind.with_numbers(numbers), dataclasses.replace(kind_of_voxels, **numbers_of_voxels)
    example = jax.tree.map(lambda x: x[scene_index], example)
    keys, size = sample_keys(key, example.index, sample_index), sampler.model.image_size
    see = partial(voxels.render, near=example.near, far=example.far, side=size)
    known = jax.tree.map(lambda x: x[:, 0], example.context)
    intrinsics = example.target.camera.intrinsics[:, 0]

    def render(grid: Array, keys: Array) -> tuple[tuple[Array, Array], Camera]:
        first_of_group = jnp.repeat(keys[::PARTICLES], PARTICLES)
        number = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(poses)))(first_of_group)
        camera = Camera(poses[number], intrinsics)
        pictures = see(grid, camera, keys=keys), see(grid, known.camera, keys=keys)
        return tuple(2 * picture - 1 for picture in pictures), camera

    prior_at = lambda camera: prior_of(sampler, seen_from(example, camera), cached=False)
    estimate = estimate_of(method, prior_at, lambda camera: negative_of(sampler, seen_from(example, camera)))

    def with_photograph(pictures: Any, camera: Camera, done: Array, keys: Array, carry: Any) -> tuple[Any, Any]:
        judged, of_context = pictures
        gradient, carry = estimate(judged, camera, done, keys, carry)
        return (gradient, CONTEXT_WEIGHT * (of_context - (2 * known.images - 1))), carry

    shape = (len(keys), size, size, 3)
    start, carry = voxels.start(keys), first_carry(method, key, jnp.zeros(shape))
    by_rates = optimiser_of(dataclasses.replace(method, plain=False), num_steps)
    grid = optimised(render, with_photograph, start, keys, num_steps, by_rates, carry)
    cameras = jax.tree.map(lambda *c: jnp.concatenate(c, axis=1), example.context.camera, example.target.camera)
    at_view = lambda camera: see(grid, camera)
    views = jax.lax.map(at_view, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), cameras))
    return jnp.moveaxis(views, 0, 1)


def seen_from(example: Example, camera: Camera) -> Example:
    """The examples [b] with one target view, which the camera [b] sees."""
    world = example.context.absolute_pose[:, 0]
    turned = geometry.compose(world[..., :3], camera.camera_to_world[:, :3])
    absolute = turned.at[..., 3].add(world[..., 3])
    first = jax.tree.map(lambda x: x[:, :1], example.target)
    placed = Camera(camera.camera_to_world[:, None], camera.intrinsics[:, None])
    return example.replace(target=first.replace(camera=placed, absolute_pose=absolute[:, None]))
