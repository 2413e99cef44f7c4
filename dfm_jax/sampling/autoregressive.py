"""Sampling along a camera path too long for one sampled view: views are sampled one after the other, and each joins the
context of the next (Tewari et al. 2023, section 4).

The last scene has all of them among its feature views, so that it knows what is to be seen from anywhere on the path.
Shapes stay the same from view to view: the context has room for all of them, and is masked where they are still to
come.

Letters: `s` scene, `b` pairs of a scene and a sample, `v` context views, `K` views along the path, `h w` pixels.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from dfm_jax.data.loading.examples import pad
from dfm_jax.sampling.batches import SampledBatch
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Samples, sample_keys, to_image
from dfm_jax.structs import Camera, Example, RenderedViews, Scene, Views


@struct.dataclass
class PathViews:
    """The views that are sampled after target view 0, in this order."""

    camera: Camera  # [s, K] relative to the first context view
    absolute_pose: Array  # [s, K, 3, 4]
    valid: Array  # [s, K] bool; scenes with fewer are padded


def path_views(cameras: Sequence[Camera], example: Example) -> PathViews | None:
    """Cameras along the path of each scene of `example` [s], padded to one number; None if no scene has any."""
    most = max(len(camera.intrinsics) for camera in cameras)
    if not most:
        return None
    poses = np.tile(np.eye(4), (len(cameras), most, 1, 1))
    intrinsics = np.tile(np.eye(3), (len(cameras), most, 1, 1))
    for i, camera in enumerate(cameras):
        count = len(camera.intrinsics)
        poses[i, :count], intrinsics[i, :count] = camera.camera_to_world, camera.intrinsics
        intrinsics[i, count:] = np.asarray(example.context.camera.intrinsics)[i, 0]
    first = np.asarray(example.context.absolute_pose, np.float64)[:, 0]
    absolute = first[:, None, :, :3] @ poses[..., :3, :]
    absolute[..., 3] += first[:, None, :, 3]
    valid = np.arange(most) < np.array([[len(camera.intrinsics)] for camera in cameras])
    as_float = lambda x: x.astype(np.float32)
    return PathViews(Camera(as_float(poses), as_float(intrinsics)), as_float(absolute), valid)


def pad_context(example: Example, path: PathViews) -> Example:
    """The example [s] with padding views for target view 0 and all views along the path but the last one."""
    length = example.context.valid.shape[1] + path.valid.shape[1]
    padded = [
        pad(jax.tree.map(lambda x, i=i: np.asarray(x[i]), example.context), length) for i in range(len(path.valid))
    ]
    return example.replace(context=jax.tree.map(lambda *x: np.stack(x), *padded))


def extend(
    example: Example,
    path: PathViews,
    key: Array,
    sampler: DiffusionSampler,
    batch: SampledBatch,
    scene_index: Array,
    sample_index: Array,
) -> SampledBatch:
    """Samples the views along the path after finished samples of target view 0; returns the batch with the scenes that
    show them all, and renderings of these.

    The noise of view k depends on the scene's index, the sample's and k only.

    Args:
      example: [s] as it was sampled from.
      scene_index: [b] the scenes of the batch.
      sample_index: [b] the numbers of the samples.
    """
    chosen = lambda tree: jax.tree.map(lambda x: jnp.asarray(x)[scene_index], tree)
    current, ahead = chosen(pad_context(example, path)), chosen(path)
    current = current.replace(target=jax.tree.map(lambda x: x[:, :1], current.target))
    keys = sample_keys(key, current.index, sample_index)
    x0, first = 2 * batch.x0 - 1, example.context.valid.shape[1]
    for k in range(path.valid.shape[1]):
        view = jax.tree.map(lambda x, k=k: x[:, k], ahead)
        current, x0 = _next_view(sampler, current, view, x0, jnp.int32(first + k), keys, jnp.int32(k + 1))
    cameras = jax.tree.map(lambda *c: np.concatenate(c, axis=1), example.context.camera, example.target.camera)
    scene, views = _last_scene(sampler, current, x0, chosen(cameras))
    return batch.replace(scene=scene, views=views)


@jax.jit
def _next_view(
    sampler: DiffusionSampler, example: Example, view: PathViews, x0: Array, slot: Array, keys: Array, number: Array
) -> tuple[Example, Array]:
    """The sampled target joins the context at `slot`, and `view` [b], the new target, is sampled; where it is valid."""
    seen = example.target.replace(images=to_image(x0)[:, None])
    put = lambda all_views, one: jax.lax.dynamic_update_slice_in_dim(
        all_views, one.astype(all_views.dtype), slot, axis=1
    )
    context = jax.tree.map(put, example.context, seen)
    target = Views(
        images=jnp.zeros_like(seen.images),
        camera=jax.tree.map(lambda x: x[:, None], view.camera),
        absolute_pose=view.absolute_pose[:, None],
        valid=jnp.ones_like(seen.valid),
    )
    later = example.replace(context=context, target=target)
    own_keys = jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
    sampled = sampler.sample(later, own_keys).x0
    keep = lambda new, old: jnp.where(view.valid.reshape(-1, *[1] * (new.ndim - 1)), new, old)
    return jax.tree.map(keep, (later, sampled), (example, x0))


@jax.jit
def _last_scene(sampler: DiffusionSampler, example: Example, x0: Array, cameras: Camera) -> tuple[Scene, RenderedViews]:
    """The scene [b] that has all sampled views, and what `cameras` [b, k] see of it."""
    cache = sampler.cache_context(example).conditional(len(x0))
    scene, _ = sampler.scene(Samples(x0, cache.context))
    size = sampler.model.image_size
    return scene, sampler.render(scene, cameras, size, size)
