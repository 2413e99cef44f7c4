"""What any cameras see of sampled scenes, on all devices of this process.

Letters: `b` scenes, `k` cameras that look at each, `h w` pixels.
"""

from collections.abc import Callable

import jax
import numpy as np

from dfm_jax.sampling import devices
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.structs import Camera, RenderedViews, Scene

# Pixels that one call renders: these are rendered in chunks anyway, and this is how often progress shows.
PIXELS_AT_ONCE = 2**17


def render_cameras(
    sampler: DiffusionSampler,
    scene: Scene,
    camera: Camera,
    height: int,
    width: int,
    rendered: Callable[[int], None] = lambda images: None,
) -> RenderedViews:
    """What cameras [b, k] see of scenes [b]: views [b, k, h, w] in numpy, a few cameras a call.

    Args:
      sampler: on the devices to render on.
      rendered: called with the number of images that were rendered since the last time.
    """
    num_scenes, num_cameras = np.shape(camera.intrinsics)[:2]
    num_devices = 1 if sampler.mesh is None else sampler.mesh.size
    on_each = max(1, PIXELS_AT_ONCE // (num_scenes * height * width))
    at_once = num_devices * min(-(-num_cameras // num_devices), on_each)
    render = devices.over_cameras(_render, sampler.mesh, height=height, width=width)
    views = []
    for start in range(0, num_cameras, at_once):
        # Calls of one shape: one compilation.
        chosen = np.minimum(np.arange(start, start + at_once), num_cameras - 1)
        part = Camera(camera.camera_to_world[:, chosen], camera.intrinsics[:, chosen])
        views.append(jax.device_get(render(sampler, scene, part)))
        rendered(num_scenes * min(at_once, num_cameras - start))
    return jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :num_cameras], *views)


_render = jax.jit(DiffusionSampler.render, static_argnames=("height", "width"))
