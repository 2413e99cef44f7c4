"""Sampled scenes in a file: arrays by the paths of their trees, and what they were made from.

Scenes are kept as the model holds them, and so are of use to the model that made them alone: the fingerprint of its
parameters is kept with them.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dfm_jax.errors import UserError
from dfm_jax.exports.protocol import Frame
from dfm_jax.runs import fingerprints
from dfm_jax.runs.array_files import read_arrays
from dfm_jax.runs.output_folders import writing_file

ABOUT, FORMAT = "about", 1


def write_scenes(
    path: Path, trees: Mapping[str, Any], frames: Sequence[Frame], made_from: Mapping[str, Any], params: Any
) -> None:
    """Writes trees of arrays, and the frames of their sources, to one `.npz`, whole or not at all.

    Raises:
      UserError: the name is not that of an `.npz`, or it cannot be written.
    """
    if path.suffix != ".npz":
        raise UserError(f"scenes are saved as .npz, not as {path.name!r}")
    about = {"format": FORMAT, "parameters": fingerprints.of_arrays(params), "made_from": made_from}
    about["frames"] = [frame.to_json() for frame in frames]
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with writing_file(path) as unfinished, unfinished.open("wb") as opened:
        np.savez(opened, **_named(dict(trees)), **{ABOUT: text})


def read_scenes(
    path: Path, template: Mapping[str, Any], params: Any
) -> tuple[dict[str, Any], tuple[Frame, ...], dict[str, Any]]:
    """The trees, frames and origin that `write_scenes` was given.

    Args:
      template: trees like them; only their structure and their types matter.
      params: of the model that is to render them.

    Raises:
      UserError: the file is missing, damaged or another one, or another model's.
    """
    arrays = read_arrays(path)
    try:
        about = json.loads(arrays.pop(ABOUT).tobytes())
        kept, parameters, made_from = about["format"], about["parameters"], dict(about["made_from"])
        # Those that were saved before there were frames have none.
        frames = [Frame.from_json(values) for values in about["frames"]] if "frames" in about else None
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} holds no scenes that were saved by dfm_jax") from error
    if parameters != (ours := fingerprints.of_arrays(params)):
        raise UserError(
            f"the scenes in {path} are of another model ({made_from.get('name')}, step {made_from.get('step')}, "
            f"parameters {parameters}; this one's are {ours}): load that one to render them"
        )
    names = _named(template)
    if kept != FORMAT or arrays.keys() != names.keys() or len(frames or arrays["world"]) != len(arrays["world"]):
        raise UserError(f"the scenes in {path} were saved by another version of dfm_jax: sample them again")
    frames = [Frame()] * len(arrays["world"]) if frames is None else frames
    # An .npz keeps bfloat16 as two bytes without a meaning.
    typed = [x.view(names[name].dtype) if (x := arrays[name]).dtype.kind == "V" else x for name in names]
    return jax.tree.unflatten(jax.tree.structure(template), typed), tuple(frames), made_from


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their paths, such as 'example/context/images'."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
