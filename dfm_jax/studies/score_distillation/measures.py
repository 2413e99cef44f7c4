"""What is measured of results, whichever method made them.

Letters: `s` example, `n` results behind each, `v t` context and target views, `h w` pixels, `k` modes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax import Array
from jaxtyping import Float

from dfm_jax.config import Config
from dfm_jax.data.loading import toy_scenes
from dfm_jax.evaluation.appearance import appearance
from dfm_jax.evaluation.calibration import toy_modes
from dfm_jax.evaluation.calibration.calibrate import read_colours
from dfm_jax.evaluation.calibration.honest_draws import expected_total_variation, total_variation_limit
from dfm_jax.evaluation.image_metrics import psnr
from dfm_jax.evaluation.scores import LARGEST_PSNR
from dfm_jax.evaluation.signal_scores import posterior_scores
from dfm_jax.forward_models.protocol import KnownPosterior
from dfm_jax.sampling.batches import pairs_at_once
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler, Params, Samples
from dfm_jax.structs import Example
from dfm_jax.studies.held_out_scenes import HeldOutScenes


def scenes_of(config: Config, num_scenes: int, option: str) -> HeldOutScenes:
    """The scenes that everything is measured on, with a novel view at least.

    Args:
      option: of the command, which says how many.

    Raises:
      UserError: the data set is not there, or has not as many.
    """
    return HeldOutScenes.of(config, num_scenes, max(2, config.evaluate.num_target), option=option)


def of_truth(scenes: HeldOutScenes) -> dict[str, float]:
    """`appearance` of what target view 0 truly looks like; where the odds are known, with hidden colours as often as
    they say."""
    known = np.asarray(scenes.example.target.images[:, 0])
    if not toy_modes.has_known_odds(scenes.data):
        return appearance(known)
    pictures = []
    for number, indices in scenes.views:
        scene, frame = scenes.data.scene(number), indices.target[0]
        camera = scene.camera_to_world[frame, :3], scene.intrinsics[frame]
        pictures.append(toy_modes.likely_pictures(scene.attributes, *camera, known.shape[1]))
    return appearance(np.concatenate(pictures))


def of_pictures(scenes: HeldOutScenes, images: Float[np.ndarray, "s n h w 3"]) -> dict[str, Any]:
    """Of results at target view 0, in [0, 1]: `appearance`, `diversity` (the standard deviation over the results of a
    scene, averaged over pixels and colours), and where the odds are known their `total_variation`, `mode_purity` and
    `counts`."""
    found = appearance(images) | {
        "diversity": float(images.std(1).mean()),
        "num_results": images.shape[0] * images.shape[1],
    }
    if not toy_modes.has_known_odds(scenes.data):
        return found
    in_turn = rearrange(images, "s n h w c -> (n s) h w c")  # one of each scene, then the next of each
    colours = read_colours(scenes.data, scenes.views, in_turn)
    names = ("total_variation", "mode_purity", "counts")
    return {name: getattr(colours, name) for name in names} | found


def of_views(
    scenes: HeldOutScenes, images: Float[np.ndarray, "s n h w 3"], seen: Float[np.ndarray, "s n views h w 3"]
) -> dict[str, float]:
    """Of the scenes behind the results: `context_psnr` where they are rendered at the context views, and of known odds
    `agreement`, the share of novel views that show the mode of the result, among those in which a mode can be told.

    Args:
      seen: renderings at all context views, then at all target views.
    """
    context = scenes.example.context
    num_context = context.images.shape[1]
    each = psnr(seen[:, :, :num_context], np.asarray(context.images)[:, None])
    valid = np.broadcast_to(np.asarray(context.valid)[:, None], each.shape)
    found = {"context_psnr": float(np.minimum(LARGEST_PSNR, each)[valid].mean())}
    if not toy_modes.has_known_odds(scenes.data):
        return found
    same = []
    for i, (number, indices) in enumerate(scenes.views):
        scene = scenes.data.scene(number)
        poses, intrinsics = scene.camera_to_world[indices.target, :3], scene.intrinsics[indices.target]
        all_views = np.concatenate([images[i][:, None], seen[i][:, num_context + 1 :]], axis=1)
        modes, _ = toy_modes.read_views(scene.attributes, poses, intrinsics, all_views)
        novel = modes[:, 1:]
        same.append((novel == modes[:, :1])[(novel != toy_modes.UNSEEN) & (modes[:, :1] != toy_modes.UNSEEN)])
    together = np.concatenate(same)
    return found | {"agreement": float(together.mean()) if together.size else float("nan")}


def rendered_scenes(
    config: Config, params: Params, example: Example, x0: Float[np.ndarray, "s n h w 3"]
) -> Float[np.ndarray, "s n views h w 3"]:
    """The scenes that the model infers from results as finished samples, at all context and target views."""
    sampler = DiffusionSampler.from_config(config, params)
    count, num_results = x0.shape[0] * x0.shape[1], x0.shape[1]
    flat, at_once = rearrange(x0, "s n ... -> (s n) ..."), min(count, pairs_at_once(config.image_size))
    parts = []
    for start in range(0, count, at_once):
        rows = np.minimum(np.arange(start, start + at_once), count - 1)
        of_rows = jax.tree.map(lambda x, r=rows: np.asarray(x)[r // num_results], example)
        parts.append(np.asarray(_rendered(sampler, of_rows, flat[rows])))
    return rearrange(np.concatenate(parts)[:count], "(s n) ... -> s n ...", n=num_results)


@jax.jit
def _rendered(sampler: DiffusionSampler, example: Example, x0: Array) -> Array:
    context = sampler.model.encode_context(sampler.params, example)
    scene, _ = sampler.scene(Samples(x0, context))
    cameras = jax.tree.map(lambda *c: jnp.concatenate(c, axis=1), example.context.camera, example.target.camera)
    return sampler.render(scene, cameras, sampler.model.image_size, sampler.model.image_size).rgb


def of_signals(config: Config, params: Params, example: Any, x0: Float[np.ndarray, "s n ..."]) -> dict[str, Any]:
    """Of results that are no pictures: their `diversity`, and where the posterior has a closed form, the
    `posterior_scores` of the signals behind them."""
    sampler = DiffusionSampler.from_config(config, params)
    found = {"diversity": float(x0.std(1).mean()), "num_results": x0.shape[0] * x0.shape[1]}
    if not isinstance(sampler.model, KnownPosterior):
        return found
    repeated = jax.tree.map(lambda x: np.repeat(np.asarray(x), x0.shape[1], axis=0), example)
    signals = _signals(sampler, repeated, rearrange(x0, "s n ... -> (s n) ..."))
    signals = rearrange(np.asarray(signals), "(s n) d -> s n d", n=x0.shape[1])
    return found | posterior_scores(signals, *sampler.model.posterior(example))


@jax.jit
def _signals(sampler: DiffusionSampler, example: Any, x0: Array) -> Any:
    context = sampler.model.encode_context(sampler.params, example)
    return sampler.scene(Samples(x0, context), noise_level=0)[0]


def limits(num_results: int) -> dict[str, float]:
    """What as many honest draws of the toy's odds would show: the mean `total_variation`, and the `limit` that 95 % of
    experiments stay below."""
    odds = toy_scenes.HIDDEN_PROBABILITIES
    return {
        "total_variation": expected_total_variation(num_results, odds),
        "limit": total_variation_limit(num_results, odds),
    }
