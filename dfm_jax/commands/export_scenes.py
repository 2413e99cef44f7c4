"""The formats of `--mode=export` that hold sampled scenes, as others open them (docs/exports.md).

scene_00/sample_00/{points.ply,mesh.glb,transforms/,...}   a file or folder of each format
scene_00/scene.html                                        of one that shows all samples
scenes.npz                                                 the scenes, if they were sampled for this
exports.json                                               what the command's last line says
"""

import json
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dfm_jax.commands.kept_scenes import SCENES, find_scenes, sample_scenes
from dfm_jax.data.make_toy import with_data_set
from dfm_jax.errors import UserError
from dfm_jax.exports.formats import Format, export, tell_unknown
from dfm_jax.exports.renderings import NothingOpaque, of_samples
from dfm_jax.pages.scene_media import sample_folder, scene_folder
from dfm_jax.runs.barriers import from_first, is_first
from dfm_jax.runs.output_folders import replacing
from dfm_jax.sampling.sampler import Sampler
from dfm_jax.sampling.scenes import Scenes

logger = logging.getLogger(__name__)

MARK = "exports.json"
OURS = ("scene_*", SCENES, MARK)
Told = dict[str, list[dict[str, Any]]]  # of each format's files


def export_scenes(
    trained: Sampler, workdir: str | os.PathLike, folder: Path, formats: Sequence[Format], num_views: int
) -> dict[str, Any]:
    """Exports the scenes that `--mode=sample` sampled with this model in its `workdir`, or that were sampled for
    an earlier export; where there are none, it samples some. What was exported before stays until this is complete.
    Of several processes, the first one does all that.

    Returns:
      `files, frame, scale, psnr_to_field, formats`, as docs/exports.md says; JSON can hold it.

    Raises:
      UserError: there is no data set to sample from, another run exports there, the
        folder cannot be written, or there is nothing opaque in any of the scenes.
    """
    found: list[tuple[Scenes | None, Path]] = []  # by the first process

    def find() -> bool:
        found.append(find_scenes(trained, workdir, folder))
        return found[0][0] is not None

    config = trained.config if from_first(find) else with_data_set(trained.config)

    def write() -> dict[str, Any]:
        with replacing(folder, OURS, "exporting") as building:
            scenes, path = found[0]
            if scenes is None:
                scenes = sample_scenes(config, trained)
            if path == folder / SCENES:
                scenes.save(building / SCENES)
            told = _write(scenes, formats, num_views, folder, building)
            result = _result(scenes, told)
            (building / MARK).write_text(json.dumps(result, indent=1) + "\n")
        tell_unknown(scene.frame for scene in scenes)
        logger.info(f"exported {len(result['files'])} files of {len(scenes)} scenes to {folder}")
        return result

    return from_first(write)


def _write(scenes: Scenes, formats: Sequence[Format], num_views: int, folder: Path, building: Path) -> Told:
    """Writes all files to a folder, which is to become `folder`; returns what is told of them."""
    told, num_samples, nothing = defaultdict(list), scenes.num_samples, ""
    jobs = [(n, each) for n in range(num_samples) for each in formats if n == 0 or not each.shows_all]
    num_sources = len(scenes) // num_samples
    with tqdm(total=num_sources * len(jobs), unit="file", desc="exporting", disable=not is_first()) as bar:
        for source in range(num_sources):
            # Views are rendered once for all formats, and kept for as long as other samples are compared with them.
            views = of_samples(scenes[source * num_samples : (source + 1) * num_samples], num_views, None)
            for number, chosen in jobs:
                place = scene_folder(source) if chosen.shows_all else sample_folder(source, number)
                name = f"{place}/{chosen.file_name}"
                (building / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    details = export(views[number], building / name, chosen.kind)
                except NothingOpaque as error:
                    nothing = str(error)
                    logger.warning(f"scene {source}, sample {number}: {error}")
                else:
                    told[chosen.kind].append(details | {"file": str(folder / name)})
                bar.update()
    if not told:
        raise UserError(nothing)
    return told


def _result(scenes: Scenes, told: Told) -> dict[str, Any]:
    """What the command says: of each format the means over its files of all numbers that are told of these."""
    formats: dict[str, dict[str, Any]] = {}
    for kind, files in told.items():
        numbers = {name for each in files for name, value in each.items() if isinstance(value, int | float)} - {"scale"}
        means = {name: float(np.mean([each[name] for each in files if name in each])) for name in sorted(numbers)}
        formats[kind] = {"files": [each["file"] for each in files], **means}
    frames = [scene.frame for scene in scenes]
    names, scales = {frame.name for frame in frames}, [frame.scale for frame in frames]
    # Of files of gaussians, if there are any: a page has fewer.
    fitted = [formats[kind] for kind in ("gaussians", *formats) if "psnr_to_field" in formats.get(kind, {})]
    return {
        "files": [file for entry in formats.values() for file in entry["files"]],
        "frame": names.pop() if len(names) == 1 else [frame.name for frame in frames],
        "scale": scales[0] if np.ptp(scales) == 0 else scales,
        "psnr_to_field": fitted[0]["psnr_to_field"] if fitted else None,
        "formats": formats,
    }
