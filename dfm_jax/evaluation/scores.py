"""What one evaluated scene scores: everything that can be said of its samples without the other scenes.

Letters: `n` samples, `t` target views, `v` context views, `k = v + t`, `h w` pixels. Images are in [0, 1].
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array
from jaxtyping import Float, Int

from dfm_jax.evaluation import epipolar_consistency, surfaces
from dfm_jax.evaluation.camera_errors import CameraErrors
from dfm_jax.evaluation.consistency import consistency
from dfm_jax.evaluation.image_metrics import SSIM_WINDOW, psnr, ssim
from dfm_jax.evaluation.spread import LARGEST_PSNR, Scalars, spread_scores
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.models import dists, lpips
from dfm_jax.models.dists import Dists
from dfm_jax.structs import Camera, Example, RenderedViews

# Rendered views [n, k, h, w, 3], poses [k, 4, 4] and intrinsics [k, 3, 3] -> how far the cameras are off.
CamerasFn = Callable[[np.ndarray, np.ndarray, np.ndarray], CameraErrors]


@struct.dataclass
class SceneSamples:
    """All samples of one scene."""

    views: RenderedViews  # [n, k, h, w] the sampled scenes at the context and target cameras
    x0: np.ndarray  # [n, h, w, 3] what diffusion ended with, of target view 0
    estimate: np.ndarray  # [h, w, 3] the deterministic estimate of target view 0


@dataclasses.dataclass(frozen=True)
class Foreground:
    """What counts where the samples of one scene are compared with its true views, those that are no padding; bool.

    PSNR, errors, spread and coverage are of these pixels alone; SSIM, LPIPS and DISTS of pictures that are black
    elsewhere.
    """

    context: np.ndarray  # [v, h, w]
    target: np.ndarray  # [t, h, w]


@dataclasses.dataclass(frozen=True)
class SceneScores:
    """Lists over samples and target views; None where something cannot be measured. PSNR is in dB."""

    name: str
    context_psnr: list[float]  # [n] the context views rendered again
    scene_psnr: list[float]  # [n] the sampled scene against the (guided) image that diffusion ended with
    psnr: list[list[float | None]]  # [n][t] against the true views; None of one without any foreground
    ssim: list[list[float | None]] | None  # [n][t]
    lpips: list[list[float | None]] | None  # [n][t]
    depth_error: list[list[float]] | None  # [n][t] mean difference of distances, units of the scene
    estimate_psnr: float  # the deterministic estimate
    reprojection: list[float]  # [n] pixels; see `consistency.py`
    reprojection_colour: list[float]  # [n]
    contradicted: list[float]  # [n] share
    variance: float  # over samples, averaged over the pixels and colours of target view 0
    pairwise_lpips: float | None  # between samples at target view 0, averaged over pairs
    modes: list[list[int]] | None  # [n][t] the hidden case, where odds are known; -1 where a view does not show it
    clean: list[bool] | None  # [n] toy: whether target view 0 shows one colour
    # What earlier versions did not store. Frames are `{number, name}` as their source has them.
    context_frames: list[dict[str, int | str | None]] | None = None  # [v]
    target_frames: list[dict[str, int | str | None]] | None = None  # [t]
    dists: list[list[float]] | None = None  # [n][t]
    tsed: list[float] | None = None  # [n] share of neighbouring views that are consistent; `epipolar_consistency.py`
    # [n] of the cameras that structure-from-motion finds, see `camera_errors.py`; None of samples not asked for.
    rotation_error: list[float | None] | None = None  # degrees
    translation_error: list[float | None] | None = None  # relative to the extent of the cameras
    registered_views: list[float | None] | None = None  # share
    scale: float | None = None  # of the cameras, the best of those that were tried; None: the data set's own
    chamfer: list[float | None] | None = None  # [n] between the surfaces seen and the true ones, units of the scene
    mean_sample_psnr: list[float] | None = None  # [t] of the samples' mean
    ause: float | None = None  # of the samples' spread in each pixel against the error of their mean; `uncertainty.py`
    aurc: float | None = None  # colour units
    coverage: list[float] | None = None  # of pixels, for each of `uncertainty.LEVELS`
    places: dict[str, float] | None = None  # of the truth among the samples in [0, 1], of numbers of the whole scene
    scalars: dict[str, list[float | None]] | None = None  # [n] these numbers; None where a sample does not tell


def measure(
    name: str,
    example: Example,
    samples: SceneSamples,
    *,
    grid: str,
    lpips_fn: lpips.Distance | None,
    dists_fn: Dists | None = None,
    cameras_fn: CamerasFn | None = None,
    depth: np.ndarray | None = None,
    modes: np.ndarray | None = None,
    clean: np.ndarray | None = None,
    scalars: Scalars | None = None,
    foreground: Foreground | None = None,
) -> SceneScores:
    """Compares the samples of one scene with its views and with each other.

    Args:
      example: without batch axis; padding views are left out.
      grid: where pixels lie, 'centres' or 'corners'.
      lpips_fn: LPIPS, if its weights are there.
      dists_fn: DISTS, likewise.
      cameras_fn: finds the cameras of views, if that is asked for (`camera_errors.of_samples`).
      depth: [t, h, w] true distances at all target views, infinite where a ray meets nothing; None: unknown.
      modes: [n, t] hidden cases at all target views, where odds are known.
      clean: [n, t] whether they are of one colour.
      scalars: attributes that are uncertain, see `spread_scores`.
      foreground: what counts against the true views; None: everything.
    """
    num_context, shown = len(example.context.valid), np.asarray(example.target.valid)
    truth = np.asarray(example.target.images)[shown]
    views, valid = samples.views, np.asarray(example.context.valid)
    targets = views.rgb[:, num_context:][:, shown]
    contexts, context_truth = views.rgb[:, :num_context][:, valid], np.asarray(example.context.images)[valid]
    inside = foreground or Foreground(np.ones(context_truth.shape[:3], bool), np.ones(truth.shape[:3], bool))
    return SceneScores(
        name=name,
        context_psnr=[_psnr(sample, context_truth, inside.context) for sample in contexts],
        scene_psnr=[_psnr(sample[0], x0) for sample, x0 in zip(targets, samples.x0, strict=True)],
        psnr=view_psnr(example, samples, foreground),
        estimate_psnr=_psnr(samples.estimate, truth[0], inside.target[0]),
        variance=float(targets[:, 0].var(0).mean()),
        modes=None if modes is None else modes[:, shown].tolist(),
        clean=None if clean is None else clean[:, 0].tolist(),
        **_of_surfaces(views, example, depth, grid),
        **_perceived(targets, truth, inside.target, lpips_fn, dists_fn),
        **_consistent(views, example, grid),
        **_of_cameras(cameras_fn, views, example),
        **spread_scores(targets, truth, int(example.index), scalars, inside.target),
    )


def view_psnr(
    example: Example, samples: SceneSamples, foreground: Foreground | None = None
) -> list[list[float | None]]:
    """[n][t] of each sample at each target view that is no padding; for one scene, as `measure`."""
    num_context, shown = len(example.context.valid), np.asarray(example.target.valid)
    targets, truth = samples.views.rgb[:, num_context:][:, shown], np.asarray(example.target.images)[shown]
    inside = np.ones(truth.shape[:3], bool) if foreground is None else foreground.target
    return [[_psnr(*view) for view in zip(sample, truth, inside, strict=True)] for sample in targets]


def _perceived(
    targets: np.ndarray,
    truth: np.ndarray,
    inside: np.ndarray,
    lpips_fn: lpips.Distance | None,
    dists_fn: Dists | None,
) -> dict[str, Any]:
    """SSIM, LPIPS and DISTS, of images that are large enough; against the truth they are black outside."""
    of_size = lambda smallest: min(truth.shape[1:3]) >= smallest
    perceptual = lpips_fn if of_size(lpips.SMALLEST_IMAGE) else None
    pair = [np.where(inside[..., None], images, 0) for images in (targets, truth)]
    seen = inside.any((1, 2))
    known = lambda row: [x if is_seen else None for x, is_seen in zip(row, seen, strict=True)]
    each = lambda values: [known(row) for row in np.asarray(values).tolist()]
    dists_fn = dists_fn if of_size(dists.SMALLEST_IMAGE) else None
    return {
        "ssim": each(ssim(pair[0], np.broadcast_to(pair[1], targets.shape))) if of_size(SSIM_WINDOW) else None,
        "lpips": each(_against_truth(perceptual, *pair)) if perceptual else None,
        "dists": each(_all_dists(dists_fn, *pair)) if dists_fn else None,
        "pairwise_lpips": _pairwise(perceptual, targets[:, 0]) if perceptual else None,
    }


def _consistent(views: RenderedViews, example: Example, grid: str) -> dict[str, list[float | None]]:
    seen = _reproject(views, *_cameras(example), grid=grid)
    found = {"reprojection": seen.reprojection, "reprojection_colour": seen.colour, "contradicted": seen.contradicted}
    pictures, *cameras = _pictures(views, example)
    tsed = None
    if min(pictures.shape[2:4]) >= epipolar_consistency.SMALLEST_IMAGE:
        tsed = [epipolar_consistency.consistent_pairs(images, *cameras, grid) for images in pictures]
    return {name: _numbers(values) for name, values in found.items()} | {"tsed": tsed}


def _of_cameras(cameras_fn: CamerasFn | None, views: RenderedViews, example: Example) -> dict[str, Any]:
    return {} if cameras_fn is None else dataclasses.asdict(cameras_fn(*_pictures(views, example)))


def _pictures(views: RenderedViews, example: Example) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rendered views [n, k, h, w, 3] that are no padding, their poses and intrinsics."""
    camera, valid = _cameras(example)
    cameras = np.asarray(camera.camera_to_world)[valid], np.asarray(camera.intrinsics)[valid]
    return np.asarray(views.rgb)[:, valid], *cameras


@jax.jit
def _all_dists(
    dists_fn: Dists, samples: Float[Array, "n t h w 3"], truth: Float[Array, "t h w 3"]
) -> Float[Array, "n t"]:
    return jax.lax.map(lambda images: dists_fn(images, truth), samples)


def _psnr(images: np.ndarray, truth: np.ndarray, inside: np.ndarray | None = None) -> float | None:
    """Of the mean error over all images, or over the pixels that are inside; None if none is."""
    if inside is not None:
        if not inside.any():
            return None
        images, truth = images[inside], truth[inside]
    return float(min(LARGEST_PSNR, psnr(images.reshape(1, -1, 3), truth.reshape(1, -1, 3))))


def _numbers(values: Array) -> list[float | None]:
    """For JSON, which has no NaN."""
    return [float(x) if np.isfinite(x) else None for x in np.asarray(values)]


def _of_surfaces(
    views: RenderedViews, example: Example, depth: np.ndarray | None, grid: str
) -> dict[str, list[list[float | None]] | list[float | None] | None]:
    """The errors of depth [n][t], and the Chamfer distances [n] of all that the target views show together.

    Args:
      depth: [t, h, w] at all target views; None: unknown.
    """
    if depth is None:
        return {"depth_error": None, "chamfer": None}
    num_context, shown = len(example.context.valid), np.asarray(example.target.valid)
    depth = depth[shown]
    of_targets = lambda x: np.asarray(x)[:, num_context:][:, shown]
    camera = jax.tree.map(lambda x: jnp.asarray(x)[shown], example.target.camera)
    xy = pixel_grid(*depth.shape[1:], grid).reshape(1, -1, 2)
    rays = jax.device_get(cast_rays(camera, xy))
    origins, directions = rays.origins[:, 0], rays.directions.reshape(*depth.shape, 3)
    found = np.where(of_targets(views.opacity) < surfaces.SOLID, np.inf, of_targets(views.surface_depth()))
    true = surfaces.seen_points(origins, directions, depth)
    clouds = (surfaces.seen_points(origins, directions, distances) for distances in found)
    chamfer = [surfaces.chamfer_distance(cloud, true) for cloud in clouds]
    return {"depth_error": _depth_error(of_targets(views.depth_before(float(example.far))), depth), "chamfer": chamfer}


def _depth_error(distances: np.ndarray, truth: np.ndarray) -> list[list[float | None]]:
    """[n][t] mean absolute difference where there is something; what is drawn as empty there counts as `far`."""
    hit = np.isfinite(truth)
    error = np.where(hit, np.abs(distances - np.where(hit, truth, 0)), 0).sum((2, 3))
    return [_numbers(row) for row in error / np.where(hit.any((1, 2)), hit.sum((1, 2)), np.nan)]


def _cameras(example: Example) -> tuple[Camera, np.ndarray]:
    camera = jax.tree.map(lambda *c: np.concatenate(c), example.context.camera, example.target.camera)
    return camera, np.concatenate([example.context.valid, example.target.valid])


def _reproject(views: RenderedViews, camera: Camera, valid: np.ndarray, *, grid: str) -> jax.Array:
    return jax.device_get(_consistency(views, camera, valid, grid=grid))


def _over_samples(views: RenderedViews, camera: Camera, valid: Array, *, grid: str) -> Array:
    return jax.lax.map(lambda one: consistency(one, camera, valid, grid), views)


_consistency = jax.jit(_over_samples, static_argnames="grid")


@jax.jit
def _against_truth(
    lpips_fn: lpips.Distance, samples: Float[Array, "n t h w 3"], truth: Float[Array, "t h w 3"]
) -> Float[Array, "n t"]:
    """One sample at a time, so that memory does not grow with samples."""
    known = lpips_fn.features(truth)
    return jax.lax.map(lambda images: lpips_fn.between(lpips_fn.features(images), known), samples)


@jax.jit
def _between_samples(
    lpips_fn: lpips.Distance, samples: Float[Array, "n h w 3"], pairs: Int[Array, "p 2"]
) -> Float[Array, "p"]:
    seen = jax.lax.map(lambda image: lpips_fn.features(image[None]), samples)  # of each block [n, 1, h, w, c]
    return jax.lax.map(lambda pair: lpips_fn.between(*([x[i] for x in seen] for i in pair))[0], pairs)


def _pairwise(lpips_fn: lpips.Distance, samples: np.ndarray) -> float | None:
    """Mean distance of all pairs of samples [n, h, w, 3]; None of a single one."""
    pairs = np.array(list(itertools.combinations(range(len(samples)), 2)))
    return float(_between_samples(lpips_fn, samples, pairs).mean()) if len(pairs) else None
