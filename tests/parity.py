"""Compares this model with numbers that the published code produced.

    python -m tests.parity FILE.npz...

Loads the parameters and inputs of each fixture, computes every output that the fixture has, prints the relative error
of each (norm of the difference over norm of the reference), and exits with 1 if one is above 1e-4.
"""

import argparse
import ast
import sys
from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from dfm_jax import config as cfg
from dfm_jax.diffusion.guidance import classifier_free_guidance, dynamic_threshold
from dfm_jax.diffusion.samplers import ddim, sampling_timesteps
from dfm_jax.diffusion.schedule import cosine_schedule
from dfm_jax.forward_model import (
    RadianceFieldModel,
    bind_field,
    encode_views,
    image_rays,
    patch_pixels,
    render_with_uniforms,
)
from dfm_jax.geometry import cast_rays, pixel_grid
from dfm_jax.interop.torch_checkpoint import LABEL_EMBEDDING, TIME_BIAS, export_arrays, import_params
from dfm_jax.structs import Camera, Example, Rendering, Scene, Views

TOLERANCE = 1e-4
THRESHOLD_QUANTILE = 0.95
LOSS = cfg.LossConfig(1.0, 0.0, 0.0, 0.0, "patch", 1)


class Fixture:
    """A fixture's numbers, channels-last where they are images, and the model of its sizes."""

    def __init__(self, path: str):
        self.arrays = dict(np.load(path))
        self.meta = ast.literal_eval(str(self.arrays["meta"]))
        self.outputs = {k[4:]: v for k, v in self.arrays.items() if k.startswith("out/")}
        self.state = {k[7:]: v for k, v in self.arrays.items() if k.startswith("params/")}
        self.model = RadianceFieldModel(self._config(self.meta["n_fine"]), self.meta["size"], LOSS)
        # The published checkpoints hold a fine MLP even where nothing renders it.
        with_fine = RadianceFieldModel(self._config(max(self.meta["n_fine"], 1)), self.meta["size"], LOSS)
        self.params = import_params(self.state, with_fine)
        self.with_fine = with_fine
        self.example = self._example()
        self.timestep = jnp.asarray(self.arrays["inputs/t"])
        self.x_t = rearrange(jnp.asarray(self.arrays["inputs/noisy_trgt_rgb"]), "b c h w -> b h w c")

    def _config(self, num_fine: int) -> cfg.ModelConfig:
        m = self.meta
        rendered = self.state["model.pixelNeRF_joint.mlp.lin_out_feats.weight"].shape[0] - 4
        field = cfg.FieldConfig(m["mlp_hidden"], 3, 2, 0.0)
        encoder = cfg.EncoderConfig(m["depth"], m["hidden"], m["heads"], m["feat"], m["abs_pose"], False)
        marching = cfg.RayMarchingConfig(m["n_coarse"], num_fine, m["n_cond"], m["render_chunk"], 0.0)
        return cfg.ModelConfig("corners", "float32", rendered, m["size"], encoder, field, field, marching)

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


def encoder_outputs(fx: Fixture) -> Iterator[tuple[str, jax.Array]]:
    clean = encode_views(fx.params, fx.model, fx.example.context, jnp.zeros(fx.example.context.valid.shape))
    yield "encoder_clean_context", rearrange(clean.features, "b v h w c -> (b v) c h w")
    scene, estimate = jax.jit(fx.model.infer)(fx.params, fx.example, fx.x_t, fx.timestep)
    yield "encoder_noisy_target", rearrange(scene.features[:, -1], "b h w c -> b c h w")
    values = jnp.concatenate([2 * estimate.rgb - 1, estimate.depth[..., None], estimate.features], axis=-1)
    yield "conditioning_rgb_depth_features", rearrange(values, "b (h w) c -> b c h w", h=fx.meta["size"])
    yield from field_outputs(fx, scene)
    yield from view_outputs(fx, scene)


def field_outputs(fx: Fixture, scene: Scene) -> Iterator[tuple[str, jax.Array]]:
    points = jnp.asarray(fx.arrays["inputs/field_points"])
    for part in ("coarse", "fine"):
        field = bind_field(fx.params["scene_field"][part], fx.with_fine.field("scene_field"), scene)
        density, radiance = field(points[:, :, None])
        yield f"field_density_{part}", density
        yield f"field_radiance_{part}", radiance[:, :, 0]


def view_outputs(fx: Fixture, scene: Scene) -> Iterator[tuple[str, jax.Array]]:
    """All target views in full."""
    size, num_views = fx.meta["size"], fx.example.target.valid.shape[1]
    uniforms = fx.uniforms("importance_uniforms_full_image")
    if uniforms is not None:
        uniforms = rearrange(uniforms, "n (b t p) m -> t b (n p) m", b=len(fx.timestep), t=num_views)
    views = []
    for t in range(num_views):
        camera = jax.tree.map(lambda x, t=t: x[:, t], fx.example.target.camera)
        rays = image_rays(camera, size, "corners")
        numbers = None if uniforms is None else jnp.asarray(uniforms[t])
        views.append(jax.jit(render_with_uniforms, static_argnums=1)(fx.params, fx.model, scene, rays, numbers))
    stack = lambda parts: rearrange(jnp.stack(parts, axis=1), "b t (h w) ... -> (b t) ... h w", h=size)
    yield "denoised_views_rgb", stack([2 * view.rgb - 1 for view in views])
    yield "denoised_views_depth", stack([view.depth for view in views])


def patch_losses(params: dict, fx: Fixture) -> tuple[jax.Array, tuple[Rendering, jax.Array, jax.Array]]:
    """Sum of the patch loss and the estimate's loss, and what they are made of."""
    example, size = fx.example, fx.meta["size"]
    side = int(np.sqrt(fx.outputs["patch_rgb"].shape[-1]))
    num_views = example.target.valid.shape[1]
    corner = lambda name: jnp.repeat(jnp.asarray(fx.arrays[f"inputs/{name}"])[:, None], num_views, axis=1)
    pixels = jax.vmap(lambda t, l: patch_pixels(t, l, side, size))(corner("patch_top"), corner("patch_left"))
    flat = lambda x: rearrange(x, "b t r ... -> b (t r) ...")
    colours = rearrange(example.target.images, "b t h w c -> b t (h w) c")
    truth = 2 * flat(jnp.take_along_axis(colours, pixels[..., None], axis=2)) - 1
    rays = cast_rays(example.target.camera, pixel_grid(size, size, "corners").reshape(-1, 2)[pixels])

    scene, estimate = fx.model.infer(params, example, fx.x_t, fx.timestep)
    rendering = render_with_uniforms(params, fx.model, scene, jax.tree.map(flat, rays), None)
    patch_loss = jnp.mean(jnp.square(2 * rendering.rgb - 1 - truth))
    conditioning_loss = jnp.mean(jnp.square(fx.model.to_x0(estimate) - fx.model.estimate_target(example)))
    return patch_loss + conditioning_loss, (rendering, patch_loss, conditioning_loss)


def loss_outputs(fx: Fixture) -> Iterator[tuple[str, jax.Array]]:
    """Patch, losses and gradients, where the fixture has them."""
    if "patch_loss" not in fx.outputs:
        return
    compute = jax.jit(jax.value_and_grad(partial(patch_losses, fx=fx), has_aux=True))
    (_, (rendering, patch_loss, conditioning_loss)), gradients = compute(fx.params)
    num_views = fx.example.target.valid.shape[1]
    yield "patch_rgb", rearrange(2 * rendering.rgb - 1, "b (t r) c -> (b t) c r", t=num_views)
    yield "patch_depth", rearrange(rendering.depth, "b (t r) -> (b t) r", t=num_views)
    yield "patch_loss", patch_loss
    yield "conditioning_loss", conditioning_loss
    named = export_arrays(gradients, fx.with_fine)
    # The label embedding is folded into this bias, so that their gradients are one.
    named[LABEL_EMBEDDING] = named[TIME_BIAS]
    for key in fx.outputs:
        kind, _, name = key.partition("/")
        if kind == "grad":
            yield key, named[name]
        elif kind == "grad_norm":
            yield key, np.linalg.norm(named[name])


def schedule_outputs(fx: Fixture) -> Iterator[tuple[str, jax.Array]]:
    schedule = cosine_schedule(1000)
    yield "schedule_betas", schedule.beta
    yield "schedule_alphas_cumprod", schedule.alpha_bar
    yield "schedule_sqrt_alphas_cumprod", schedule.signal_rate
    yield "schedule_sqrt_one_minus_alphas_cumprod", schedule.noise_rate
    yield "schedule_posterior_variance", schedule.posterior_variance


def trajectory_outputs(fx: Fixture) -> Iterator[tuple[str, jax.Array]]:
    """The whole DDIM run from the recorded noise, guided as the fixture says."""
    meta, example, model = fx.meta, fx.example, fx.model
    steps, scale = meta["ddim_steps"], meta["guidance"]
    recorded = sampling_uniforms(fx)
    target = jax.tree.map(lambda x: x[:, 0], example.target.camera)
    rays = image_rays(target, meta["size"], "corners")

    def branch(context_dropped: bool, x_t: jax.Array, timestep: jax.Array, uniforms: jax.Array | None) -> jax.Array:
        given = model.drop_context(example, jnp.full(timestep.shape, context_dropped))
        scene, _ = model.infer(fx.params, given, x_t, timestep)
        rendering = render_with_uniforms(fx.params, model, scene, rays, uniforms)
        return model.to_x0(rendering).reshape(x_t.shape)

    def denoise(x_t: jax.Array, timestep: jax.Array, step: jax.Array) -> jax.Array:
        uniforms = (None, None) if recorded is None else recorded[step]
        conditional = branch(False, x_t, timestep, uniforms[0])
        if scale == 1:
            return conditional
        return classifier_free_guidance(conditional, branch(True, x_t, timestep, uniforms[1]), scale)

    x_T = rearrange(jnp.asarray(fx.arrays["inputs/sampling_noise"]), "b c h w -> b h w c") * meta["temperature"]
    run = partial(
        ddim, denoise, schedule=cosine_schedule(1000), num_steps=steps, return_trajectory=True,
        x0_transform=partial(dynamic_threshold, quantile=THRESHOLD_QUANTILE),
    )  # fmt: skip
    _, trajectory = jax.jit(run)(x_T)
    yield "ddim_trajectory", rearrange(trajectory, "n b h w c -> b n c h w") / 2 + 0.5


def sampling_uniforms(fx: Fixture) -> jax.Array | None:
    """Uniform numbers of the sampling run `[steps, branches, b, pixels, m]`: conditional branch first."""
    found = fx.uniforms("importance_uniforms_sampling")
    if found is None:
        return None
    steps = len(sampling_timesteps(1000, fx.meta["ddim_steps"])) - 1
    branches = 1 if fx.meta["guidance"] == 1 else 2
    chunks = -(-(fx.meta["size"] ** 2) // fx.meta["render_chunk"])
    used = found[: steps * branches * chunks]
    split = dict(s=steps, k=branches, b=len(fx.timestep))
    return jnp.asarray(rearrange(used, "(s k n) (b p) m -> s k b (n p) m", **split))


def relative_error(ours: jax.Array, reference: np.ndarray) -> float:
    """Norm of the difference over the norm of the reference; shapes may differ by axes of size 1."""
    ours, reference = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    if np.squeeze(ours).shape != np.squeeze(reference).shape:
        raise ValueError(f"shape {ours.shape}, reference {reference.shape}")
    ours = ours.reshape(reference.shape)
    return float(np.linalg.norm(ours - reference) / np.linalg.norm(reference))


def compare(path: str) -> dict[str, float]:
    """Relative errors of all outputs of a fixture.

    Raises:
      ValueError: if the fixture has an output that is not compared.
    """
    fx = Fixture(path)
    errors = {}
    for part in (encoder_outputs, loss_outputs, schedule_outputs, trajectory_outputs):
        for name, value in part(fx):
            errors[name] = relative_error(value, fx.outputs[name])
    missed = set(fx.outputs) - set(errors)
    if missed:
        raise ValueError(f"{path} has outputs that nothing here computes: {', '.join(sorted(missed))}")
    return errors


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
    print(f"largest relative error {worst:.1e}, allowed {TOLERANCE:.0e}: {'passed' if worst <= TOLERANCE else 'FAILED'}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
