"""`--mode=export`: a trained model, and the scenes that it samples, for others, in `<workdir>/export`.

The formats `stablehlo` and `parameters` are of the model (`export_model`), all others of scenes (`export_scenes`).
"""

import os
from collections.abc import Sequence
from typing import Any

from dfm_jax.commands import export_model, export_scenes
from dfm_jax.config import Config
from dfm_jax.errors import UserError
from dfm_jax.exports import formats as of_scenes
from dfm_jax.exports.protocol import NUM_VIEWS
from dfm_jax.exports.renderings import check_views
from dfm_jax.forward_models.build import require_scenes
from dfm_jax.runs.barriers import failing_together, is_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.output_folders import check_ours
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.trained import restore_trained

FOLDER = "export"


def export(
    config: Config,
    workdir: str | os.PathLike,
    out: str | os.PathLike | None = None,
    formats: Sequence[str] = export_model.FORMATS,
    num_views: int | None = None,
) -> dict[str, Any]:
    """Exports the last checkpoint of `workdir`, and scenes that are sampled with it, to `out` (by default
    `<workdir>/export`). What was exported before stays until this is complete.

    Args:
      formats: `stablehlo`, `parameters`, and those of `exports.formats`, by kind or suffix.
      num_views: of a scene, that its files are made of, or hold; None: 24.

    Returns:
      `files, frame, scale, psnr_to_field, formats`, as docs/exports.md says; JSON can hold it.

    Raises:
      UserError: there is no such format, no checkpoint, it is of another model, another run exports there, or the
        folder cannot be written.
    """
    of_model = [name for name in export_model.FORMATS if name in formats]
    named = {name: of_scenes.of_name(name, export_model.FORMATS) for name in formats if name not in of_model}
    chosen = list(dict.fromkeys(named.values()))
    folder, num_views = results_folder(workdir, FOLDER, out), NUM_VIEWS if num_views is None else num_views
    with failing_together():
        if chosen:
            require_scenes(config, f"--format={','.join(named)}")
            check_views(num_views, None)
        if "stablehlo" in of_model:
            export_model.check(config)
        require_checkpoints(workdir)
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: exports go to a folder")
        for room in (export_model, export_scenes) if out and is_first() else ():
            check_ours(folder, room.OURS, room.MARK)
    with failing_together():
        trained = restore_trained(config, workdir)
    result = {"files": [], "frame": None, "scale": None, "psnr_to_field": None, "formats": {}}
    if of_model:
        exported = export_model.export_model(trained, folder, of_model)
        files = dict.fromkeys(file for entry in exported.values() for file in entry["files"])
        result |= {"files": list(files), "formats": exported}
    if chosen:
        more = export_scenes.export_scenes(trained, workdir, folder, chosen, num_views)
        joined = {"files": result["files"] + more["files"], "formats": result["formats"] | more["formats"]}
        result = more | joined
    return result
