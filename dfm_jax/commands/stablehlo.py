"""One denoising step as StableHLO, which jax alone runs, for cpu, cuda and tpu.

The denoiser is a function of flat dictionaries `(params, inputs, x_t [b, h, w, 3], timestep [b] int32) -> x0`, images
`x` in [-1, 1] (of models without images, observations of another `shape`), for any number `b` of scenes; `inputs` are
the context (images in [0, 1], cameras and bounds) and the target's camera, named as in `structs.Example`. Guidance is
part of it, thresholding is not.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from dfm_jax.config import Config
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.examples import abstract_example
from dfm_jax.forward_models.protocol import ForwardModel, parameter_shapes
from dfm_jax.sampling.diffusion_sampler import DiffusionSampler
from dfm_jax.structs import Camera, Example, Views

PLATFORMS = ("cpu", "cuda", "tpu")

Inputs = Mapping[str, Array]


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
