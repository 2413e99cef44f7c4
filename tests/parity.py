"""Compares this model with numbers that the published code produced.

    python -m tests.parity FILE.npz...

Imports the parameters of each fixture as a user would, restores them from the checkpoint that this makes, computes
every output that the fixture has, prints the relative error of each (norm of the difference over norm of the
reference), and exits with 1 if one is above 1e-4.
"""

import argparse
import ast
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from dfm_jax import config as cfg
from dfm_jax.config.reading import from_dict
from dfm_jax.diffusion.guidance import classifier_free_guidance, dynamic_threshold
from dfm_jax.diffusion.samplers import ddim
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.diffusion.timesteps import uniform_timesteps
from dfm_jax.forward_models.protocol import Params
from dfm_jax.forward_models.radiance_field.model import RadianceFieldModel
from dfm_jax.forward_models.radiance_field.rendering import render_with_uniforms
from dfm_jax.forward_models.radiance_field.supervision import patch_pixels
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.interop import torch_checkpoint
from dfm_jax.interop.published import export_arrays
from dfm_jax.interop.published_names import LABEL_EMBEDDING, TIME_BIAS
from dfm_jax.runs.checkpoints import restore_params
from dfm_jax.structs import Camera, Example, Rendering, Scene, Views
from tests.tiny import reconfigured

Outputs = Iterator[tuple[str, jax.Array]]

# What runs once is not worth optimising.
QUICK_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
TOLERANCE = 1e-4
THRESHOLD_QUANTILE = 0.95
# Enough for all that sampling remembers of the context, so that this is compared as well.
CACHE_BYTES = 2**30
CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
LOSS = cfg.LossConfig(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, "patch", 1)


def import_fixture(path: str, meta: dict) -> tuple[Params, cfg.Config]:
    """Parameters and settings of the checkpoint that `import` makes of a fixture. They have a fine MLP, which the
    published checkpoints hold even where nothing renders it."""
    settings = {
        "model.ray_marching.num_coarse": meta["n_coarse"],
        "model.ray_marching.num_fine": max(meta["n_fine"], 1),
        "model.ray_marching.num_conditioning": meta["n_cond"],
        "model.ray_marching.chunk_size": meta["render_chunk"],
        "model.encoder.remat": False,
        "loss.lpips": 0,
    }
    config = f"--config={CONFIGS / ('co3d.py' if meta['abs_pose'] else 'realestate10k.py')}:64"
    overrides = [f"--config.{name}={value}" for name, value in settings.items()]
    with tempfile.TemporaryDirectory() as workdir:
        options = [f"--source={path}", f"--workdir={workdir}", f"--num_heads={meta['heads']}"]
        torch_checkpoint.run(["import", *options, config, *overrides])
        params, _, values = restore_params(workdir)
    return params, from_dict(values)


class Fixture:
    """A fixture's numbers, channels-last where they are images, and the model of its sizes."""

    def __init__(self, path: str):
        self.arrays = dict(np.load(path))
        self.meta = ast.literal_eval(str(self.arrays["meta"]))
        self.size: int = self.meta["size"]
        self.outputs = {k[4:]: v for k, v in self.arrays.items() if k.startswith("out/")}
        self.params, config = import_fixture(path, self.meta)
        self.with_fine = RadianceFieldModel.of(config.model, config.image_size, LOSS)
        marching = dataclasses.replace(config.model.ray_marching, num_fine=self.meta["n_fine"])
        self.model = reconfigured(self.with_fine, ray_marching=marching)
        self.example = self._example()
        self.num_views: int = self.example.target.valid.shape[1]
        self.timestep = jnp.asarray(self.arrays["inputs/t"])
        self.x_t = rearrange(jnp.asarray(self.arrays["inputs/noisy_trgt_rgb"]), "b c h w -> b h w c")

    def _example(self) -> Example:
        inputs = {k[7:]: jnp.asarray(v) for k, v in self.arrays.items() if k.startswith("inputs/")}

        def views(images: str, poses: str, absolute: str) -> Views:
            b, v = inputs[poses].shape[:2]
            intrinsics = jnp.broadcast_to(inputs["intrinsics"][:, None], (b, v, 3, 3))
            return Views(
                images=rearrange(inputs[images] / 2 + 0.5, "b v c h w -> b v h w c"),
                camera=Camera(inputs[poses], intrinsics),
                absolute_pose=inputs[absolute][..., :3, :],
                valid=jnp.ones((b, v), bool),
            )

        context = views("ctxt_rgb", "ctxt_c2w", "ctxt_abs_camera_poses")
        target = views("trgt_rgb", "trgt_c2w", "trgt_abs_camera_poses")
        b = context.valid.shape[0]
        full = lambda value: jnp.full((b,), value, jnp.float32)
        return Example(context, target, full(self.meta["near"]), full(self.meta["far"]), jnp.arange(b))

    def uniforms(self, name: str) -> np.ndarray | None:
        """Recorded uniform numbers `[draws, rows, n_fine]`; None where the fixture has no importance samples."""
        found = self.arrays.get(f"inputs/{name}")
        return found if self.meta["n_fine"] and found is not None and found.size else None


def scene_outputs(params: dict, fx: Fixture) -> Outputs:
    """The encoder, the deterministic estimate, the fields at points, and all target views in full."""
    context = fx.model.encode_context(params, fx.example)
    yield "encoder_clean_context", rearrange(context.scene.views.features, "b v h w c -> (b v) c h w")
    scene, estimate = fx.model.infer(params, context, fx.x_t, fx.timestep)
    yield "encoder_noisy_target", rearrange(scene.views.features[:, -1], "b h w c -> b c h w")
    values = jnp.concatenate([2 * estimate.rgb - 1, estimate.depth[..., None], estimate.features], axis=-1)
    yield "conditioning_rgb_depth_features", rearrange(values, "b (h w) c -> b c h w", h=fx.size)
    points = jnp.asarray(fx.arrays["inputs/field_points"])[:, :, None]
    for part in ("coarse", "fine"):
        field, variables = fx.with_fine.networks.field("scene_field"), {"params": params["scene_field"][part]}
        density, radiance = field.apply(variables, scene.views, points)
        yield f"field_density_{part}", density
        yield f"field_radiance_{part}", radiance[:, :, 0]
    yield from view_outputs(params, fx, scene)


def view_outputs(params: dict, fx: Fixture, scene: Scene) -> Outputs:
    """All target views in full, rendered as one set of rays."""
    uniforms = fx.uniforms("importance_uniforms_full_image")
    if uniforms is not None:
        split = {"b": len(fx.timestep), "t": fx.num_views}
        uniforms = jnp.asarray(rearrange(uniforms, "n (b t p) m -> b (t n p) m", **split))
    xy = rearrange(pixel_grid(fx.size, fx.size, "corners"), "h w xy -> 1 1 (h w) xy")
    rays = jax.tree.map(lambda x: rearrange(x, "b t r c -> b (t r) c"), cast_rays(fx.example.target.camera, xy))
    views = render_with_uniforms(params, fx.model.networks, scene, rays, uniforms)
    layout = {"t": fx.num_views, "h": fx.size}
    yield "denoised_views_rgb", rearrange(2 * views.rgb - 1, "b (t h w) c -> (b t) c h w", **layout)
    yield "denoised_views_depth", rearrange(views.depth, "b (t h w) -> (b t) h w", **layout)


def patch_losses(params: dict, fx: Fixture) -> tuple[jax.Array, tuple[Rendering, jax.Array, jax.Array]]:
    """Sum of the patch loss and the estimate's loss, and what they are made of."""
    example, size, num_views = fx.example, fx.size, fx.num_views
    side = int(np.sqrt(fx.outputs["patch_rgb"].shape[-1]))
    corner = lambda name: jnp.repeat(jnp.asarray(fx.arrays[f"inputs/{name}"])[:, None], num_views, axis=1)
    pixels = jax.vmap(lambda top, left: patch_pixels(top, left, side, size))(corner("patch_top"), corner("patch_left"))
    flat = lambda x: rearrange(x, "b t r ... -> b (t r) ...")
    colours = rearrange(example.target.images, "b t h w c -> b t (h w) c")
    truth = 2 * flat(jnp.take_along_axis(colours, pixels[..., None], axis=2)) - 1
    rays = cast_rays(example.target.camera, pixel_grid(size, size, "corners").reshape(-1, 2)[pixels])

    scene, estimate = fx.model.infer(params, fx.model.encode_context(params, example), fx.x_t, fx.timestep)
    rendering = render_with_uniforms(params, fx.model.networks, scene, jax.tree.map(flat, rays), None)
    patch_loss = jnp.mean(jnp.square(2 * rendering.rgb - 1 - truth))
    conditioning_loss = jnp.mean(jnp.square(fx.model.to_x0(estimate) - fx.model.estimate_truth(example)))
    return patch_loss + conditioning_loss, (rendering, patch_loss, conditioning_loss)


def loss_outputs(params: dict, fx: Fixture) -> Outputs:
    """Patch, losses and gradients, where the fixture has them."""
    if "patch_loss" not in fx.outputs:
        return
    (_, (rendering, patch_loss, conditioning_loss)), gradients = jax.value_and_grad(patch_losses, has_aux=True)(
        params, fx
    )
    yield "patch_rgb", rearrange(2 * rendering.rgb - 1, "b (t r) c -> (b t) c r", t=fx.num_views)
    yield "patch_depth", rearrange(rendering.depth, "b (t r) -> (b t) r", t=fx.num_views)
    yield "patch_loss", patch_loss
    yield "conditioning_loss", conditioning_loss
    yield "gradients", gradients


def named_gradients(gradients: dict, fx: Fixture) -> Outputs:
    """The gradients that the fixture has, under the published names."""
    named = export_arrays(gradients, fx.with_fine)
    # The label embedding is folded into this bias, so that their gradients are one.
    named[LABEL_EMBEDDING] = named[TIME_BIAS]
    for key in fx.outputs:
        kind, _, name = key.partition("/")
        if kind == "grad":
            yield key, named[name]
        elif kind == "grad_norm":
            yield key, np.linalg.norm(named[name])


def schedule_outputs(params: dict, fx: Fixture) -> Outputs:
    del params, fx  # the schedule has neither
    schedule = cosine_schedule(1000)
    yield "schedule_betas", schedule.beta
    yield "schedule_alphas_cumprod", schedule.alpha_bar
    yield "schedule_sqrt_alphas_cumprod", schedule.signal_rate
    yield "schedule_sqrt_one_minus_alphas_cumprod", schedule.noise_rate
    yield "schedule_posterior_variance", schedule.posterior_variance


def trajectory_outputs(params: dict, fx: Fixture) -> Outputs:
    """The whole DDIM run from the recorded noise, guided as the fixture says: both branches run as one batch."""
    model, scale, b = fx.model, fx.meta["guidance"], len(fx.timestep)
    branches = 1 if scale == 1 else 2
    repeated = lambda tree: jax.tree.map(lambda x: jnp.concatenate([x] * branches), tree)
    example = model.drop_context(repeated(fx.example), jnp.repeat(jnp.arange(branches) > 0, b))
    recorded = sampling_uniforms(fx, branches)
    context = model.encode_context(params, example)
    rays, cache = model.cache(params, context, model.target(example)[1], CACHE_BYTES)

    def denoise(x_t: jax.Array, timestep: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        scene, _ = model.infer(params, context, repeated(x_t), repeated(timestep))
        uniforms = None if recorded is None else recorded[step]
        x0 = model.to_x0(render_with_uniforms(params, model.networks, scene, rays, uniforms, cache))
        x0 = x0.reshape(branches, *x_t.shape)
        guided = x0[0] if branches == 1 else classifier_free_guidance(x0[0], x0[1], scale)
        return dynamic_threshold(guided, THRESHOLD_QUANTILE), step + 1

    x_T = rearrange(jnp.asarray(fx.arrays["inputs/sampling_noise"]), "b c h w -> b h w c") * fx.meta["temperature"]
    schedule = cosine_schedule(1000)
    times = uniform_timesteps(schedule, fx.meta["ddim_steps"])
    x0, states = ddim(denoise, x_T, schedule, times, carry=jnp.int32(0), callback=lambda timestep, x_t, x0: x_t)
    yield "ddim_trajectory", rearrange(jnp.concatenate([states, x0[None]]), "n b h w c -> b n c h w") / 2 + 0.5


def sampling_uniforms(fx: Fixture, branches: int) -> jax.Array | None:
    """Uniform numbers of the sampling run `[steps, branches * b, pixels, m]`, conditional branch first."""
    found = fx.uniforms("importance_uniforms_sampling")
    if found is None:
        return None
    chunks = -(-(fx.size**2) // fx.meta["render_chunk"])
    draws = fx.meta["ddim_steps"] * branches * chunks
    if len(found) < draws:
        raise ValueError(f"{len(found)} recorded draws of uniform numbers, {draws} needed for {branches} branches")
    split = {"s": fx.meta["ddim_steps"], "k": branches, "b": len(fx.timestep)}
    return jnp.asarray(rearrange(found[:draws], "(s k n) (b p) m -> s (k b) (n p) m", **split))


def relative_error(ours: jax.Array, reference: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference (over 1 where that is 0); shapes may differ by axes of
    size 1."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if np.squeeze(ours).shape != np.squeeze(reference).shape:
        raise ValueError(f"shape {ours.shape}, reference {reference.shape}")
    ours = ours.reshape(reference.shape)
    return float(np.linalg.norm(ours - reference) / (np.linalg.norm(reference) or 1.0))


def program(fx: Fixture) -> Callable[[Params], dict[str, Any]]:
    """What computes all outputs of a fixture from parameters."""
    parts = (scene_outputs, loss_outputs, schedule_outputs, trajectory_outputs)
    return jax.jit(
        lambda params: {name: value for part in parts for name, value in part(params, fx)},
        compiler_options=QUICK_COMPILATION,
    )


def compute(fx: Fixture) -> dict[str, jax.Array]:
    """All that can be compared, by the names of the fixture's outputs."""
    computed = program(fx)(fx.params)
    gradients = computed.pop("gradients", None)
    if gradients is not None:
        computed |= named_gradients(gradients, fx)
    return computed


def compare(path: str) -> dict[str, float]:
    """Relative errors of all outputs of a fixture.

    Raises:
      ValueError: if the fixture has an output that is not compared.
    """
    fx = Fixture(path)
    computed = compute(fx)
    missed = set(fx.outputs) - set(computed)
    if missed:
        raise ValueError(f"{path} has outputs that nothing here computes: {', '.join(sorted(missed))}")
    return {name: relative_error(value, fx.outputs[name]) for name, value in computed.items() if name in fx.outputs}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.npz")
    parser.add_argument("--all", action="store_true", help="print every gradient, not only the worst")
    arguments = parser.parse_args()
    worst = 0.0
    with jax.default_matmul_precision("highest"):
        for path in arguments.files:
            errors = compare(path)
            print(path)
            for name, error in errors.items():
                if arguments.all or not name.startswith("grad"):
                    print(f"  {error:8.1e}  {name}")
            gradients = {name: error for name, error in errors.items() if name.startswith("grad")}
            if gradients:
                name = max(gradients, key=gradients.get)
                print(f"  {gradients[name]:8.1e}  {name} (worst of {len(gradients)} gradients)")
            worst = max([worst, *(error if np.isfinite(error) else np.inf for error in errors.values())])
    verdict = "passed" if worst <= TOLERANCE else "FAILED"
    print(f"largest relative error {worst:.1e}, allowed {TOLERANCE:.0e}: {verdict}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
