"""Drawing scenes and looking at them: what sampling, previews and evaluation share.

Letters: `s` scene, `n` sample of it, `b` the (scene, sample) pairs that are computed at once, `k` cameras that look at
one scene, `v t` its context and target views, `h w` pixels. Rendering is deterministic here (no keys).
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import struct
from jax import Array
from jaxtyping import Float, Int, Key
from tqdm import tqdm

from dfm_jax.config import SAMPLERS, SPACINGS, SampleConfig
from dfm_jax.denoiser import Prepared, denoise, guided_denoise, prepare
from dfm_jax.diffusion.guidance import Guidance, dynamic_threshold
from dfm_jax.diffusion.samplers import ddim, dpm_solver, log_snr_timesteps, uniform_timesteps
from dfm_jax.diffusion.schedule import Schedule
from dfm_jax.forward_model import RadianceFieldModel
from dfm_jax.sampling import devices
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.scene_rendering import image_rays, render
from dfm_jax.structs import Camera, Example, Rendering, Scene

Params = dict[str, Any]

SAMPLING = dict(zip(SAMPLERS, (ddim, dpm_solver), strict=True))
SPACING = dict(zip(SPACINGS, (uniform_timesteps, log_snr_timesteps), strict=True))

# Pixels that one call draws: bounds the memory of sampling, whose encoder sees whole images.
PIXELS_PER_DRAW = 2**14
# Noise level, as a share of all, that a finished sample is said to have when its scene is inferred. At 0 the model
# takes every pixel for the truth, its own grain included; told of a little noise, it keeps what the views agree on.
SCENE_NOISE_LEVEL = 0.03
# Pixels that one call renders for a video: these are rendered in chunks anyway, and this is how often progress shows.
PIXELS_PER_LOOK = 2**17
# Videos of smaller images are rendered at a multiple of their size: a radiance field has no pixels of its own.
MIN_VIDEO_SIDE = 48


@struct.dataclass
class Pictures:
    """Images of scenes, and how far away what they show is."""

    rgb: Array  # [*batch, h, w, 3] in [0, 1]
    distance: Array  # [*batch, h, w]; what a ray does not hit counts as `far`
    opacity: Array  # [*batch, h, w] share of the ray that is stopped


@struct.dataclass
class Batch:
    """Some sampled scenes, as they leave the device; images in [0, 1]."""

    scene: Scene  # [b]
    views: Pictures  # [b, v + t] at the context and target cameras
    x0: Array  # [b, h, w, 3] what diffusion ended with, of which view v is the rendering
    estimate: Array  # [b, h, w, 3] deterministic estimate of target view 0


@dataclasses.dataclass(frozen=True)
class Drawn:
    """The images of all sampled scenes, in [0, 1], as in `Batch`."""

    views: np.ndarray  # [s, n, v + t, h, w, 3]
    x0: np.ndarray  # [s, n, h, w, 3]
    estimate: np.ndarray  # [s, h, w, 3]


def draw_target(
    params: Params,
    prepared: Prepared,
    keys: Key[Array, "b"],
    *,
    model: RadianceFieldModel,
    schedule: Schedule,
    sample: SampleConfig,
    guide: Guidance | None = None,
) -> Float[Array, "b h w 3"]:
    """One sample of target view 0 for each (prepared) example, in [-1, 1]. The result depends on each example's own key
    only.

    Args:
      guide: guidance in the place of that of `sample`, which must not be off (1).
    """
    shape = (model.image_size, model.image_size, 3)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys)
    interval = guidance_interval(sample, schedule.num_timesteps)

    guide = guide or guidance(sample)

    # Rendering is deterministic: there is nothing to fold the step into.
    def denoise_fn(x_t: Array, timestep: Array, step: Array, average: Array) -> tuple[Array, Array]:
        del step
        if sample.guidance == 1:
            return denoise(params, model, x_t, timestep, prepared).x0, average
        denoised, average = guided_denoise(params, model, x_t, timestep, prepared, guide, average, interval=interval)
        return denoised.x0, average

    threshold = partial(dynamic_threshold, quantile=sample.threshold_quantile)
    sampler, x_T = SAMPLING[sample.sampler], sample.temperature * noise
    settings = {"spacing": SPACING[sample.spacing], "memory": jnp.zeros_like(noise), "x0_transform": threshold}
    return sampler(denoise_fn, x_T, schedule, sample.num_steps, **settings)


def guidance(sample: SampleConfig) -> Guidance:
    return Guidance(
        scale=sample.guidance,
        rescale=sample.guidance_rescale,
        momentum=sample.guidance_momentum,
        bound=sample.guidance_bound or float("inf"),
        parallel=sample.guidance_parallel,
    )


def prepare_drawing(params: Params, example: Example, *, model: RadianceFieldModel, sample: SampleConfig) -> Prepared:
    """What the denoising steps of examples [b] share; of twice as many, if they are guided."""
    guided = sample.guidance != 1
    at_once = example.near.shape[0] * (1 + guided)
    memory = int(sample.context_memory * 1e9) // at_once
    return prepare(params, model, example, guided=guided, memory=memory)


def guidance_interval(sample: SampleConfig, num_timesteps: int) -> tuple[int, int] | None:
    """First and last timestep to guide at; None if these are all."""
    if (sample.guidance_from, sample.guidance_to) == (0, 1):
        return None
    return round(sample.guidance_from * num_timesteps), round(sample.guidance_to * num_timesteps)


def sampled_scene(
    params: Params, context: Any, x0: Float[Array, "b h w 3"], *, model: RadianceFieldModel, num_timesteps: int
) -> tuple[Scene, Rendering | None]:
    """The scene behind the (encoded) context and a finished sample, and the deterministic estimate of the target view,
    if the model makes one.

    The sample enters as the target view. The scene of the last denoising step would not do: it is that of the
    conditional branch, which guided samples differ from.
    """
    timestep = jnp.full(x0.shape[0], round(SCENE_NOISE_LEVEL * num_timesteps), jnp.int32)
    return model.infer(params, context, x0, timestep)


def look(params: Params, scene: Scene, camera: Camera, *, model: RadianceFieldModel, size: int) -> Pictures:
    """What cameras [b, k] see of scenes [b], at [size, size] pixels."""
    num_cameras = camera.intrinsics.shape[1]
    rays = image_rays(camera, size, model.config.pixel_grid)  # [b, k, r]
    rays = jax.tree.map(lambda x: rearrange(x, "b k r xyz -> b (k r) xyz"), rays)
    rendering = render(params, model, scene, rays, outputs="colour", coarse_colour=False)
    return to_pictures(rendering, scene.far, num_cameras)


def to_pictures(rendering: Rendering, far: Float[Array, "b"], num_images: int = 1) -> Pictures:
    """Square images [b, k, h, w] from the rays of `num_images` whole images, [b, k * h * w].

    A rendering's depth is not divided by the opacity; here the rest of a ray that nothing stops counts as `far`.
    """
    opacity = jnp.sum(rendering.weights, axis=-1)
    distance = rendering.depth + (1.0 - opacity) * far[:, None]
    size = round((distance.shape[1] // num_images) ** 0.5)
    split = partial(rearrange, pattern="b (k h w) ... -> b k h w ...", k=num_images, h=size, w=size)
    return Pictures(rgb=split(rendering.rgb), distance=split(distance), opacity=split(opacity))


def estimate_picture(estimate: Rendering, far: Float[Array, "b"], size: int) -> Pictures:
    """The deterministic estimate [b, s * s] as pictures [b, size, size], resized if it was rendered smaller."""
    pictures = jax.tree.map(lambda x: x[:, 0], to_pictures(estimate, far))

    def resize(x: Array) -> Array:
        return jax.image.resize(x, (x.shape[0], size, size, *x.shape[3:]), "bilinear")

    return jax.tree.map(resize, pictures)


@partial(jax.jit, static_argnames=("model", "sample"))
def draw_batch(
    params: Params,
    schedule: Schedule,
    example: Example,
    key: Array,
    scene_index: Int[Array, "b"],
    sample_index: Int[Array, "b"],
    *,
    model: RadianceFieldModel,
    sample: SampleConfig,
) -> Batch:
    """Draws pairs [b] of scenes of `example` [s] and numbers of samples, and looks at them where images are known.

    A sample depends on the scene's `index`, not on its place in the batch.
    """
    example = jax.tree.map(lambda x: x[scene_index], example)
    keys = jax.vmap(lambda i, j: jax.random.fold_in(jax.random.fold_in(key, i), j))(example.index, sample_index)
    prepared = prepare_drawing(params, example, model=model, sample=sample)
    x0 = draw_target(params, prepared, keys, model=model, schedule=schedule, sample=sample)
    context = jax.tree.map(lambda x: x[: len(keys)], prepared.context)
    scene, estimate = sampled_scene(params, context, x0, model=model, num_timesteps=schedule.num_timesteps)
    cameras = jax.tree.map(lambda *c: jnp.concatenate(c, axis=1), example.context.camera, example.target.camera)
    views = look(params, scene, cameras, model=model, size=model.image_size)
    # A model that makes no estimate is deterministic: all that it draws is its estimate.
    guess = views.rgb[:, example.context.valid.shape[1]]
    if estimate is not None:
        guess = estimate_picture(estimate, example.far, model.image_size).rgb
    return Batch(scene=scene, views=views, x0=jnp.clip(0.5 * x0 + 0.5, 0, 1), estimate=guess)


def draw_scenes(
    params: Params,
    model: RadianceFieldModel,
    schedule: Schedule,
    example: Example,
    paths: Sequence[Trajectory],
    settings: SampleConfig,
    seed: int,
    on_video: Callable[[int, int, np.ndarray, np.ndarray], None],
    go_on: Callable[[Batch, Array, Array], Batch] | None = None,
) -> Drawn:
    """Draws `settings.num_samples` scenes behind each context of `example` [s], and looks at them.

    Sample j of scene i depends on (seed, i, j) only: not on how many others are drawn, nor how many at once.

    Args:
      paths: a camera path for each scene, all of one length.
      on_video: called for every sample with the numbers of its scene and sample, and its frames: colours
        [frames, h, w, 3] in [0, 1] and distances [frames, h, w].
      go_on: what is done with a drawn batch before its scenes are looked at along the paths, given its scene and sample
        numbers [b] (sampling further views, say).
    """
    size, num_pairs = model.image_size, len(paths) * settings.num_samples
    mesh = devices.make_mesh(num_pairs, size**2)
    parts = batches(len(paths), settings.num_samples, size, mesh.shape[devices.DATA])
    zoom = -(-MIN_VIDEO_SIDE // size)
    images_per_pair = settings.num_steps + 1 + len(paths[0].camera.intrinsics) * zoom**2  # of [size, size] pixels
    compiled = devices.over_scenes(draw_batch, mesh, model, num_shared=4, num_split=2, sample=settings)
    params = devices.replicate(params, mesh)
    draw = partial(compiled, params, schedule, jax.device_put(example), jax.random.key(seed))
    view = devices.over_cameras(_look, mesh, model=model, size=size * zoom)
    drawn = []
    with tqdm(total=sum(map(len, parts)) * images_per_pair, unit="image", desc="sampling scenes") as bar:
        for pairs in parts:
            numbers = np.array(pairs).T
            batch = draw(*numbers)
            batch = go_on(batch, *numbers) if go_on else batch
            drawn.append(jax.device_get((batch.views.rgb, batch.x0, batch.estimate)))
            bar.update(len(pairs) * (settings.num_steps + 1))
            look_along = partial(view, params, batch.scene)
            frames = _render_paths(look_along, [paths[i].camera for i, _ in pairs], size, zoom, mesh.size, bar)
            for b, (i, j) in enumerate(dict.fromkeys(pairs)):  # without the repetitions that fill up the last batch
                on_video(i, j, frames.rgb[b][paths[i].order], frames.distance[b][paths[i].order])

    count = len(paths) * settings.num_samples
    views, x0, estimate = (
        rearrange(np.concatenate(part)[:count], "(s n) ... -> s n ...", s=len(paths))
        for part in zip(*drawn, strict=True)
    )
    return Drawn(views, x0, estimate[:, 0])


_look = jax.jit(look, static_argnames=("model", "size"))


def _render_paths(
    look_along: Callable[[Camera], Pictures], cameras: Sequence[Camera], size: int, zoom: int, devices: int, bar: tqdm
) -> Pictures:
    """What path cameras [b] of [m] poses see of scenes [b]: pictures [b, m, side, side], a few poses a call."""
    side = size * zoom
    camera = jax.tree.map(lambda *c: np.stack(c).astype(np.float32), *cameras)
    num_poses = camera.intrinsics.shape[1]
    on_each = max(1, PIXELS_PER_LOOK // (len(cameras) * side**2))
    at_once = devices * min(-(-num_poses // devices), on_each)
    pictures = []
    for start in range(0, num_poses, at_once):
        poses = np.minimum(np.arange(start, start + at_once), num_poses - 1)  # calls of one shape: one compilation
        part = Camera(camera.camera_to_world[:, poses], camera.intrinsics[:, poses])
        pictures.append(jax.device_get(look_along(part)))
        bar.update(len(cameras) * min(at_once, num_poses - start) * zoom**2)
    return jax.tree.map(lambda *p: np.concatenate(p, axis=1)[:, :num_poses], *pictures)


def pairs_at_once(image_size: int) -> int:
    """Scenes and samples that one device draws in one call."""
    return max(1, PIXELS_PER_DRAW // image_size**2)


def batches(num_scenes: int, num_samples: int, image_size: int, devices: int = 1) -> list[list[tuple[int, int]]]:
    """All (scene, sample) pairs in batches of one size, a multiple of the devices; the last is filled up by repeating
    the last pair."""
    pairs = [(i, j) for i in range(num_scenes) for j in range(num_samples)]
    size = devices * min(-(-len(pairs) // devices), pairs_at_once(image_size))
    parts = [pairs[start : start + size] for start in range(0, len(pairs), size)]
    parts[-1] += parts[-1][-1:] * (size - len(parts[-1]))
    return parts
