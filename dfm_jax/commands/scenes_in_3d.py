"""Pages in 3D of what `--mode=sample` sampled, one for each of the first scenes."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dfm_jax.exports.protocol import NUM_VIEWS
from dfm_jax.exports.renderings import NothingOpaque, of_samples
from dfm_jax.pages.scene_media import scene_folder
from dfm_jax.sampling.sample_summary import SceneResult
from dfm_jax.sampling.scenes import SampledScene, Scenes
from dfm_jax.sampling.trajectories import Trajectory
from dfm_jax.structs import Camera
from dfm_jax.viewer import page

logger = logging.getLogger(__name__)

PAGE_IN_3D = "scene.html"
SIDE = 48  # of renderings that gaussians are fitted to: larger ones take longer, and there are many


def in_3d(
    folder: Path, results: Sequence[SceneResult], scenes: Scenes, paths: Sequence[Trajectory], count: int
) -> list[SceneResult]:
    """Writes pages in 3D of the first `count` scenes below `folder`, and returns all results with where they are.

    Args:
      paths: of the cameras of videos, relative to the first context views.
    """
    shown = min(count, len(results))
    num_samples = min(scenes.num_samples, page.MOST_SAMPLES)
    steps = shown * num_samples * page.NUM_STEPS
    results = list(results)
    with tqdm(total=steps, unit="step", desc="fitting gaussians", disable=not shown) as bar:
        for i in range(shown):
            first = i * scenes.num_samples
            found = _page(scenes[first : first + num_samples], paths[i], bar)
            if found is None:
                logger.info(f"scene {i + 1} is not shown in 3D: in one of its samples nothing is opaque")
                continue
            html, psnr = found
            name = f"{scene_folder(i)}/{PAGE_IN_3D}"
            (folder / name).write_text(html, encoding="utf-8")
            results[i] = dataclasses.replace(results[i], page_in_3d=name, gaussians_psnr=psnr)
    return results


def _page(samples: Sequence[SampledScene], path: Trajectory, bar: tqdm) -> tuple[str, float] | None:
    """The page of samples behind one photograph, and the PSNR of its gaussians; None where one has no surface."""
    views = of_samples(samples, NUM_VIEWS, SIDE)
    try:
        fitted = page.fit_samples(views, lambda done, total: bar.update())
    except NothingOpaque:
        return None
    world = samples[0].sampled.world[samples[0].source]
    cameras = Camera(world @ path.frames.camera_to_world, path.frames.intrinsics)
    return page.scene_page(views, fitted, cameras), float(np.mean([each.psnr_to_field for each in fitted]))
