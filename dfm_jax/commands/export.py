"""`--mode=export`: what others need of a trained model, below `<workdir>/export`.

    checkpoints/<step>/{ema,config}   a workdir of its own: `--mode=sample --workdir=<workdir>/export` takes it
    denoiser.jax_export               one denoising step as StableHLO for cpu, cuda and tpu: needs jax alone
    params.npz, inputs.npz            its parameters; its other inputs for some scenes, where there is data
    export.json                       what is in there, and how it is called

The denoiser is a function of flat dictionaries `(params, inputs, x_t [b, h, w, 3], timestep [b] int32) -> x0`, images
`x` in [-1, 1] (of models without images, observations of another `shape`), for any number `b` of scenes; `inputs` are
the context (images in [0, 1], cameras and bounds) and the target's camera, named as in `structs.Example`. Guidance is
part of it, thresholding is not.
`examples/sample_exported.py` samples with it.
"""

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from dfm_jax.config import Config
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.errors import UserError
from dfm_jax.examples import abstract_example, held_out_examples
from dfm_jax.forward_models.build import make_model
from dfm_jax.forward_models.protocol import ForwardModel, parameter_shapes
from dfm_jax.runs import fingerprints
from dfm_jax.runs.barriers import from_first
from dfm_jax.runs.checkpoint_files import require_checkpoints
from dfm_jax.runs.checkpoints import Checkpoints, Retention
from dfm_jax.runs.output_folders import check_ours, check_room, replacing
from dfm_jax.runs.workdirs import results_folder
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.sampling.trained import restore_trained
from dfm_jax.structs import Camera, Example, Views

logger = logging.getLogger(__name__)

PLATFORMS = ("cpu", "cuda", "tpu")
FOLDER = "export"
OURS = ("checkpoints", "denoiser.jax_export", "params.npz", "inputs.npz", "export.json")
NUM_EXAMPLES = 4

Inputs = Mapping[str, Array]


def export(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None = None) -> None:
    """Exports the averaged parameters of the last checkpoint of `workdir`, and the denoiser of `config`, to `out` (by
    default `<workdir>/export`). What was exported before stays until this is complete. Of several processes, the first
    one exports.

    Raises:
      UserError: there is no checkpoint, it is of another model, guidance carries momentum from step to step, another
        run exports there, or the folder cannot be written.
    """
    if config.sample.guidance_momentum:
        raise UserError("an exported denoiser carries nothing from step to step: set config.sample.guidance_momentum=0")
    from_first(partial(_export, config, workdir, out))


def _export(config: Config, workdir: str | os.PathLike, out: str | os.PathLike | None) -> None:
    require_checkpoints(workdir)
    folder = results_folder(workdir, FOLDER, out)
    if out:
        check_ours(folder, OURS, "export.json")
    with replacing(folder, OURS, "exporting") as building:
        step = _write(config, workdir, building)
        names = ", ".join(sorted(path.name for path in building.iterdir()))
    logger.info(f"exported step {step} to {folder}: {names}")


def _write(config: Config, workdir: str | os.PathLike, folder: pathlib.Path) -> int:
    """Writes everything to `folder`; returns the step of the parameters."""
    trained = restore_trained(config, workdir)
    params, step = trained.params, trained.step
    model = make_model(config)
    check_room(folder.parent, 2 * sum(x.nbytes for x in jax.tree.leaves(params)))  # as a checkpoint, and by names
    with Checkpoints(folder, keep=Retention(1), alone=True) as checkpoints:
        # Arrays of one process among several are saved as numpy's.
        checkpoints.save_trees(step, config, ema=params if jax.process_count() == 1 else jax.device_get(params))
    flat = {name: np.asarray(array) for name, array in flatten_dict(params, sep="/").items()}
    np.savez(folder / "params.npz", **flat)
    (folder / "denoiser.jax_export").write_bytes(export_denoiser(config, model))
    inputs = _some_inputs(config)
    if inputs is not None:
        np.savez(folder / "inputs.npz", **inputs)
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    shape = jax.eval_shape(model.target, abstract_example(config, 1))[0].shape[1:]
    about = _description(config, step, schedule.alpha_bar, shape)
    about |= {"parameters": fingerprints.of_arrays(params), "sha256": _checksums(folder)}
    (folder / "export.json").write_text(json.dumps(about, indent=1) + "\n")
    return step


def _checksums(folder: pathlib.Path) -> dict[str, str]:
    """Of the files beside export.json, by name: who reads them can tell whether they are whole."""
    checksums = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        with path.open("rb") as file:
            checksums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return checksums


def export_denoiser(config: Config, model: ForwardModel) -> bytes:
    """One denoising step, for all `PLATFORMS` and any number of scenes, as jax reads it back."""
    example = abstract_example(config, 1)
    inputs = jax.eval_shape(to_inputs, example)
    (b,) = jax.export.symbolic_shape("b", constraints=["b >= 1"])
    symbolic = lambda x: jax.ShapeDtypeStruct((b, *x.shape[1:]), x.dtype)
    params = flatten_dict(parameter_shapes(model), sep="/")
    arguments = (
        params,
        {name: symbolic(x) for name, x in inputs.items()},
        symbolic(jax.eval_shape(model.target, example)[0]),
        jax.ShapeDtypeStruct((b,), jnp.int32),
    )
    exported = jax.export.export(jax.jit(flat_denoiser(config, model)), platforms=PLATFORMS)(*arguments)
    return bytes(exported.serialize())


def flat_denoiser(config: Config, model: ForwardModel) -> Callable[[Inputs, Inputs, Array, Array], Array]:
    """The function that is exported: guided as the config samples, for each scene by itself."""
    schedule = cosine_schedule(config.diffusion.num_timesteps)
    settings = dataclasses.replace(config.sample, context_cache_gb=0.0)  # there is one step

    def one(params: Any, inputs: Inputs, x_t: Array, timestep: Array) -> Array:
        sampler = DiffusionSampler(model, params, schedule, settings)
        example = to_example(jax.tree.map(lambda x: x[None], inputs), abstract_example(config, 1))
        denoise = sampler.denoise_fn(sampler.cache_context(example))
        average = jnp.zeros_like(x_t)[None]  # nothing is carried from step to step
        return denoise(x_t[None], timestep[None], average)[0][0]

    def denoiser(params: Inputs, inputs: Inputs, x_t: Array, timestep: Array) -> Array:
        return jax.vmap(one, in_axes=(None, 0, 0, 0))(unflatten_dict(dict(params), sep="/"), inputs, x_t, timestep)

    return denoiser


def to_inputs(example: Any) -> dict[str, Array]:
    """What the denoiser needs of an example [b], flat; of one that is not of posed images, all."""
    if not isinstance(example, Example):
        return _by_path(example)
    context, target = example.context, example.target
    return {
        "context/images": context.images,
        "context/camera_to_world": context.camera.camera_to_world,
        "context/intrinsics": context.camera.intrinsics,
        "context/absolute_pose": context.absolute_pose,
        "context/valid": context.valid,
        "target/camera_to_world": target.camera.camera_to_world[:, 0],
        "target/intrinsics": target.camera.intrinsics[:, 0],
        "target/absolute_pose": target.absolute_pose[:, 0],
        "near": example.near,
        "far": example.far,
    }


def _by_path(tree: Any) -> dict[str, Array]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def to_example(inputs: Inputs, like: Any) -> Any:
    """The example [b] with such inputs, of another's form. Pictures of its targets are black: the denoiser does not
    look at them."""
    if not isinstance(like, Example):
        return jax.tree.unflatten(jax.tree.structure(like), [inputs[name] for name in _by_path(like)])
    images, num_target = inputs["context/images"], like.target.valid.shape[1]
    target = lambda name: jnp.repeat(inputs[f"target/{name}"][:, None], num_target, axis=1)
    return Example(
        context=Views(
            images=images,
            camera=Camera(inputs["context/camera_to_world"], inputs["context/intrinsics"]),
            absolute_pose=inputs["context/absolute_pose"],
            valid=inputs["context/valid"],
        ),
        target=Views(
            images=jnp.zeros((images.shape[0], num_target, *images.shape[2:])),
            camera=Camera(target("camera_to_world"), target("intrinsics")),
            absolute_pose=target("absolute_pose"),
            valid=jnp.ones((images.shape[0], num_target), bool),
        ),
        near=inputs["near"],
        far=inputs["far"],
        index=jnp.zeros(images.shape[0], jnp.int32),
    )


def _some_inputs(config: Config) -> dict[str, np.ndarray] | None:
    """Of the first evaluation scenes; None where the data set is not here."""
    number = min(NUM_EXAMPLES, config.sample.num_scenes)
    try:
        example, _ = held_out_examples(config, number)
    except UserError as error:
        logger.info(f"without inputs.npz: {error}")
        return None
    return {name: np.asarray(x) for name, x in to_inputs(example).items()}


def _description(config: Config, step: int, alpha_bar: Array, shape: tuple[int, ...]) -> dict[str, Any]:
    """`shape`: of one observation."""
    return {
        "step": step,
        "platforms": PLATFORMS,
        "image_size": config.image_size,
        "shape": shape,
        "guidance": config.sample.guidance,
        "temperature": config.sample.temperature,
        "num_steps": config.sample.num_steps,
        "call": "denoiser(params, inputs, x_t [b, *shape] in [-1, 1], timestep [b] int32) -> x0 [b, *shape]",
        "alpha_bar": np.asarray(alpha_bar, np.float64).tolist(),
    }
